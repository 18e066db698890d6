"""Reads `stack.yaml`, and derives the topics, access rules and policies that have to exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import ConfigError
from shared.kafka.envelope import DLQ_SUFFIX

DAY_MILLIS = 24 * 3600 * 1000

Policy = dict[str, Any]
S3Pattern = Annotated[str, Field(pattern=r"^[^/]+/.+$", description="bucket/pattern of keys")]


class Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Topic(Declared):
    partitions: int
    retention_days: int
    max_message_bytes: int | None = None
    dead_letters: bool = True


class KafkaUser(Declared):
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    dead_letters: bool = True
    """Whether the user may write the dead letters of the topics that it reads."""


class Kafka(Declared):
    topics: dict[str, Topic]
    dead_letters: Topic
    users: dict[str, KafkaUser]


class S3User(Declared):
    list: tuple[S3Pattern, ...] = ()
    read: tuple[S3Pattern, ...] = ()
    write: tuple[S3Pattern, ...] = ()
    delete: tuple[S3Pattern, ...] = ()
    abort: tuple[S3Pattern, ...] = ()
    """The objects whose uploads in parts the user may abort."""
    uploads: tuple[str, ...] = ()
    """The buckets in which the user may list and abort uploads in parts that nobody has completed."""


class Notification(Declared):
    bucket: str
    arn: str
    events: tuple[str, ...]


class S3(Declared):
    buckets: tuple[str, ...]
    notifications: tuple[Notification, ...]
    users: dict[str, S3User]


class Stack(Declared):
    kafka: Kafka
    s3: S3


def load(path: Path) -> Stack:
    """Read and check the declaration.

    Raises:
        ConfigError: the file is not there, not YAML, or names a field that is wrong.
    """
    try:
        return Stack.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from None
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise ConfigError(f"{path}: {'; '.join(problems)}") from None


def without_password(stack: Stack, passwords: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The declared users without a password, as `kafka.{user}` or `s3.{user}`."""
    wanted = {"kafka": set(stack.kafka.users), "s3": set(stack.s3.users)}
    return [f"{kind}.{user}" for kind, users in wanted.items() for user in sorted(users - set(passwords[kind]))]


# --- Kafka ------------------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """One right of one user. With `prefix` it holds for every resource whose name starts with `name`."""

    user: str
    resource: Literal["topic", "group"]
    name: str
    prefix: bool
    operation: Literal["READ", "WRITE"]


def topics(kafka: Kafka) -> dict[str, Topic]:
    """Every topic by name, dead-letter topics included."""
    return kafka.topics | {name + DLQ_SUFFIX: kafka.dead_letters for name in _with_dead_letters(kafka)}


def rules(kafka: Kafka) -> set[Rule]:
    """All rights of all users. READ and WRITE each include the right to see that the topic exists."""
    found: set[Rule] = set()
    for user, allowed in kafka.users.items():
        readable = set(allowed.read) if allowed.dead_letters else set()
        letters = [name + DLQ_SUFFIX for name in readable & _with_dead_letters(kafka)]
        found |= set(_rules(user, "topic", allowed.read, "READ"))
        found |= set(_rules(user, "topic", (*allowed.write, *letters), "WRITE"))
        found |= set(_rules(user, "group", allowed.groups, "READ"))
    return found


def _with_dead_letters(kafka: Kafka) -> set[str]:
    return {name for name, topic in kafka.topics.items() if topic.dead_letters}


def _rules(
    user: str, resource: Literal["topic", "group"], names: Iterable[str], operation: Literal["READ", "WRITE"]
) -> Iterable[Rule]:
    for name in names:
        # `*` alone is Kafka's own name for all names, not a prefix
        prefix = name.endswith("*") and name != "*"
        yield Rule(user, resource, name.removesuffix("*") if prefix else name, prefix, operation)


# --- S3 ---------------------------------------------------------------------------------------------------------


_OBJECTS = {
    "read": "s3:GetObject",
    "write": "s3:PutObject",
    "delete": "s3:DeleteObject",
    "abort": "s3:AbortMultipartUpload",
}


def policy(user: S3User) -> Policy:
    """The S3 policy of a user: it may list below some prefixes, and read, write and delete some objects."""
    statements: list[Policy] = []
    for bucket, pattern in (name.split("/", 1) for name in user.list):
        listing: Policy = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [f"arn:aws:s3:::{bucket}"]}
        if pattern != "*":  # a listing of the whole bucket has no prefix that a condition could match
            listing["Condition"] = {"StringLike": {"s3:prefix": [pattern]}}
        statements.append(listing)
    for verb, action in _OBJECTS.items():
        if names := getattr(user, verb):
            resources = [f"arn:aws:s3:::{name}" for name in names]
            statements.append({"Effect": "Allow", "Action": [action], "Resource": resources})
    for bucket in user.uploads:
        of_bucket, of_objects = f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"
        statements += [
            {"Effect": "Allow", "Action": ["s3:ListBucketMultipartUploads"], "Resource": [of_bucket]},
            {"Effect": "Allow", "Action": ["s3:AbortMultipartUpload"], "Resource": [of_objects]},
        ]
    return {"Version": "2012-10-17", "Statement": statements}
