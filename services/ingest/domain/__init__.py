"""Which objects are datasets, and which jobs they make. Pure: values in, decisions out."""
