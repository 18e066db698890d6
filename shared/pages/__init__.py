"""The pages that services write: reports as one HTML file."""
