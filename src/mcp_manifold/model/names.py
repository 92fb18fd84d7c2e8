"""Public names and URIs: built from native ones, made unique, normalised and matched. No listings and no policy.

Names are built in one direction only. Nothing here parses one: the catalogue's tables lead back to the native name, so
a separator inside a server or tool name has no meaning.

URIs are also parsed, because `<server>+<uri>` is accepted for URIs that are not listed. The server name stands in the
place of the scheme. It is encoded as a label of legal characters (RFC 3986 section 3.1). Otherwise clients that
validate URIs would drop a whole list for one `my_server+file:///x`. Other bytes become `.hh`, and a label that would
not start with a letter starts with `x.`. Labels contain no `+`, so the first `+` ends the label.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import quote, unquote

MIN_BUDGET: Final = 16
"""The shortest name budget, in characters, that leaves room for a hash."""
MAX_URI: Final = 8192
"""Longest native name or URI, in characters. Every rule below takes linear time, and this bounds it."""

_ILLEGAL: Final = re.compile(r"[^A-Za-z0-9_-]")
_HASH: Final = 8
_LONG_HASH: Final = 16


def qualify(prefix: str, native: str, *, owner: str, separator: str = "__", budget: int = 64) -> str:
    """The public name of `owner`'s item `native`: `<prefix><separator><native>`, or `native` without a prefix.

    Characters that model APIs refuse become `_`. A name that was changed, or is over `budget` characters, ends in a
    hash of owner and native name.

    Raises:
        ValueError: `budget` is below MIN_BUDGET.
    """
    if budget < MIN_BUDGET:
        raise ValueError(f"a name budget of {budget} is too small; the least is {MIN_BUDGET}")
    plain = f"{prefix}{separator}{native}" if prefix else native
    legal = _ILLEGAL.sub("_", plain)
    if legal == plain and 0 < len(plain) <= budget:
        return plain
    return _suffixed(legal, _digest(owner, native)[:_HASH], budget)


def distinguish(name: str, *, owner: str, native: str, budget: int = 64, attempt: int = 0) -> str:
    """Another name for `owner`'s item `native` when `name` is taken. Call with a rising `attempt` until one is free.

    Attempt 0 appends a short hash, attempt 1 a long one, later attempts a long hash of other input each. The number of
    attempts is bounded by the number of taken names, even if these were chosen to collide.
    """
    stem = name.removesuffix("_" + _digest(owner, native)[:_HASH])
    if attempt < 2:
        return _suffixed(stem, _digest(owner, native)[: _LONG_HASH if attempt else _HASH], budget)
    return _suffixed(stem, _digest(owner, f"{native}\0{attempt}")[:_LONG_HASH], budget)


def outside(name: str, own: str, *, owner: str, native: str, budget: int = 64) -> str:
    """Another public name for `name`, which begins like another server's: prefix `own`, then a hash of `name`."""
    return f"{own}x{_digest(owner, native)[:_HASH]}_{name.removeprefix(own)}"[:budget]


def _digest(owner: str, native: str) -> str:
    return sha256(f"{owner}\0{native}".encode(errors="surrogatepass")).hexdigest()


def _suffixed(stem: str, digest: str, budget: int) -> str:
    suffix = "_" + digest[: budget - 1]
    return stem[: budget - len(suffix)] + suffix


# --- URIs ------------------------------------------------------------------------------------------------------

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
_URI: Final = re.compile(r"(?s)(//[^/?#]*)?([^?#]*)(\?[^#]*)?(#.*)?")
_ESCAPED: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_PLAIN_BYTE: Final = re.compile(r"[A-Za-z0-9-]")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")
_LEGAL_IN_URI: Final = "!#$%&'()*+,/:;=?@[]~"
_DEFAULT_PORTS: Final = {"http": ":80", "ws": ":80", "https": ":443", "wss": ":443", "ftp": ":21"}


def scheme(uri: str) -> str:
    """The lower-case scheme of a URI or URI template; empty without a valid one."""
    found = _SCHEME.match(uri)
    return found.group().lower() if found else ""


