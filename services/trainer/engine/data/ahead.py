"""Makes what is needed next while what was made before is in use."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class Ahead(Generic[K, T]):
    """Calls `make` one key ahead, on a thread. `make` must depend on the key alone: what the thread made for a key that
    is not asked for is thrown away, and so is its error."""

    def __init__(self, make: Callable[[K], T]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
        self._next: tuple[K, Future[T]] | None = None

    def take(self, key: K, following: K | None) -> T:
        """What `make` returns for `key`, or raises; `following` is begun. None: nothing follows."""
        ahead, self._next = self._next, None
        made = ahead[1].result() if ahead is not None and ahead[0] == key else self._make(key)
        if following is not None:
            self._next = (following, self._thread.submit(self._make, following))
        return made
