"""What the report draws: pictures as geometry for SVG, and differences of texts."""
