"""Fine-tune by the OpenAI API, with the official client and nothing else: `python examples/openai_sdk.py`.

This is what code for OpenAI's hosted fine-tuning does: upload two files, create a job, poll it, read its events and its
result file, ask the tuned model. Only the address and the key are ours: OPENAI_BASE_URL and OPENAI_API_KEY, which
`eval "$(tunestream env)"` sets. `gpt-4o-mini-2024-07-18` stands for the base of the stack.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
from pathlib import Path

from openai import OpenAI

ROWS = (Path(__file__).with_name("support.jsonl")).read_bytes().splitlines(keepends=True)
TRAIN, VALIDATION = ROWS[:240], ROWS[500:]  # enough to see it learn; all 500 take two minutes more on a CPU
POLL_SECONDS = 2.0


def main() -> None:
    client = OpenAI(
        base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
    )
    train = client.files.create(file=("train.jsonl", b"".join(TRAIN)), purpose="fine-tune")
    validation = client.files.create(file=("validation.jsonl", b"".join(VALIDATION)), purpose="fine-tune")
    print(f"uploaded {train.id} ({train.bytes} bytes) and {validation.id}")

    job = client.fine_tuning.jobs.create(
        model="gpt-4o-mini-2024-07-18",
        training_file=train.id,
        validation_file=validation.id,
        suffix="support-desk",
        hyperparameters={"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 1.0},
    )
    print(f"created {job.id}")

    seen: set[str] = set()
    while job.status in ("validating_files", "queued", "running"):
        time.sleep(POLL_SECONDS)
        job = client.fine_tuning.jobs.retrieve(job.id)
        events = client.fine_tuning.jobs.list_events(job.id, limit=50).data
        for event in reversed(events):
            if event.id not in seen:
                seen.add(event.id)
                print(f"  {event.message}", flush=True)
    print(f"{job.id} {job.status}; {job.trained_tokens} tokens trained")
    if job.status != "succeeded" or job.fine_tuned_model is None:
        sys.exit(str(job.error))

    content = client.files.content(job.result_files[0]).read().decode()
    steps = list(csv.DictReader(io.StringIO(content)))
    print(f"training loss: {steps[0]['train_loss']} at the first step, {steps[-1]['train_loss']} at the last")
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
        print(f"checkpoint at step {checkpoint.step_number}: {checkpoint.fine_tuned_model_checkpoint}")

    question = json.loads(VALIDATION[0])["messages"][:-1]
    print(f"\n{question[-1]['content']}")
    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=question, max_tokens=160, temperature=0
    )
    print(f"{job.fine_tuned_model}:\n  {answer.choices[0].message.content}")


if __name__ == "__main__":
    main()
