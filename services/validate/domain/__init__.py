"""What makes a training file good, and how it is divided. Pure: bytes and values in, findings and numbers out."""
