"""Which requests are taken for the cause when the model server dies."""

from __future__ import annotations

from services.inference.domain.suspects import MARKS, REMEMBERED_SECONDS, Generation, Suspects


def die(suspects: Suspects, *under_way: Generation, now: float = 0.0) -> None:
    """The server dies while these are under way, and each of them finds out."""
    for generation in under_way:
        suspects.begin(generation)
    for generation in under_way:
        suspects.died(generation, now)
    for generation in under_way:
        suspects.end(generation)


def test_all_that_were_under_way_get_one_mark_for_one_death() -> None:
    suspects = Suspects()
    one, other, twin = Generation("one"), Generation("other"), Generation("other")

    die(suspects, one, other, twin)

    assert [suspects.marks(key, 1) for key in ("one", "other", "third")] == [1, 1, 0]
    assert not one.guilty and not other.guilty


def test_one_that_was_alone_is_the_cause() -> None:
    suspects, one = Suspects(), Generation("one")
    die(suspects, one)
    assert one.guilty and suspects.marks("one", 1) == 1


def test_one_on_trial_is_the_cause_and_no_other() -> None:
    suspects = Suspects()
    die(suspects, Generation("one"), Generation("other"))

    tried, beside = Generation("one", on_trial=True), Generation("other")
    die(suspects, beside, tried)

    assert (tried.guilty, beside.guilty) == (True, False)
    assert (suspects.marks("one", 1), suspects.marks("other", 1)) == (MARKS, 1)


def test_an_answer_takes_the_marks_away_and_so_does_time() -> None:
    suspects = Suspects()
    die(suspects, Generation("one"))
    die(suspects, Generation("other"))

    suspects.succeeded(Generation("one"))

    assert suspects.marks("one", 1) == 0
    assert suspects.marks("other", REMEMBERED_SECONDS - 1) == 1
    assert suspects.marks("other", REMEMBERED_SECONDS) == 0
    die(suspects, Generation("other"), now=REMEMBERED_SECONDS + 1)
    assert suspects.marks("other", REMEMBERED_SECONDS + 1) == 1


def test_what_is_remembered_is_bounded() -> None:
    suspects = Suspects(most=100)
    for number in range(1000):
        die(suspects, Generation(number))
    assert [suspects.marks(number, 1) for number in (0, 899, 900, 999)] == [0, 0, 1, 1]
    assert len(suspects._marks) == 100 and not suspects._under_way
