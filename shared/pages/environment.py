"""How templates become pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def page_environment(folder: Path, filters: dict[str, Any]) -> Environment:
    """The environment of the templates in `folder`: everything is escaped, and a value that is missing is an error.
    They can include `base.css.j2` of this package, the style that all pages share."""
    # autoescape by file name does not know `.j2`, so everything is escaped
    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment
