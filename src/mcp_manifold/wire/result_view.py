"""A view of a large result: its members and text, parsed once and shared by every step that inspects the result.

Parsing a large result is expensive, so its members are indexed once. Small results are parsed again where needed.
"""

from typing import Final

from mcp_manifold.wire.envelope import LARGE
from mcp_manifold.wire.payload import Payload, loose_members

_KIND: Final = "resultType"
_URI: Final = b'"uri"'
_END: Final = 1024
"""Bytes at either end of a text that are searched; the fast case is one long string between them."""
_MAX_QUOTES: Final = 400
"""Quotation marks that are checked one by one before the search gives up."""


class ResultView:
    """The members and the text of one result. They are found on first use, unless the parser supplied them."""

    __slots__ = ("_is_plain", "_members", "_text", "result")

    def __init__(self, result: Payload, members: dict[str, Payload] | None = None, text: bytes | None = None) -> None:
        self.result = result
        self._members = members
        self._text = text
        self._is_plain: bool | None = None

    def __repr__(self) -> str:
        return f"<ResultView at {len(self.result)} bytes>"

    @property
    def members(self) -> dict[str, Payload]:
        """The members; do not modify.

        Raises:
            ValueError: the result is not a readable object.
            RecursionError: the result is nested too deeply.
        """
        if self._members is None:
            self._members = loose_members(self.result)
        return self._members

    @property
    def text(self) -> bytes:
        """The result as text, or the message that contains it."""
        if self._text is None:
            self._text = bytes(self.result)
        return self._text

    @property
    def is_known(self) -> bool:
        """Whether the members are known already, so that `members` need not parse."""
        return self._members is not None

    @property
    def is_plain(self) -> bool:
        """Whether the text certainly has no member `uri`; False if undecided. Takes a limited time."""
        if self._is_plain is None:
            self._is_plain = lacks_uri(self.text)
        return self._is_plain

    @property
    def kind(self) -> bytes:
        """The JSON text of the member `resultType`; empty without one."""
        try:
            return bytes(self.members.get(_KIND, b""))
        except (ValueError, RecursionError):
            return b""


def lacks_uri(text: bytes) -> bool:
    """Whether large JSON text certainly has no member `uri`; False when it has too many strings to check.

    A large result is mostly one long string. Then the bytes before and after it are searched, or a few steps lead from
    quotation mark to quotation mark.
    """
    has_none_outside = text.find(_URI, 0, _END) < 0 and text.find(_URI, -_END) < 0
    if has_none_outside and text.find(b'"', text.rfind(b'"', 0, _END) + 1) >= len(text) - _END:
        return True
    at = -1
    for _ in range(_MAX_QUOTES):
        at = text.find(b'"', at + 1)
        if at < 0:
            return True
        if text.startswith(_URI, at):
            return False
    return False


def view_of(result: Payload, last: ResultView | None = None) -> ResultView | None:
    """The view of a large result, else None. Returns `last` if that is a view of the same result."""
    if len(result) < LARGE:
        return None
    return last if last is not None and last.result is result else ResultView(result)
