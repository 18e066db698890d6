"""Where webhooks may lead. A webhook makes this service send a request to an address that a user chose, so it must not
reach what only this machine may ask: the metadata service of a cloud, which gives away credentials."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

LONGEST_URL = 2048

_NEVER = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "169.254.0.0/16",  # link-local: the metadata of AWS, Azure, Google, DigitalOcean, OpenStack
            "100.100.100.200/32",  # the metadata of Alibaba
            "168.63.129.16/32",  # Azure's host, from within a machine of it
            "192.0.0.0/24",  # the metadata of Oracle, among others
            "224.0.0.0/3",  # multicast, reserved, broadcast
            "::/128",
            "fd00:ec2::/32",  # the metadata of AWS
            "fd20:ce::/32",  # the metadata of Google
            "fe80::/10",
            "fec0::/10",
            "ff00::/8",
        ),
    )
)
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("::/96"))
"""Networks whose last four bytes are an IPv4 address."""


class Target(NamedTuple):
    """The parts of the URL of an endpoint. `path` with its query; `authority` as the header `host` has it."""

    scheme: str
    host: str
    port: int
    path: str
    authority: str


class BadTarget(ValueError):
    """An endpoint cannot have this URL; the text says why, and what to do."""


def target_of(url: str) -> Target:
    """Take a URL apart.

    Raises:
        BadTarget: no webhook can be sent there.
    """
    if len(url) > LONGEST_URL:
        raise BadTarget(f"it is longer than {LONGEST_URL:,} characters; shorten it")
    if not re.fullmatch(r"[!-\[\]-~]+", url):
        raise BadTarget("it has spaces, backslashes or letters outside of ASCII; write them as %XX, hosts in punycode")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BadTarget("it is no URL; give one such as https://example.com/hook") from None
    if parts.scheme not in ("http", "https") or not host:
        raise BadTarget("it does not begin with http:// or https:// and a host; give one such as https://host/hook")
    if "@" in parts.netloc:
        raise BadTarget("it holds a user name or password; leave them out, the signature proves who sends")
    if "#" in url:
        raise BadTarget("it has a part behind #, which is never sent; leave it out")
    if port == 0 or "%" in host:
        raise BadTarget("its host or port cannot be reached; give another one")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path, parts.netloc)


def is_refused(address: str, *, private: bool) -> bool:
    """Whether nothing may be sent to an IP address. `private`: whether loopback and private networks are allowed.
    An IPv6 address that stands for an IPv4 address is judged as that."""
    found = ip_address(address.partition("%")[0])
    return any(_refused(each, private) for each in (found, *_embedded(found)))


def _refused(address: IPv4Address | IPv6Address, private: bool) -> bool:
    if isinstance(address, IPv6Address) and address == IPv6Address("::1"):
        return not private
    never = any(address in network for network in _NEVER if network.version == address.version)
    return never or (not private and not address.is_global and not _embedded(address))


def _embedded(address: IPv4Address | IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, IPv4Address) or address in (IPv6Address("::"), IPv6Address("::1")):
        return ()
    last = IPv4Address(int(address) & 0xFFFF_FFFF)
    if any(address in network for network in _NAT64):
        return (last,)
    if address.teredo:
        return address.teredo
    single = address.ipv4_mapped or address.sixtofour
    return (single,) if single else ()