def lower_scheme(uri: str) -> str:
    """`uri` with its scheme in lower case, otherwise unchanged."""
    return scheme(uri) + uri[len(scheme(uri)) :]


def prefixed_uri(owner: str, uri: str) -> str:
    """`<owner>+<uri>`: a public URI that only `owner` can have."""
    return f"{_label(owner)}+{uri}"


def _label(owner: str) -> str:
    if not owner[:1].isascii() or not owner[:1].isalpha():
        return "x." + _escape(owner[:1]) + _label_tail(owner[1:])
    return _label_tail(owner)


def _label_tail(text: str) -> str:
    return "".join(char if _PLAIN_BYTE.match(char) else _escape(char) for char in text)


def _escape(text: str) -> str:
    return "".join(f".{byte:02x}" for byte in text.encode(errors="surrogatepass"))


def split_prefixed_uri(uri: str, owners: Iterable[str]) -> tuple[str, str] | None:
    """Split `<owner>+<uri>` into owner and native URI; None when `uri` has no such form.

    The label of `prefixed_uri` is tried first, in any case because clients lower-case schemes; then the owner's name as
    configured, longest match first. If owners differ by case only, a lower-case label is ambiguous and matches none.
    """
    if "+" not in uri:
        return None
    known = tuple(owners)
    label, _, rest = uri.partition("+")
    alike = [owner for owner in known if rest and _label(owner).lower() == label.lower()]
    if len(alike) > 1:
        alike = [owner for owner in alike if _label(owner) == label != label.lower()]
    if alike:
        return alike[0], rest
    spelled = [owner for owner in known if owner and uri.startswith(owner + "+") and _label(owner) != label]
    longest = max(spelled, key=len, default="")
    return (longest, uri[len(longest) + 1 :]) if longest and len(uri) > len(longest) + 1 else None


def normalise_uri(uri: str) -> str:
    """A look-up key that is equal for equivalent spellings of a URI (RFC 3986 section 6.2.2, and URL parsers in use).

    Never sent: backends receive the spelling they listed. The key is coarser than any single client's parser. That is
    safe: exact spellings are looked up first, and two backends never share a key.
    """
    name = scheme(uri)
    if not name or len(uri) > MAX_URI:
        return uri
    authority, path, query, fragment = _components(uri)
    path = _percent(path)
    if path.startswith("/"):
        path = _without_dots(path)
    if authority:
        authority = _normal_authority(authority, name)
        path = path or "/"
    return f"{name}:{authority}{path}{_percent(query)}{_percent(fragment)}"


def _components(uri: str) -> tuple[str, str, str, str]:
    """Authority (with `//`), path, query (with `?`) and fragment (with `#`) after the scheme."""
    start = len(scheme(uri))
    found = _URI.match(uri, start + 1 if start else 0)
    return (found[1] or "", found[2] or "", found[3] or "", found[4] or "") if found else ("", uri, "", "")


def _normal_authority(authority: str, name: str) -> str:
    user, at, host = authority.rpartition("@")
    return user + at + _percent(host).lower().removesuffix(_DEFAULT_PORTS.get(name, "\0"))


def _percent(text: str) -> str:
    """Percent-encoding in normal form: none for unreserved characters, all illegal ones, upper-case hex."""
    return _ESCAPED.sub(_unescape, quote(text, safe=_LEGAL_IN_URI, errors="surrogatepass"))


def _unescape(found: re.Match[str]) -> str:
    char = chr(int(found[1], 16))
    return char if _UNRESERVED.match(char) else found[0].upper()


