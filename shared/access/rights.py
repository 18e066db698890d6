"""Which rights a request needs: one table that is read from top to bottom.

The first line that fits decides. A path without `*` at its end is meant exactly; `/v1/files*` means `/v1/files` and all
below it. A route that no line fits needs `admin`.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.access.principal import Right

ANY = "*"


def is_below(path: str, top: str) -> bool:
    """Whether a path is `top` or lies below it."""
    return path == top or path.startswith(f"{top}/")


@dataclass(frozen=True)
class Line:
    """Requests of `method` (`*`: any) to `path` need one of `rights`. `admin` is always enough."""

    method: str
    path: str
    rights: tuple[Right, ...]

    def fits(self, method: str, path: str) -> bool:
        if self.method not in (ANY, method):
            return False
        if not self.path.endswith(ANY):
            return path == self.path
        return is_below(path, self.path[:-1])


@dataclass(frozen=True)
class RightsTable:
    """The lines of one service."""

    lines: tuple[Line, ...] = ()

    def needed(self, method: str, path: str) -> tuple[Right, ...]:
        """The rights of which a request needs one. `path` is decoded, as routes see it."""
        method = "GET" if method == "HEAD" else method
        return next((line.rights for line in self.lines if line.fits(method, path)), ())


OPENAI = (
    Line("POST", "/v1/chat/completions", ("serve", "train")),
    Line("POST", "/v1/completions", ("serve", "train")),
    Line("POST", "/v1/embeddings", ("serve", "train")),
    Line("GET", "/v1/models*", ("serve", "train")),
    Line("DELETE", "/v1/models*", ("train",)),
    Line(ANY, "/v1/files*", ("train",)),
    Line(ANY, "/v1/uploads*", ("train",)),
    Line(ANY, "/v1/fine_tuning/checkpoints*", ("admin",)),
    Line(ANY, "/v1/fine_tuning*", ("train",)),
    Line(ANY, "/v1/webhook_endpoints*", ("train",)),
    Line(ANY, "/v1/webhook_event_types*", ("train",)),
)
"""OpenAI's own paths. Both services take them, because one `base_url` serves a whole client."""
