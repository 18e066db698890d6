"""The client of the object store: conditional writes, verified reads, folders, and the translation of its errors."""
