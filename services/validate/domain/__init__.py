"""The rules for training files and their split. Pure: bytes and values in, findings and numbers out."""
