"""Kafka's part of the init step. It uses Confluent's client, because aiokafka manages neither users nor access
rules."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from deploy.init import plan

log = logging.getLogger(__name__)

TIMEOUT = 30.0
SCRAM_ITERATIONS = 8192
HOUR_MILLIS = 3600 * 1000


class KafkaAdmin:
    """A connection as the administrator. Methods raise `KafkaException` when the broker does not answer or refuses
    it."""

    def __init__(self, bootstrap: str, user: str, password: str, ca_file: Path) -> None:
        self._client = AdminClient(
            {
                "bootstrap.servers": bootstrap,
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "PLAIN",
                "sasl.username": user,
                "sasl.password": password,
                "ssl.ca.location": str(ca_file),
                # the exception holds what the client would print
                "log_level": 0,
            }
        )

    def reachable(self) -> bool:
        try:
            self._client.list_topics(timeout=5)
        except KafkaException:
            return False
        return True

    def topics(self, wanted: Mapping[str, plan.Topic]) -> None:
        """Create missing topics, add partitions to topics that have too few, and set the retention of all."""
        existing = self._client.list_topics(timeout=TIMEOUT).topics
        new = [
            NewTopic(name, num_partitions=topic.partitions, replication_factor=-1)
            for name, topic in wanted.items()
            if name not in existing
        ]
        _wait(self._client.create_topics(new, request_timeout=TIMEOUT) if new else {})
        # only more: Kafka cannot remove partitions
        more = [
            NewPartitions(name, topic.partitions)
            for name, topic in wanted.items()
            if name in existing and len(existing[name].partitions) < topic.partitions
        ]
        _wait(self._client.create_partitions(more, request_timeout=TIMEOUT) if more else {})
        _wait(self._client.incremental_alter_configs([_configuration(name, topic) for name, topic in wanted.items()]))
        log.info("%d topics", len(wanted))

    def users(self, passwords: Mapping[str, str]) -> None:
        """Create or renew the SCRAM credentials of every user."""
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS)
        _wait(
            self._client.alter_user_scram_credentials(
                [
                    # the salt is derived, so that a password gives the same credential on every run
                    UserScramCredentialUpsertion(user, credential, password.encode(), _salt(user, password))
                    for user, password in passwords.items()
                ]
            )
        )
        log.info("%d users", len(passwords))

    def rules(self, wanted: set[plan.Rule]) -> None:
        """Create the access rules that are missing, and remove those that are not declared (any more)."""
        anything = AclBindingFilter(
            ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
        )
        declared = {_key(binding): binding for binding in map(_binding, wanted)}
        existing = {_key(binding): binding for binding in self._client.describe_acls(anything).result(TIMEOUT)}
        missing = [binding for key, binding in declared.items() if key not in existing]
        _wait(self._client.create_acls(missing) if missing else {})
        surplus = [_filter(binding) for key, binding in existing.items() if key not in declared]
        _wait(self._client.delete_acls(surplus) if surplus else {})
        log.info("%d access rules", len(declared))


def _configuration(name: str, topic: plan.Topic) -> ConfigResource:
    retention = topic.retention_days * plan.DAY_MILLIS
    values = {
        "retention.ms": retention,
        # Kafka deletes whole segments, so a quiet topic whose first segment never ends would keep everything
        "segment.ms": min(max(retention // 7, HOUR_MILLIS), plan.DAY_MILLIS),
    }
    if topic.max_message_bytes is not None:
        values["max.message.bytes"] = topic.max_message_bytes
    entries = [
        ConfigEntry(key, str(value), incremental_operation=AlterConfigOpType.SET) for key, value in values.items()
    ]
    return ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)


def _salt(user: str, password: str) -> bytes:
    return hashlib.sha256(f"{user}:{password}".encode()).digest()


def _binding(rule: plan.Rule) -> AclBinding:
    return AclBinding(
        ResourceType.TOPIC if rule.resource == "topic" else ResourceType.GROUP,
        rule.name,
        ResourcePatternType.PREFIXED if rule.prefix else ResourcePatternType.LITERAL,
        f"User:{rule.user}",
        "*",
        AclOperation[rule.operation],
        AclPermissionType.ALLOW,
    )


def _key(binding: AclBinding) -> tuple[Any, ...]:
    return (binding.restype, binding.name, binding.resource_pattern_type, binding.principal, binding.operation)


def _filter(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )


def _wait(futures: Mapping[Any, Any]) -> None:
    for future in futures.values():
        future.result(TIMEOUT)
