"""The pictures of the report, as geometry for SVG."""
