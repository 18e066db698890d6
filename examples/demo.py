"""The whole pipeline, end to end, as a user would run it: start the stack, drop a dataset, watch the job, ask the tuned
model through the official OpenAI client. `make demo` runs it.

The demo uses a stack that is running, and leaves it running. If there is none, it starts one and stops it at the end.
Without a GPU, a real base is trained and evaluated less than the tiny one (`SHORTER`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openai import OpenAI

HERE = Path(__file__).parent
DATASET = HERE / "support.jsonl"
ALIAS = "support"
TINY = "tiny-base"
SHORTER = {
    "hyperparameters.n_epochs": 1,  # of 56 steps; SmolLM2's loss was at 0.4 after 50 of 168
    "evaluation.max_tokens": 80,  # its longest answer in the dataset has 57; a base that talks on need not be heard out
    "evaluation.max_examples": 32,  # of 56; after three epochs on a GPU the difference was 0.75
}
"""Settings of the job for a real base without a GPU, where 200 tokens are trained in a second."""
QUESTION = [
    {"role": "system", "content": json.loads(DATASET.read_text().splitlines()[0])["messages"][0]["content"]},
    {"role": "user", "content": "Hi, this is Priya. My order 48213 has not arrived yet. Where is it?"},
]


def tunestream(*arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "cli", *arguments], text=True, capture_output=capture, check=False)


def exports() -> dict[str, str] | None:
    """The variables that `tunestream env` prints; None if no stack is running."""
    done = tunestream("env", capture=True)
    if done.returncode != 0:
        return None
    lines = (line.removeprefix("export ").partition("=") for line in done.stdout.splitlines())
    return {name: value.strip("'") for name, _, value in lines}


@contextmanager
def stack(base: str) -> Iterator[dict[str, str]]:
    running = exports()
    if running:
        yield running
        return
    try:
        if tunestream("up", "--detach", "--base", base).returncode:
            sys.exit("the stack did not start")
        started = exports()
        assert started, "`tunestream up` has said that all is ready"
        yield started
    finally:
        tunestream("down")


def unused_rerun(done: subprocess.CompletedProcess[str]) -> str:
    """A value of `rerun` that no job in the list `done` has. Without it, a second demo would find the job of the
    first."""
    return str(sum(DATASET.name in line for line in done.stdout.splitlines()))


def chosen(base: str, gpu: bool) -> list[str]:
    """The options of `tunestream submit` for a job on the base with the id `base`."""
    if base == TINY or gpu:
        return []
    return [word for name, value in SHORTER.items() for word in ("--set", f"{name}={value}")]


def restart(base: str) -> str:
    """The command that starts the stack again on `base`: a folder or a hub id, as the demo was given it."""
    known = {f".cache/{TINY}": "make up", ".cache/smollm2": "make up BASE=smollm2"}
    return known.get(base, f"tunestream up --base {base}")


def ask(client: OpenAI, model: str) -> str:
    answer = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=160)  # type: ignore[arg-type]
    return (answer.choices[0].message.content or "").strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=f".cache/{TINY}", help="the model to tune: a folder or a hub id")
    arguments = parser.parse_args()
    began = time.monotonic()
    with stack(arguments.base) as env:
        os.environ.update(env)
        rerun = unused_rerun(tunestream("jobs", "--limit", "100", capture=True))
        settings = chosen(env["TUNESTREAM_BASE"], gpu=shutil.which("nvidia-smi") is not None)
        print(f"\nDropping {DATASET.name} into the bucket …\n", flush=True)
        if code := tunestream(
            "submit", str(DATASET), "--alias", ALIAS, "--rerun", rerun, *settings, "--watch"
        ).returncode:
            sys.exit(code)
        client = OpenAI()
        print(f"\nAsking both through the official client: {QUESTION[-1]['content']}\n")
        print(f"  {env['TUNESTREAM_BASE']} (base):\n    {ask(client, env['TUNESTREAM_BASE'])[:300]!r}\n")
        print(f"  {ALIAS} (tuned):\n    {ask(client, ALIAS)!r}\n", flush=True)
    again = f"`{restart(arguments.base)}` starts the stack again, with this model behind `{ALIAS}`."
    print(f"Done in {time.monotonic() - began:.0f} s. {again}")


if __name__ == "__main__":
    main()
