"""The last lines that a child wrote to stderr, logged at a bounded rate. Knows no pipe and no process."""

import logging
import re
from collections import deque
from collections.abc import Sequence
from typing import Final

from mcp_manifold.wire.lines import LineCutter

logger = logging.getLogger(__name__)

TAIL_LINES: Final = 20
LINE_LIMIT: Final = 4096
LOG_RATE: Final = 50
"""Lines of stderr logged in a second; the rest is counted only."""
_READ: Final = 16384
"""Bytes of one piece that are decoded: the end of a longer one."""
_READ_IN_FLOOD: Final = 4096
"""The same once the rate is exceeded."""
_SHOWN: Final = 300
"""Characters of one line in an error."""
_CHATTER: Final = re.compile(
    r"(npm (ERR!|error|notice|warn)( code \w+| network| \d{3})?\W*$)|A complete log of this run|npm (notice|warn) "
    r"|Note that you can also install|tarball, folder, http url|^Node\.js v|^at .*[\w)]$|^[\^~(){}\[\],;. ]*$"
    r"|--trace-warnings|In most cases you are behind|If you are behind a proxy|config is set properly"
    r"|for more information\W*$",
)
"""Lines that programs write after the line that tells why they end."""
_REASON: Final = re.compile(
    r"error\b|exception\b|fatal|panic|fail|cannot|could not|unable|not found|no such|denied|refused|missing|required"
    r"|invalid|certificate",
    re.IGNORECASE,
)
_NPM: Final = re.compile(r"^npm (ERR!|error)( code)?")
"""npm begins every line with "error"."""
_HINTS: Final = (
    (
        r"certificate|CERT_|UnknownIssuer|\bSSL",
        "if a proxy signs certificates, name its CA file in SSL_CERT_FILE, REQUESTS_CA_BUNDLE or NODE_EXTRA_CA_CERTS",
    ),
    (
        r"\b(ENOTFOUND|EAI_AGAIN|ETIMEDOUT|getaddrinfo|name resolution|dns error|network is unreachable|proxy error)",
        "if the network needs a proxy, set HTTPS_PROXY",
    ),
    (
        r"not in this registry|404 Not Found - GET|No matching distribution|not found in the package registry",
        "if the package is on an index of your own, set npm_config_registry, UV_INDEX or PIP_INDEX_URL",
    ),
)
"""What is missing from the environment when a package runner fails so."""
_WHERE: Final = ' in its "env", or where mcp-manifold is started'


class StderrTail:
    """The last lines that a server's processes wrote to stderr, since its latest process for all clients began."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._lines = LineCutter(LINE_LIMIT)
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._known: frozenset[str] = frozenset()
        """Lines of the process before, which are not logged again."""
        self._second = 0
        self._logged = 0
        self._suppressed = 0
        self._exit = ""

    def __repr__(self) -> str:
        return f"<StderrTail {self._backend} lines={len(self._tail)}>"

    @property
    def exit(self) -> str:
        """How the server last ended on its own, as a sentence; empty if it never did."""
        return self._exit

    def exited(self, how: str) -> None:
        """Record that the server ended on its own."""
        self._exit = how

    def began(self) -> None:
        """Begin a new process: forget the lines of the previous one."""
        self._known = frozenset(self._tail)
        self._tail.clear()
        self._lines = LineCutter(LINE_LIMIT)

    def fed(self, data: bytes, now: float) -> None:
        """Receive what the server wrote. In a flood, decode only the end of each piece."""
        is_flood = self._second == int(now) and self._logged >= LOG_RATE
        most = _READ_IN_FLOOD if is_flood else _READ
        if len(data) > most:
            self._suppressed += data.count(b"\n", 0, len(data) - most)
            data = data[-most:]
        self._take(self._lines.feed(data), now)
        self._lines.take_oversized()

    def ended(self, now: float) -> None:
        """Finish the last line, because the server has closed its stderr."""
        self._take(self._lines.finish(), now)

    def _take(self, lines: Sequence[bytes], now: float) -> None:
        for line in lines:
            text = printable(line.decode("utf-8", "replace"))
            if text:
                self._tail.append(text)
                self._log(text, int(now))

    def summary(self) -> str:
        """The most informative lines for an error message, with a hint at their meaning; empty if there is none."""
        found = [line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..." for line in naming_reason(tuple(self._tail))]
        if not found:
            return ""
        text = " | ".join(found)
        hint = next((f"; {hint}{_WHERE}" for signs, hint in _HINTS if re.search(signs, text, re.IGNORECASE)), "")
        return f"last line{'s' * (len(found) > 1)} of stderr: {text}{hint}"

    def lines(self) -> tuple[str, ...]:
        """The last lines, oldest first, without uninformative ones."""
        return tuple(line for line in self._tail if not _CHATTER.search(line)) or tuple(self._tail)

    def _log(self, text: str, second: int) -> None:
        if second != self._second:
            if self._suppressed:
                logger.info("stderr lines not shown", extra={"backend": self._backend, "lines": self._suppressed})
            self._second, self._logged, self._suppressed = second, 0, 0
        if text in self._known:
            logger.debug("stderr: %s", text, extra={"backend": self._backend})
        elif self._logged < LOG_RATE:
            self._logged += 1
            logger.info("stderr: %s", text, extra={"backend": self._backend})
        else:
            self._suppressed += 1


def naming_reason(lines: Sequence[str]) -> list[str]:
    """The last line that names a reason, and the last line after it. If none names one, the last line of all."""
    found = [line for line in lines if not _CHATTER.search(line)] or list(lines)
    at = max((place for place, line in enumerate(found) if _REASON.search(_NPM.sub("", line))), default=len(found) - 1)
    return list(dict.fromkeys((*found[at : at + 1], *found[-1:])))


def printable(text: str) -> str:
    """`text` without control characters: a server's output must not drive the terminal that shows our log (S44)."""
    return "".join(char if char.isprintable() else " " for char in text).strip()
