"""Make the secrets of the full stack: `python3 deploy/make_secrets.py` writes `deploy/secrets/`.

Needs only Python and openssl, so that it can run before anything is installed. Files that exist are kept, so you or
another tool may put files of the same names there first.

    passwords.json       all passwords, for the init step
    {user}.kafka, .s3    the password of one service
    api_keys, api_key    bearer tokens of the two HTTP interfaces, and the evaluator's
    ca.pem, ca.key       a private certificate authority
    kafka.pem            Kafka's key and certificate
    kafka.properties     the users that log in with PLAIN
    minio.crt, .key      MinIO's certificate and key
    minio.env            MinIO's administrator and its Kafka user
    client.env           variables for a shell on this machine
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent / "secrets"
# not from shared/events: this file runs with nothing installed. A test holds the users to deploy/stack.yaml
SERVICES = ("ingest", "validate", "trainer", "evaluator", "inference", "api")
KAFKA_USERS = (*SERVICES, "minio", "stranger", "operator")
S3_USERS = (*SERVICES, "render", "janitor", "stranger")
CA_DAYS, CERTIFICATE_DAYS = 3650, 825


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    # the folder is closed to other users, because the files must be readable for the users inside the containers
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    passwords = _passwords(folder)
    _certificates(folder)
    for name, text in _files(folder, passwords).items():
        _write_once(folder / name, text)
    # written every time, because it depends on the ports and on where the folder is
    key = (folder / "api_key").read_text()
    client = _client_env(folder.resolve() / "ca.pem", key, passwords["kafka"], passwords["s3"]["stranger"])
    (folder / "client.env").write_text(client)
    for path in folder.iterdir():
        path.chmod(0o644)
    (folder / "ca.key").chmod(0o600)


def _passwords(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / "passwords.json"
    found: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.exists() else {}
    wanted = {"admins": ("kafka", "s3", "grafana"), "kafka": KAFKA_USERS, "s3": S3_USERS, "api": ("key",)}
    for kind, names in wanted.items():
        for name in names:
            found.setdefault(kind, {}).setdefault(name, secrets.token_hex(24))
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _files(folder: Path, passwords: dict[str, dict[str, str]]) -> dict[str, str]:
    admins, kafka, s3 = passwords["admins"], passwords["kafka"], passwords["s3"]
    key = f"sk-tunestream-{passwords['api']['key']}"
    files = {f"{user}.kafka": kafka[user] for user in SERVICES} | {
        f"{user}.s3": s3[user] for user in (*SERVICES, "render", "janitor")
    }
    files |= {"api_keys": json.dumps([key]), "api_key": key, "grafana_password": admins["grafana"]}
    files["kafka.properties"] = _plain("admin", "admin", admins["kafka"]) + _plain(
        "external", "stranger", kafka["stranger"]
    )
    files["minio.env"] = (
        f"export MINIO_ROOT_USER=admin\nexport MINIO_ROOT_PASSWORD={admins['s3']}\n"
        f"export MINIO_NOTIFY_KAFKA_SASL_PASSWORD_bus={kafka['minio']}\n"
    )
    return files


def _plain(listener: str, user: str, password: str) -> str:
    """The line of `kafka.properties` that lets `user` log in at a listener with PLAIN."""
    login = "org.apache.kafka.common.security.plain.PlainLoginModule"
    return f'listener.name.{listener}.plain.sasl.jaas.config={login} required user_{user}="{password}";\n'


def _client_env(ca: Path, key: str, kafka: dict[str, str], s3_password: str) -> str:
    """Variables for our command, for any OpenAI or S3 client, and for the examples that speak Kafka."""
    # the ports of docker-compose.yml, by the same variables
    api, inference, bus, store, jaeger = (
        f"127.0.0.1:{os.environ.get(f'{name}_PORT', default)}"
        for name, default in (("API", 8080), ("INFERENCE", 8000), ("KAFKA", 9094), ("S3", 9000), ("JAEGER", 16686))
    )
    variables = {
        "TUNESTREAM_API__URL": f"http://{api}",
        "TUNESTREAM_API_URL": f"http://{api}",
        "TUNESTREAM_INFERENCE__URL": f"http://{inference}",
        "TUNESTREAM_INFERENCE__API_KEYS": json.dumps([key]),
        "TUNESTREAM_STORE__ENDPOINT": f"https://{store}",
        "TUNESTREAM_STORE__ACCESS_KEY": "stranger",
        "TUNESTREAM_STORE__SECRET_KEY": s3_password,
        "TUNESTREAM_STORE__CA_FILE": ca,
        "TUNESTREAM_BUS__BOOTSTRAP": bus,
        "TUNESTREAM_BUS__SECURITY_PROTOCOL": "SASL_SSL",
        "TUNESTREAM_BUS__SASL_USERNAME": "operator",
        "TUNESTREAM_BUS__SASL_PASSWORD": kafka["operator"],
        "TUNESTREAM_BUS__CA_FILE": ca,
        "TUNESTREAM_TELEMETRY__JAEGER_URL": f"http://{jaeger}",
        "OPENAI_BASE_URL": f"http://{inference}/v1",
        "OPENAI_API_KEY": key,
        "AWS_ENDPOINT_URL": f"https://{store}",
        "AWS_ACCESS_KEY_ID": "stranger",
        "AWS_SECRET_ACCESS_KEY": s3_password,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CA_BUNDLE": ca,
        "TUNESTREAM_KAFKA": bus,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_USERNAME": "stranger",
        "KAFKA_PASSWORD": kafka["stranger"],
        "KAFKA_CA_FILE": ca,
    }
    return "".join(f"export {name}='{value}'\n" for name, value in variables.items())


def _certificates(folder: Path) -> None:
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    if not ca.exists():
        _openssl(
            *("-keyout", ca_key, "-out", ca, "-days", CA_DAYS, "-subj", "/CN=Tunestream private CA"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
    for server in ("kafka", "minio"):
        certificate, key = folder / f"{server}.crt", folder / f"{server}.key"
        if not certificate.exists():
            _openssl(
                *("-CA", ca, "-CAkey", ca_key, "-keyout", key, "-out", certificate, "-days", CERTIFICATE_DAYS),
                *("-subj", f"/CN={server}", "-addext", f"subjectAltName=DNS:{server},DNS:localhost,IP:127.0.0.1"),
                *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth,clientAuth"),
            )
    _write_once(folder / "kafka.pem", (folder / "kafka.key").read_text() + (folder / "kafka.crt").read_text())


def _openssl(*arguments: object) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-sha256", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def _write_once(path: Path, text: str) -> None:
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)


if __name__ == "__main__":
    main()
