"""The object store: conditional writes, verified reads, folders, and what its errors mean."""
