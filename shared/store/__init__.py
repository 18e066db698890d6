"""The client of the object store: conditional writes, verified reads, folders, deadlines, the store's clock, and the
translation of its errors."""
