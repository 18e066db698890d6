"""One sitting: row after row, a decision on each, until all are decided or the user leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.text import Text

from cli.curate import edit, view
from cli.curate.journal import Decision, Journal
from cli.curate.rows import Row, Rows, check_value, encode
from cli.terminal import CliError, out, say
from shared.settings import ValidationSettings

KEYS = {
    "a": "accept",
    "e": "edit",
    "r": "reject",
    "s": "skip",
    "b": "back",
    "q": "quit",
}
QUESTION = "  ".join(f"[{key}]{word[1:]}" for key, word in KEYS.items())


@dataclass
class Session:
    """`next_key` waits for a key and returns it; "" means that no more will come."""

    rows: Rows
    journal: Journal
    limits: ValidationSettings
    next_key: Callable[[], str]
    open_editor: Callable[[str], str] = edit.open_editor

    def run(self, again: bool = False) -> None:
        """Go through the rows that are not decided yet, or through all of them (`again`)."""
        decided = self.journal.decisions
        wanted = [index for index, place in enumerate(self.rows.places) if again or place.key not in decided]
        at = 0
        while at < len(wanted):
            move = self._ask(wanted[at])
            if move is None:
                return
            at = max(0, at + move)

    def accept_clean(self) -> int:
        """Accept every row that is not decided and of which no check says anything. Returns how many."""
        clean = [
            place
            for place in self.rows.places
            if place.line not in self.rows.findings and place.key not in self.journal.decisions
        ]
        self.journal.record(*(Decision(key=place.key, verdict="accepted") for place in clean))
        return len(clean)

    def chosen(self) -> Iterator[bytes]:
        """The lines of the curated file: what was accepted or edited, in the order of the file."""
        for index, place in enumerate(self.rows.places):
            decision = self.journal.decisions.get(place.key)
            if decision is None or decision.verdict == "rejected":
                continue
            yield encode(decision.value) if decision.value is not None else self.rows.read(index).raw

    def counts(self) -> Counter[str]:
        """How many rows are accepted, edited, rejected, and open."""
        decided = (self.journal.decisions.get(place.key) for place in self.rows.places)
        return Counter(decision.verdict if decision else "open" for decision in decided)

    def _ask(self, index: int) -> int | None:
        """Show a row and do what the user says. Returns how far to go from here; None: leave."""
        row, key = self.rows.read(index), self.rows.places[index].key
        before = self.journal.decisions.get(key)
        out.rule(f"row {index + 1:,} of {len(self.rows):,} (line {row.line:,})")
        out.print(view.shown(row))
        if before is not None:
            out.print(Text(f"{before.verdict} before", style="dim"))
        while True:
            out.print(Text(QUESTION, style="bold"))
            match self.next_key():
                case "a" if row.refused:
                    say("a row with an error cannot be accepted: no job would train on the file", "edit or reject it")
                case "a":
                    self.journal.record(Decision(key=key, verdict="accepted"))
                    return 1
                case "r":
                    self.journal.record(Decision(key=key, verdict="rejected"))
                    return 1
                case "e":
                    if (decision := self._edited(row, key)) is not None:
                        self.journal.record(decision)
                        return 1
                case "s":
                    return 1
                case "b":
                    return -1
                case "q" | "":
                    return None

    def _edited(self, row: Row, key: str) -> Decision | None:
        """The decision that an edited row is; None if nothing came of it."""
        text = edit.to_text(row.value) if row.value is not None else row.raw.decode("utf-8", "replace")
        try:
            value = edit.from_text(self.open_editor(text))
        except CliError as error:
            say(error.message, error.remedy)
            return None
        if value is None or value == row.value:
            out.print(Text("nothing was changed", style="dim"))
            return None
        findings = check_value(value, self.limits)
        for finding in findings:
            out.print(view.about(finding))
        if any(finding.severity == "error" for finding in findings):
            say("the edited row has an error, so it is not kept", "edit again, or reject the row")
            return None
        return Decision(key=key, verdict="edited", value=value)
