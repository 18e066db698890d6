"""Where the parts of a synthesis are in the stores: the spec and the dataset in the bucket, the rest in the ledger."""

from __future__ import annotations

import posixpath

from services.ingest.domain.datasets import is_dataset
from shared import ids

SPEC_ENDINGS = (".synthesis.yaml", ".synthesis.yml")
PREFIX = "ingest/synthesis/"


def is_spec(key: str) -> bool:
    """Whether an object is a spec, by its name. What ingest ignores among datasets is ignored here, too."""
    return key.endswith(SPEC_ENDINGS) and is_dataset(dataset_key(key))


def name_of(file: str) -> str:
    """The name of a synthesis, by the name of its spec."""
    ending = next((ending for ending in SPEC_ENDINGS if file.endswith(ending)), posixpath.splitext(file)[1])
    return file.removesuffix(ending)


def dataset_key(spec_key: str) -> str:
    """Where the dataset of a spec lands: `NAME.jsonl` beside `NAME.synthesis.yaml`."""
    return f"{name_of(spec_key)}.jsonl"


def seeds_key(spec_key: str, seeds: str) -> str:
    """Where the seeds of a spec are."""
    return posixpath.join(posixpath.dirname(spec_key), seeds)


def prefix_of(bucket: str, spec_key: str) -> str:
    """What the ledger keeps of a spec: `claim.json`, `dataset.json`, `done.json`, `report.json`, and a folder with the
    journal of each version that asks for something else."""
    return f"{PREFIX}{ids.derive('synthesis', bucket, spec_key)}/"


def entry_key(prefix: str, digest: str, number: int) -> str:
    """The object with the entries `number` of a journal."""
    return f"{prefix}{digest}/{number:08}.jsonl"
