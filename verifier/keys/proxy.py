"""Which proxy a URL is fetched through, by the environment variables that Go's httpproxy package reads, and ALL_PROXY.

httpx reads them differently: an IPv6 address in NO_PROXY makes every request fail, and address ranges are ignored.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxy(NamedTuple):
    """A proxy and where it comes from."""

    url: str
    """It may hold a password."""
    variable: str

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"the proxy {parts.hostname}{f':{parts.port}' if parts.port else ''} of {self.variable}"


def proxy_for(url: str, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy for ``url``, None where it is fetched directly. Raises ValueError for a proxy that cannot be used."""
    parts = urlsplit(url)
    host = _ascii((parts.hostname or "").lower())
    if parts.scheme != "https" or host == "localhost":  # http is for loopback, which a proxy cannot reach
        return None
    address = _address(host)
    if address is not None and address.is_loopback:
        return None
    variable = _first(environment, "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    if variable is None:
        return None
    excluded = _first(environment, "NO_PROXY", "no_proxy")
    entries = environment[excluded].lower().split(",") if excluded is not None else []
    if any(_covers(entry.strip(), host, address, parts.port or 443) for entry in entries):
        return None
    return _parse(environment[variable].strip(), variable)


def _parse(value: str, variable: str) -> Proxy:
    url = value if "://" in value else f"http://{value}"
    scheme = url.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        raise ValueError(f"{variable}: a proxy must be http or https, not {scheme[:20]!a}")
    with contextlib.suppress(ValueError):  # of a port or an address
        parts = urlsplit(url)
        if parts.hostname and parts.port != 0:
            return Proxy(url, variable)
    raise ValueError(f"{variable}: is not the URL of a proxy")


def _covers(entry: str, host: str, address: Address | None, port: int) -> bool:
    """Whether one entry of NO_PROXY covers a host: a name and its subdomains, an address, or a range of addresses."""
    if entry == "*":
        return True
    if "/" in entry:
        return address is not None and _is_in_range(address, entry)
    name, wanted_port = _split_port(entry)
    if not name or wanted_port not in ("", str(port)):
        return False
    entry_address = _address(name)
    if entry_address is not None:
        return entry_address == address
    name = _ascii(name[1:] if name.startswith("*.") else name)
    return host.endswith(name) if name.startswith(".") else f".{host}".endswith(f".{name}")


def _is_in_range(address: Address, entry: str) -> bool:
    try:
        return entry.partition("/")[2].isdecimal() and address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _split_port(entry: str) -> tuple[str, str]:
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        return name, rest.removeprefix(":")
    name, colon, port = entry.rpartition(":")
    return (name, port) if colon and ":" not in name else (entry, "")


def _address(host: str) -> Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _ascii(name: str) -> str:
    """A name as DNS knows it: Unicode labels are encoded."""
    try:
        return name if name.isascii() else ".".join(label.encode("idna").decode() for label in name.split("."))
    except UnicodeError:
        return name


def _first(environment: Mapping[str, str], *variables: str) -> str | None:
    """The first of ``variables`` that is set and not empty."""
    return next((name for name in variables if environment.get(name, "").strip()), None)
