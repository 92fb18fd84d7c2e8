"""The bytes of an HTTP/1.1 request head, and what may not get into one. Knows nothing of connections.

Whatever could end a line, or say where the message ends, is refused: a value from a configuration file or a client
must not be able to write a second header, let alone a second request.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

RESERVED_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that belong to the connection: nobody else may set them."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINE_ENDERS = re.compile("[\r\n\0]")
_UNPRINTABLE = re.compile("[\0-\x20\x7f]")
_PATH_SAFE = "/%:=&?~+!$,;'@()*[]|"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an http(s) URL points to."""

    host: str
    port: int
    is_tls: bool
    authority: str
    path: str

    @classmethod
    def of(cls, url: str) -> "Origin":
        """Take a URL apart.

        Raises:
            ValueError: it is not an absolute http or https URL, or carries credentials. The URL is not quoted.
        """
        if _UNPRINTABLE.search(url):
            raise ValueError("the URL contains spaces or control characters")
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").encode("idna").decode()
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 80)
        except ValueError:  # what was wrong may be a part of the URL that is secret
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

    def head(self, method: str, path: str | None, headers: Iterable[tuple[str, str]]) -> bytes:
        """The request line and the header lines, without content-length and the blank line.

        Raises:
            ValueError: something cannot be written safely. Header values are not quoted.
        """
        target = self.path if path is None else quote(path, safe=_PATH_SAFE)
        if not _TOKEN.fullmatch(method) or not target.startswith("/") or _UNPRINTABLE.search(path or ""):
            raise ValueError("the method or the path is not valid in a request")
        lines = [f"{method} {target} HTTP/1.1\r\nhost: {self.authority}\r\naccept-encoding: identity\r\n".encode()]
        for name, value in headers:
            if name.lower() in RESERVED_HEADERS:
                raise ValueError(f"the header {name!r} is set by the connection itself")
            lines.append(header_line(name, value))
        return b"".join(lines)


def header_line(name: str, value: str) -> bytes:
    """One header line, with its line end.

    Raises:
        ValueError: the name is no token, or the value contains a line end, NUL or a character outside Latin-1.
    """
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a header name")
    if _LINE_ENDERS.search(value):
        raise ValueError(f"the value of the header {name!r} contains a line end or NUL")
    try:
        return f"{name}: {value}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"the value of the header {name!r} contains a character outside Latin-1") from None
