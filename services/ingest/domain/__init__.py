"""What is a dataset, what did its user ask for, and which job is that. Pure: values in, decisions out."""
