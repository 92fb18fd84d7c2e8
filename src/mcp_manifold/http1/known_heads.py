"""Recognises HTTP heads by their bytes, so that a repeated head is not parsed again. Pure; knows no header's meaning.

Theory. A peer that keeps a connection writes the same head before every message, except for the body's length. A head
that equals an accepted one in every byte outside those digits has the same meaning. If the message is also complete,
the parser could find nothing else. Every other message goes to the parser.
"""

from typing import Final, Generic, TypeVar

_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length:"
_MOST_DIGITS: Final = 10

T = TypeVar("T")


class HeadTemplate:
    """The bytes of an accepted head around the digits of its content-length."""

    __slots__ = ("_after", "_before", "_reach")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._reach = len(after) + _MOST_DIGITS

    def __repr__(self) -> str:
        return f"<HeadTemplate of {len(self._before) + len(self._after)} bytes>"

    @classmethod
    def of(cls, message: bytes) -> "HeadTemplate | None":
        """The template of a message's head; None unless it declares the length once, in plain digits.

        Args:
            message: a message that the parser accepted, from its first byte.
        """
        end = message.find(_END)
        head = message[: end + len(_END)]
        lower = head.lower()
        at = lower.find(_LENGTH)
        if end < 0 or at < 0 or lower.find(_LENGTH, at + 1) >= 0:
            return None
        start = at + len(_LENGTH)
        while head[start : start + 1] in (b" ", b"\t"):
            start += 1
        stop = head.find(b"\r", start)
        return cls(head[:start], head[stop:]) if head[start:stop].isdigit() else None

    def body(self, message: bytes) -> bytes | None:
        """The body of `message`; None if its head differs, or it is not exactly one complete message."""
        if not message.startswith(self._before):
            return None
        start = len(self._before)
        stop = message.find(self._after, start, start + self._reach)
        if stop < 0:
            return None
        body = message[stop + len(self._after) :]
        return body if message[start:stop] == b"%d" % len(body) else None


class KnownHeads(Generic[T]):
    """The last `most` parsed heads of one connection, each with the value that the parser made of it."""

    __slots__ = ("_found", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: list[tuple[HeadTemplate, T]] = []

    def __repr__(self) -> str:
        return f"<KnownHeads {len(self._found)} of {self._most} heads>"

    def find(self, message: bytes) -> tuple[T, bytes] | None:
        """The value stored for the head of `message`, and its body; None if the parser must read the message."""
        for template, found in self._found:
            body = template.body(message)
            if body is not None:
                return found, body
        return None

    def learn(self, message: bytes, found: T) -> None:
        """Store `found` for the head of `message`, if the message is complete. The parser must have accepted it."""
        template = HeadTemplate.of(message)
        if template is not None and template.body(message) is not None:
            self._found = [(template, found), *self._found[: self._most - 1]]
