"""One look at a large result, from which everything is decided that has to be: its members, and a text to search.

A look is what takes time: the members of a small result are told again whenever somebody wants to know.
"""

from typing import Final

from mcp_manifold.wire.envelope import LARGE, Payload, loose_members

_KIND: Final = "resultType"
_URI: Final = b'"uri"'
_END: Final = 1024
"""Bytes at either end that are searched, between which there may be nothing but one string."""
_FEW: Final = 400
"""Quotation marks that are looked at one by one."""


class ResultView:
    """What there is to see of a result; found out when first asked for, unless whoever read it knows already."""

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
        """The members, for nobody to change.

        Raises:
            ValueError, RecursionError: as `loose_members`.
        """
        if self._members is None:
            self._members = loose_members(self.result)
        return self._members

    @property
    def text(self) -> bytes:
        """A text that is the result, or has it in it."""
        if self._text is None:
            self._text = bytes(self.result)
        return self._text

    @property
    def is_known(self) -> bool:
        """Whether the members are there without taking the result apart."""
        return self._members is not None

    @property
    def is_plain(self) -> bool:
        """Whether it is known that no member in it is called `uri`; it never takes long to say."""
        if self._is_plain is None:
            self._is_plain = lacks_uri(self.text)
        return self._is_plain

    @property
    def kind(self) -> bytes:
        """Its `resultType` as it is written; empty where there is none."""
        try:
            return bytes(self.members.get(_KIND, b""))
        except (ValueError, RecursionError):
            return b""


def lacks_uri(text: bytes) -> bool:
    """Whether no member of large JSON text is called `uri`; False where there are too many strings to look at.

    What makes a result large is mostly one long string: what is before and after it is searched, or from quotation mark
    to quotation mark it is a few steps.
    """
    has_none_outside = text.find(_URI, 0, _END) < 0 and text.find(_URI, -_END) < 0
    if has_none_outside and text.find(b'"', text.rfind(b'"', 0, _END) + 1) >= len(text) - _END:
        return True
    at = -1
    for _ in range(_FEW):
        at = text.find(b'"', at + 1)
        if at < 0:
            return True
        if text.startswith(_URI, at):
            return False
    return False


def view_of(result: Payload, last: ResultView | None = None) -> ResultView | None:
    """A look at a result if it is large: the last one, if that was at the same."""
    if len(result) < LARGE:
        return None
    return last if last is not None and last.result is result else ResultView(result)