def _without_dots(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def has_dot_segments(uri: str) -> bool:
    """Whether the path has `.` or `..` segments (RFC 3986 section 3.3), percent-encoded ones and `\\` included."""
    return any(segment in (".", "..") for segment in re.split(r"[/\\]", unquote(_components(uri)[1])))


def spellings(uri: str) -> tuple[str, ...]:
    """The spellings of a URI that a block rule must check: as given, normalised, and unescaped with slashes merged."""
    normal = normalise_uri(uri)
    name = scheme(normal)
    authority, path, query, _ = _components(normal)
    folded = f"{name}:{authority}{re.sub('/{2,}', '/', unquote(path))}{query}" if name else normal
    return lower_scheme(uri), normal, folded


# --- RFC 6570 templates ----------------------------------------------------------------------------------------

_MAX_EXPRESSIONS: Final = 64
_EXPRESSION: Final = re.compile(r"\{([^{}]*)\}")
_VARIABLE: Final = re.compile(r"[\w.%-]+(\*|:[1-9][0-9]{0,3})?")
_SEGMENT: Final = "/?#"
_OPERATORS: Final = {
    "": ("", _SEGMENT),
    "+": ("", ""),
    "#": ("#", ""),
    ".": (".", _SEGMENT),
    "/": ("/", _SEGMENT),
    ";": (";", _SEGMENT),
    "?": ("?", "#"),
    "&": ("&", "#"),
}
"""Operator to the first character of its expansion and the characters that end it (RFC 6570 appendix A)."""


@dataclass(frozen=True, slots=True)
class _Gap:
    """The possible expansions of an expression: nothing, or `lead` followed by characters outside `stop`."""

    lead: str
    stop: str


@dataclass(frozen=True, slots=True)
class UriTemplate:
    """A compiled URI template: literals and gaps, in order. Matches as tolerantly as servers do.

    All possible matches are followed at once: bit i of a mask means that the parts so far can end before character i.
    The cost is one pass per part for any URI, without the backtracking of a regular expression.
    """

    parts: tuple[str | _Gap, ...]

    def matches(self, uri: str) -> bool:
        """Whether the template can expand to `uri`."""
        first = self.parts[0] if self.parts else ""
        if len(uri) > MAX_URI or (isinstance(first, str) and not uri.startswith(first)):
            return False
        reached = 1
        for part in self.parts:
            reached = _after_literal(reached, part, uri) if isinstance(part, str) else _after_gap(reached, part, uri)
            if not reached:
                return False
        return bool(reached >> len(uri) & 1)


def _after_literal(reached: int, literal: str, uri: str) -> int:
    return (reached & _occurrences(literal, uri)) << len(literal)


def _after_gap(reached: int, gap: _Gap, uri: str) -> int:
    start = (reached & _occurrences(gap.lead, uri)) << 1 if gap.lead else reached
    allowed = int("".join("0" if char in gap.stop else "1" for char in reversed(uri)) or "0", 2)
    # A bit added inside a run of ones carries to the run's end; xor shows the bits that the carry crossed. A start bit
    # crossed by an earlier carry shows as zero again, but it is still in `start`.
    return reached | start | (((start & allowed) + allowed) ^ allowed)


def _occurrences(literal: str, uri: str) -> int:
    digits = bytearray(b"0" * (len(uri) + 1))
    at = uri.find(literal)
    while at >= 0:
        digits[-1 - at] = ord("1")
        at = uri.find(literal, at + 1)
    return int(digits, 2)


def compile_template(template: str) -> UriTemplate | None:
    """The matcher of an RFC 6570 template (all four levels); None if invalid or with over 64 expressions."""
    if len(template) > MAX_URI or template.count("{") > _MAX_EXPRESSIONS:
        return None
    parts: list[str | _Gap] = []
    # `split` with one group returns literals at even positions and expressions at odd ones.
    for place, piece in enumerate(_EXPRESSION.split(template)):
        gaps = _gaps(piece) if place % 2 else _literal(piece)
        if gaps is None:
            return None
        parts += gaps
    return UriTemplate(tuple(parts))


def _literal(text: str) -> list[str] | None:
    if "{" in text or "}" in text:
        return None
    return [text] if text else []


def _gaps(expression: str) -> list[_Gap] | None:
    operator = expression[:1] if expression[:1] in _OPERATORS else ""
    variables = expression[len(operator) :].split(",")
    if not all(_VARIABLE.fullmatch(variable) for variable in variables):
        return None
    lead, stop = _OPERATORS[operator]
    if operator == "/":
        return [_Gap(lead, stop.removeprefix("/") if variable.endswith("*") else stop) for variable in variables]
    return [_Gap(lead, stop)]
