"""The variables that `tunestream env` prints, for the OpenAI, S3 and Kafka clients of other programs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from cli.target import Target
from shared.settings import BusSettings


def exports(target: Target, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a target. `environ` is the environment: if it has a Kafka login for the same broker, that is
    kept, because it may have fewer rights than our own."""
    store = target.store
    kafka = _kafka(target.bus)
    if environ.get("TUNESTREAM_KAFKA") == target.bus.bootstrap and environ.get("KAFKA_USERNAME"):
        kafka |= {name: environ[name] for name in kafka if name in environ}
    variables = {
        "OPENAI_BASE_URL": f"{target.inference_url}/v1",
        "OPENAI_API_KEY": target.api_key or "none",  # the client refuses to start without one
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key.get_secret_value(),
        "AWS_DEFAULT_REGION": store.region,
        "AWS_CA_BUNDLE": str(store.ca_file) if store.ca_file else None,
        **kafka,
        "TUNESTREAM_API_URL": target.api_url,
        "TUNESTREAM_BASE": target.base,
    }
    return {name: value for name, value in variables.items() if value is not None}


def _kafka(bus: BusSettings) -> dict[str, str | None]:
    """The protocol is included even if it is the default: the shell may still have the variables of another stack."""
    password = bus.sasl_password.get_secret_value() if bus.sasl_password else None
    return {
        "TUNESTREAM_KAFKA": bus.bootstrap,
        "KAFKA_SECURITY_PROTOCOL": bus.security_protocol,
        "KAFKA_SASL_MECHANISM": bus.sasl_mechanism if bus.uses_sasl else None,
        "KAFKA_USERNAME": bus.sasl_username,
        "KAFKA_PASSWORD": password,
        "KAFKA_CA_FILE": str(bus.ca_file) if bus.ca_file else None,
    }


def shell(variables: Mapping[str, str]) -> str:
    """Lines for `eval "$(tunestream env)"`."""
    return "".join(f"export {name}={_quoted(value)}\n" for name, value in variables.items())


def _quoted(value: str) -> str:
    quoted = shlex.quote(value)
    return quoted if quoted.startswith("'") else f"'{quoted}'"
