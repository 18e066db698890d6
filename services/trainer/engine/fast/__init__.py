"""What makes training fast, one idea a file: each computes what the plain model does, and a test compares the two."""
