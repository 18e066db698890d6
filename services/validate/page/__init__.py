"""The report as a page that people look at: one HTML file that loads nothing."""
