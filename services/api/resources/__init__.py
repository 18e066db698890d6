"""HTTP: one folder per resource, each with its routes and its pure domain."""
