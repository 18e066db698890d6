"""MinIO's part of the init step: buckets, one user and one policy per service, bucket notifications."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from minio import Minio, MinioAdmin
from minio.credentials import StaticProvider
from minio.error import MinioAdminException, S3Error
from minio.notificationconfig import NotificationConfig, QueueConfig

from deploy.init import plan

log = logging.getLogger(__name__)

ALREADY_ATTACHED = "PolicyChangeAlreadyApplied"


class Store:
    """A connection as the root user."""

    def __init__(self, endpoint: str, user: str, password: str, ca_file: Path, region: str = "us-east-1") -> None:
        address = urlsplit(endpoint)
        pool = urllib3.PoolManager(ca_certs=str(ca_file), timeout=10.0, retries=urllib3.Retry(total=2))
        secure = address.scheme == "https"
        self._client = Minio(
            address.netloc, access_key=user, secret_key=password, secure=secure, region=region, http_client=pool
        )
        self._admin = MinioAdmin(
            endpoint=address.netloc,
            credentials=StaticProvider(user, password),
            region=region,
            secure=secure,
            http_client=pool,
        )

    def reachable(self) -> bool:
        try:
            self._client.list_buckets()
        except (urllib3.exceptions.HTTPError, OSError, S3Error):
            return False
        return True

    def buckets(self, names: tuple[str, ...]) -> None:
        for name in names:
            if not self._client.bucket_exists(name):
                self._client.make_bucket(name)
        log.info("%d buckets", len(names))

    def users(self, users: Mapping[str, plan.S3User], passwords: Mapping[str, str]) -> None:
        for name, user in users.items():
            self._admin.policy_add(name, policy=plan.policy(user))
            self._admin.user_add(name, passwords[name])
            try:
                self._admin.attach_policy([name], user=name)
            except MinioAdminException as error:
                if ALREADY_ATTACHED not in str(error):
                    raise
        log.info("%d users of the store", len(users))

    def surplus_users(self, users: Mapping[str, plan.S3User]) -> None:
        """Remove users that are no longer declared."""
        surplus = set(json.loads(self._admin.user_list())) - set(users)
        for name in surplus:
            self._admin.user_remove(name)

    def notifications(self, wanted: tuple[plan.Notification, ...]) -> None:
        for notification in wanted:
            queue = QueueConfig(queue=notification.arn, events=list(notification.events))
            self._client.set_bucket_notification(notification.bucket, NotificationConfig(queue_config_list=[queue]))
        log.info("%d notifications", len(wanted))
