"""Graders: validate, run, and one that cannot be."""

from __future__ import annotations

import inspect

import openai
from calls import Calls

GRADER = {
    "type": "string_check",
    "name": "sum",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
SIMILAR = {
    "type": "text_similarity",
    "name": "alike",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "evaluation_metric": "rouge_l",
}
BOTH = {"type": "multi", "name": "both", "graders": {"a": GRADER, "b": SIMILAR}, "calculate_output": "(a + b) / 2"}
ALPHA = "fine_tuning.alpha.graders"
ROUTE = "/fine_tuning/alpha/graders"


class Graders(Calls):
    async def graders(self) -> None:
        for grader in (GRADER, SIMILAR, BOTH):
            valid = await self.ask(f"{ALPHA}.validate", f"POST {ROUTE}/validate", grader=grader)
            assert valid.grader.type == grader["type"], valid
            for sample, reward in (("four", 1.0), ("five", 0.0)):
                graded = await self.grade(grader, sample)
                assert graded.reward == reward and graded.metadata.type == grader["type"], graded
        wrong = {**GRADER, "operation": "is"}
        error = await self.refused(
            openai.BadRequestError, lambda: self.ask(f"{ALPHA}.validate", f"POST {ROUTE}/validate", grader=wrong)
        )
        assert error.param == "grader.operation", error.body
        python = {"type": "python", "name": "p", "source": "def grade(sample, item): return 1.0"}
        await self.refused(openai.BadRequestError, lambda: self.grade(python, "four"))

    async def grade(self, grader: dict, sample: str):
        """1.78 has no `item`: its `reference_answer` is what templates call `item.reference_answer`."""
        run = self.find(f"{ALPHA}.run")
        if run and "item" not in inspect.signature(run).parameters:
            old = {"grader": grader, "model_sample": sample, "reference_answer": "four"}
            return await self.now(run(**old, extra_body={"item": {"answer": "four"}}))
        item = {"answer": "four"}
        return await self.ask(f"{ALPHA}.run", f"POST {ROUTE}/run", grader=grader, model_sample=sample, item=item)
