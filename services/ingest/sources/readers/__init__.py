"""One reader for each kind of file: it finds the columns, and gives numbered rows."""
