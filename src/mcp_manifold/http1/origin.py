"""The origin of a URL, the heads of requests to it, and which hosts are this machine. Pure; knows no connection."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from mcp_manifold.http1.head import RESERVED_HEADERS, header_line, is_token

_UNPRINTABLE: Final = re.compile("[\0-\x20\x7f]")
_PATH_SAFE: Final = "/%:=&?~+!$,;'@()*[]|"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """The host, port and scheme of an http(s) URL, with its path and query."""

    host: str
    port: int
    is_tls: bool
    authority: str
    """The value of the `Host` header."""
    path: str

    @classmethod
    def of(cls, url: str) -> "Origin":
        """Parse a URL.

        Raises:
            ValueError: it is not an absolute http or https URL, or carries credentials. The URL is not quoted.
        """
        if _UNPRINTABLE.search(url):
            raise ValueError("the URL contains spaces or control characters")
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").encode("idna").decode()
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 80)
        except ValueError:  # its text may quote a secret part of the URL
            raise ValueError("the URL is not valid") from None
        if parts.scheme not in _DEFAULT_PORTS or not host:
            raise ValueError("the URL is not an absolute http or https URL")
        if "@" in parts.netloc:
            raise ValueError("the URL contains credentials; send them in a header")
        authority = f"[{host}]" if ":" in host else host
        if port != _DEFAULT_PORTS[parts.scheme]:
            authority += f":{port}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(host, port, parts.scheme == "https", authority, quote(target, safe=_PATH_SAFE))

    def is_same(self, other: "Origin") -> bool:
        """Whether another URL has the same scheme, host and port."""
        return (self.host, self.port, self.is_tls) == (other.host, other.port, other.is_tls)

    def head(self, method: str, path: str | None, headers: Iterable[tuple[str, str]]) -> bytes:
        """The request line and the header lines, without `content-length` and the blank line.

        Args:
            path: path and query; None for those of the URL.

        Raises:
            ValueError: something cannot be written safely, or belongs to the connection. Header values are not quoted.
        """
        target = self.path if path is None else quote(path, safe=_PATH_SAFE)
        if not is_token(method.encode()) or not target.startswith("/") or _UNPRINTABLE.search(path or ""):
            raise ValueError("the method or the path is not valid in a request")
        first = f"{method} {target} HTTP/1.1\r\nhost: {self.authority}\r\naccept-encoding: identity\r\n".encode()
        return first + b"".join([header_line(name, value, reserved=RESERVED_HEADERS) for name, value in headers])


def addresses(hosts: str) -> tuple[str, ...]:
    """The host names and addresses, without brackets, in a text with commas between them."""
    return tuple(part.strip().removeprefix("[").removesuffix("]") for part in hosts.split(","))


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
