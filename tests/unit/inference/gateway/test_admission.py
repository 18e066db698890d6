"""How many generations are taken, and how much of their bodies."""

from __future__ import annotations

import resource

import pytest

from services.inference.gateway.admission import Admission
from shared.http.errors import ApiError
from shared.process import allow_open_files


def taken(admission: Admission) -> int:
    """How many generations it takes at a time."""
    with admission.slot():
        try:
            return 1 + taken(admission)
        except ApiError as error:
            assert error.status == 429
            return 1


def test_there_are_never_more_than_files_can_be_opened_for() -> None:
    asked: list[int] = []

    def allow(wanted: int) -> int:
        asked.append(wanted)
        return 1044

    assert taken(Admission.within(100, allow)) == 10
    assert taken(Admission.within(5, allow)) == 5
    assert asked == [1224, 1034]


def test_bodies_of_all_requests_are_counted_together_until_their_answers_begin() -> None:
    admission = Admission(10, max_body_bytes=100)
    with admission.slot() as one, admission.slot() as other:
        one.hold(60)
        with pytest.raises(ApiError, match="so large"):
            other.hold(50)
        one.release_body()
        other.hold(50)
        other.hold(50)
    with admission.slot() as one:
        one.hold(100)


def test_a_process_may_open_as_many_files_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert allow_open_files(300) == 300
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, hard)
        assert allow_open_files(10) == 300
        assert allow_open_files(2**40) in (hard, 2**40)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
