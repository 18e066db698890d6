"""Hostile drops: sidecars, keys and datasets. None of them can be trained on: those with good rows have too few."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.support.data.datasets import good, good_row, lines
from tests.support.fuzz.values import broken, mutated, noise

FOLDER = "fuzz"
FEW = 3
"""Rows, fewer than a training needs."""


@dataclass(frozen=True)
class HostileDrop:
    """A dataset below `fuzz/`, and its sidecar. `kind` is the generator that made it."""

    kind: str
    key: str
    rows: bytes
    sidecar: bytes | None = None

    @property
    def sidecar_key(self) -> str:
        return f"{self.key.rpartition('.')[0]}.job.yaml"


SIDECARS: tuple[bytes, ...] = (
    b"suffix: 2024-31-12",
    b"suffix: 2024-02-30T99:99:99",
    b"hyperparameters: {max_grad_norm: .inf}",
    b"hyperparameters: {learning_rate_multiplier: .nan}",
    b"hyperparameters: {weight_decay: 1e999}",
    b"seed: " + b"9" * 5_000,
    b"seed: 0x" + b"f" * 5_000,
    b"seed: 190:20:30",
    b"seed: !!int x",
    b"seed: !!float .",
    b"suffix: !!binary not base64!",
    b"suffix: !!timestamp 1",
    b"? [a, b]\n: 1",
    b"? {a: 1}\n: 1",
    b"<<: 1",
    b"<<: [1, 2]",
    b"[" * 10_000,
    b"{a: " * 3_000 + b"1" + b"}" * 3_000,
    b"- " * 5_000 + b"a",
    b"a: &a [x, *a]",
    b"a: &a {b: *a}",
    b"a: &a " + b"[x]\n" + b"".join(b"b%d: &b%d [*a, *a, *a]\n" % (n, n) for n in range(9)),
    b"".join(b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9 if n else [b"x"] * 9)) for n in range(9)),
    b"!!python/object/apply:os.system ['true']",
    b"!!python/name:os.system",
    b"!<tag:yaml.org,2002:set> {a, b}",
    b"suffix: !!null x",
    b"\xff\xfe\x00",
    b"\xef\xbb\xbfsuffix: a",
    "suffix: \u2028\u2029\u0085".encode(),
    b'suffix: "\\ud800"',
    b'suffix: "\\U00110000"',
    b'suffix: "\\x00"',
    b"suffix: a\0b",
    b"suffix: a\tb\n\tc: d",
    b"%YAML 9.9\n---\nsuffix: a",
    b"--- a\n--- b",
    b"suffix: a\n---\nsuffix: b",
    b"model: ../../etc",
    b"model: ft:a:b:c:dddddddd",
    b"model: ft:" + b":" * 400,
    b"alias: ''",
    b"alias: ../x",
    b"alias: [a]",
    b"validation_file: {bucket: .., key: ''}",
    b"validation_file: {bucket: datasets, key: ../..}",
    b"validation_file: {bucket: A_, key: " + b"k" * 1_100 + b"}",
    b"validation_file: {bucket: datasets, key: nothing, size: -1, sha256: x}",
    b"metadata: {" + b", ".join(b"k%d: v" % n for n in range(2_000)) + b"}",
    b"metadata: {a: " + b"x" * 60_000 + b"}",
    b"metadata: {1: 2}",
    b"rerun: -1",
    b"rerun: " + b"9" * 30,
    b"gate: {min_delta: -.inf}",
    b"splits: {validation: 0.49999999, test: 0.49999999}",
    b"evaluation: {max_examples: 1e3}",
    b"hyperparameters: [n_epochs, 3]",
    b"hyperparameters: {n_epochs: 51, batch_size: 0, beta: 3, lora: 1}",
    b"lora: {r: 3}",
    b"lora: {target_modules: [" + b"q," * 3_000 + b"]}",
    b"x" * 70_000,
    b"#" * 1_000_000,
    b"a: b\n" * 20_000,
    b"",
    b"null",
    b"42",
    b"suffix",
    b"- suffix: a",
)


def sidecar(random: Random, number: int) -> HostileDrop:
    """A dataset with few rows, beside settings that are hostile."""
    text = random.choice(SIDECARS)
    draw = random.random()
    if draw < 0.2:
        text = broken({"suffix": "a", "hyperparameters": {"n_epochs": 1}, "metadata": {"a": "b"}}, random)
    elif draw < 0.4:
        text = mutated({"suffix": "a", "hyperparameters": {"n_epochs": 1}, "gate": {"confidence": 0.9}}, random)
    elif draw < 0.5:
        text = noise(random)
    return HostileDrop("sidecar", f"{FOLDER}/sidecars/{number}.jsonl", good(FEW), text)


def key(random: Random, number: int) -> HostileDrop:
    """A dataset with few rows under an odd key. Some of them no store takes, some are no datasets."""
    n = str(number)
    names = (
        f"a//{n}.jsonl",
        f"//{n}//.jsonl",
        f" {n} .jsonl",
        f"{n}\U0001f600\U0001f468‍\U0001f469.jsonl",
        f"{n}\x01\x1f.jsonl",
        f"{n}\x7f\x80\x9f.jsonl",
        f"{n}\n\r\t.jsonl",
        f"{n}\x0b\ufffe.jsonl",
        f"{n}/".ljust(1_024 - len(FOLDER) - 12, "k") + ".jsonl",
        f"{n}" + "/s" * 450 + ".jsonl",
        f"{n}" + "日" * 84 + ".jsonl",
        f"{n}.jsonl/",
        f"{n}/../x{n}.jsonl",
        f"{n}/./x.jsonl",
        f"{n}\\..\\x.jsonl",
        f"{n}%2e%2e%2fx.jsonl",
        f"{n}%00%zz.jsonl",
        f"{n}+ +.jsonl",
        f"{n}<&>\"'`.jsonl",
        f"{n}]]><!--.jsonl",
        f"{n}?versionId=x&uploads#f.jsonl",
        f"{n};a=b:@!$*(),.jsonl",
        f"{n}\u202etxt.jsonl",
        f"{n}e\u0301.jsonl",
        f"{n}é.jsonl",
        f"{n}.JSONL",
        f"{n}.job.yaml.jsonl",
        f"{n}.jsonl.jsonl.json",
        f"{n}.part",
        f".{n}.jsonl",
        f"{n}/_x/y.jsonl",
        f"{n}{{a,b}}*[0-9]?.jsonl",
    )
    name = random.choice(names)
    rows = lines(*(good_row(number + each) for each in range(FEW)))
    return HostileDrop("key", f"{FOLDER}/keys/{name}", rows)


def dataset(random: Random, number: int) -> HostileDrop:
    """Rows that are hostile."""
    kind = random.choice(list(_ROWS))
    return HostileDrop(kind, f"{FOLDER}/rows/{kind}-{number}.jsonl", _ROWS[kind](random))


def _line(text: bytes) -> bytes:
    return good(FEW) + text + b"\n" + good(FEW)


def _utf_16(random: Random) -> bytes:
    return good(FEW).decode().encode("utf-16")


_ROWS: dict[str, Callable[[Random], bytes]] = {
    "noise": lambda random: noise(random, 20_000),
    "empty": lambda random: random.choice((b"", b"\n", b"\n" * 5_000, b" ", b"\xef\xbb\xbf", b"\0")),
    "broken": lambda random: _line(broken(good_row(9), random)),
    "mutated": lambda random: b"".join(mutated(good_row(n), random).replace(b"\n", b"") + b"\n" for n in range(6)),
    "mutated_more": lambda random: _line(mutated(good_row(9), random)),
    "not_finite": lambda random: _line(b'{"messages": [{"role": "user", "content": "a", "weight": NaN}]}'),
    "surrogates": lambda random: _line(b'{"messages": [{"role": "user", "content": "\\ud800"}]}'),
    "cesu": lambda random: _line(b'{"messages": [{"role": "user", "content": "\xed\xa0\x80"}]}'),
    "deep": lambda random: _line(random.choice((b"[", b'{"a":', b'{"messages":[')) * random.choice((200, 9_000))),
    "long": lambda random: _line(b'{"prompt": "' + b"x" * random.choice((300_000, 2_000_000)) + b'"'),
    "digits": lambda random: _line(b'{"prompt": ' + b"7" * 6_000 + b', "completion": "a"}'),
    "array": lambda random: json.dumps([good_row(n) for n in range(FEW)]).encode(),
    "utf_16": _utf_16,
    "scalars": lambda random: b"1\n" + b'"a"\nnull\ntrue\n[]\n{}\n' * random.randint(1, 500),
    "mixed": lambda random: lines({"prompt": "a", "completion": "b"}, good_row(1), {"messages": []}, {"text": "c"}),
    "keys": lambda random: lines({f"k{n}": n for n in range(5_000)}, {"messages": {"0": good_row(1)}}),
    "returns": lambda random: good(FEW).replace(b"\n", random.choice((b"\r", b"\r\n", b"\x0b", b"\x85", b"\0\n"))),
    "tools": lambda random: _line(
        b'{"messages": [{"role": "assistant", "tool_calls": '
        + random.choice((b"[{}]", b'[{"function": {"name": 1, "arguments": "{"}}]', b"7", b'[[["x"]]]'))
        + b'}], "tools": [{"type": "function", "function": {"parameters": {"$ref": "#"}}}]}'
    ),
}
