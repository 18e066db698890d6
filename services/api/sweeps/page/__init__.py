"""The page of a sweep: one HTML file that loads nothing and runs no script."""
