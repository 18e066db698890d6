"""The secrets of the full stack: complete, kept, and usable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy.init import plan
from tests.support.user import ROOT, parse_exports


def make(folder: Path, **environment: str) -> None:
    command = [sys.executable, ROOT / "deploy" / "make_secrets.py", "--folder", folder]
    subprocess.run(command, check=True, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "secrets"
    make(folder)
    return folder


def test_every_user_that_is_declared_has_a_password(folder: Path) -> None:
    stack = plan.load(ROOT / "deploy" / "stack.yaml")
    passwords = json.loads((folder / "passwords.json").read_text())
    assert set(passwords["kafka"]) == set(stack.kafka.users)
    assert set(passwords["s3"]) == set(stack.s3.users)
    everything = [password for kind in passwords.values() for password in kind.values()]
    assert len(set(everything)) == len(everything) and min(map(len, everything)) >= 32


def test_every_file_that_compose_mounts_is_made(folder: Path) -> None:
    secrets = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["secrets"]
    for secret in secrets.values():
        assert (folder / secret["file"].rpartition("/")[2]).is_file()


def test_servers_have_certificates_of_the_private_ca_for_their_names(folder: Path) -> None:
    for server in ("kafka", "minio"):
        for name in (server, "localhost"):
            command = ["openssl", "verify", "-CAfile", "ca.pem", "-verify_hostname", name, f"{server}.crt"]
            subprocess.run(command, check=True, cwd=folder, capture_output=True)


def test_nobody_else_gets_in_and_containers_can_read(folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "kafka.pem").stat().st_mode & 0o777 == 0o644
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600


def test_what_is_there_is_kept_and_the_ports_of_the_client_follow(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    make(folder, KAFKA_PORT="19094")
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"client.env"}
    assert parse_exports(after["client.env"].decode())["TUNESTREAM_KAFKA"] == "127.0.0.1:19094"
