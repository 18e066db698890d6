"""The file `stack.json`: what the embedded stack keeps over a restart, and what commands need to reach it."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cli.terminal import CliError

DEFAULT_STATE = Path(".tunestream")
FILE = "stack.json"

# sun_path holds 107 bytes, and supervisord first binds "{path}.{pid}"
SOCKET_BYTES = 107 - len(".4194304")


class Stack(BaseModel):
    """The embedded stack of one state directory. Its credentials are kept, because without them its data cannot be
    read."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    state: Path
    directory: Path
    """The working directory of the services, so that they read the same `.env` as `up`."""
    ports: dict[str, int]
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    datasets_bucket: str = "datasets"
    system_bucket: str = "tunestream"
    api_key: str
    """Bearer token of inference and api; empty when the user switched keys off."""
    base: str
    """The id of the base model."""
    base_path: str | None = None
    without: tuple[str, ...] = ()
    """Services that run elsewhere, and `render` where there is none."""

    @property
    def s3_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def kafka(self) -> str:
        return f"127.0.0.1:{self.ports['kafka']}"

    @property
    def inference_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['inference']}"

    @property
    def render_url(self) -> str | None:
        """Of the render server; None: this stack has none."""
        port = None if "render" in self.without else self.ports.get("render")  # stacks of older versions have no port
        return f"http://127.0.0.1:{port}" if port else None

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['api']}"

    def metrics_port(self, service: str) -> int:
        """The private port of a service, where it answers /metrics; that of inference and api is not the one of their
        users."""
        return self.ports.get(f"{service}_metrics", self.ports[service])

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def sockets(self) -> Path:
        return socket_folder(self.state)

    @property
    def control(self) -> Path:
        return self.sockets / "supervisor.sock"


def load(state: Path) -> Stack | None:
    """The stack of a state directory, running or not; None: there never was one.

    Raises:
        CliError: the file is damaged.
    """
    path = state / FILE
    try:
        return Stack.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, problem["loc"])) or problem["msg"] for problem in error.errors())
        raise CliError(
            f"{path} is damaged ({wrong})",
            f"move {state} away to start afresh; the S3 credentials of its data were in that file",
        ) from None


def save(stack: Stack) -> None:
    """Write `stack.json`; creates the state directory."""
    stack.state.mkdir(parents=True, exist_ok=True)
    stack.logs.mkdir(exist_ok=True)
    ignore = stack.state / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")  # it holds credentials and gigabytes
    write_private(stack.state / FILE, stack.model_dump_json(indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read; it appears whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)


def new_secret() -> str:
    return secrets.token_hex(20)


def new_api_key() -> str:
    return f"sk-tunestream-{secrets.token_hex(16)}"


def socket_folder(state: Path) -> Path:
    """The folder for unix sockets: `state`, or a short private folder if the path of `state` is too long for a
    socket."""
    if len(os.fsencode(state / "supervisor.sock")) <= SOCKET_BYTES:
        return state
    digest = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"tunestream-{os.getuid()}-{digest}"


def make_socket_folder(folder: Path) -> None:
    """Create the folder for this user alone.

    Raises:
        CliError: it belongs to another user.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise CliError(f"{folder} belongs to another user", "choose a shorter --state directory")
