"""The model of the package, in this process."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from shared.embeddings.embedder import Embedder
from shared.embeddings.local import LocalModel
from shared.errors import ConfigError
from shared.scoring.cosine import cosine

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return LocalModel()


async def alike(model: LocalModel, one: str, other: str) -> float:
    return cosine(*await Embedder(model).embed([one, other]))


@pytest.mark.parametrize(
    ("reference", "paraphrase", "unrelated"),
    [
        (
            "The parcel arrives tomorrow.",
            "Your package will be delivered the next day.",
            "Bananas are rich in potassium.",
        ),
        ("How do I reset my password?", "I forgot my login credentials, what now?", "The match ended two to one."),
        ("The invoice is overdue.", "Payment of this bill is late.", "The museum opens at nine."),
    ],
)
async def test_a_paraphrase_is_more_alike_than_another_text(
    model: LocalModel, reference: str, paraphrase: str, unrelated: str
) -> None:
    assert await alike(model, reference, paraphrase) > await alike(model, reference, unrelated) + 0.25


async def test_vectors_have_a_length_of_one_and_do_not_depend_on_the_batch(model: LocalModel) -> None:
    texts = ["short", "a somewhat longer text " * 20, "word " * 900, "日本語のテキスト", "\x00\u200b", "x" * 5000]
    together = await model.vectors(texts)
    assert [math.hypot(*vector) for vector in together] == pytest.approx([1.0] * len(texts))
    for text, vector in zip(texts, together, strict=True):
        [alone] = await model.vectors([text])
        assert cosine(alone, vector) == pytest.approx(1.0, abs=1e-5)


async def test_what_stands_at_the_end_of_a_long_text_counts(model: LocalModel) -> None:
    """The model reads 256 tokens; the texts have 1,200, and differ in the last third."""
    begin = "The weather in the mountains was fine all week long. " * 60
    sea, bank = "We sailed along the coast and swam in the warm sea. " * 30, "Interest rates and bonds fell. " * 45
    first, same, other = await model.vectors([begin + sea, begin + sea + "We went swimming.", begin + bank])
    assert cosine(first, same) > 0.98
    assert cosine(first, other) < 0.95


async def test_a_model_that_cannot_be_loaded_is_a_wrong_setting(tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("model")
    with pytest.raises(ConfigError, match="TUNESTREAM_EMBEDDINGS__MODEL"):
        await LocalModel(str(empty)).vectors(["a"])


def test_torch_is_imported_with_the_first_text_and_not_before() -> None:
    code = (
        "import asyncio, sys; from shared.embeddings.source import make_embedder, trouble; "
        "from shared.settings import EmbeddingsSettings as Settings; "
        "embedder = make_embedder(Settings()); assert not trouble(Settings()); assert 'torch' not in sys.modules; "
        "asyncio.run(embedder.embed(['a'])); assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
