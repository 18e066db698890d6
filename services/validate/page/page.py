"""The page of what was examined."""

from __future__ import annotations

from services.validate.check import Examined
from services.validate.page.preview import preview
from services.validate.page.render import render
from services.validate.reader import Source
from services.validate.survey.survey import Survey
from services.validate.tokenizer import Tokenizer


def page(examined: Examined, training: Source, surveyed: Survey | None, tokenizer: Tokenizer | None) -> str:
    """The page as HTML, with a preview of the rows if they can be trained on and a base is known. `training`: the file
    that was examined.

    Raises:
        OSError: the file cannot be read.
    """
    if not examined.report.ok or examined.training is None or tokenizer is None:
        return render(examined.report)
    return render(examined.report, preview(examined, training, surveyed.training if surveyed else None, tokenizer))
