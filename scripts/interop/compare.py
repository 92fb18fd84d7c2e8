"""What a client saw directly against what it saw through the manifold: pure; starts nothing and reads no file.

What may differ is declared here and nowhere else: names and URIs carry their prefixes, times and ids are never the
same, and what one era has and the other has not is left out.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

KINDS = ("tools", "resources", "templates", "prompts")
FEATURES = ("tools", "resources", "prompts", "completions")
ERA_MEMBERS = ("resultType", "ttlMs", "cacheScope")  # of results of 2026-07-28
ERA_ITEM_MEMBERS = ("execution",)  # of items, gone in 2026-07-28
MODERN = "2026"
KEYS = {"resources": "uri", "templates": "uriTemplate"}  # the names of these two are for display only
DIGEST = r"(_[0-9a-f]{8})?"  # what a public name may end with when the native one has characters of other sorts
ERA_META = "io.modelcontextprotocol/"
VOLATILE = (
    (re.compile(r"\d{1,2}:\d\d:\d\d [AP]M"), "<time>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[0-9.]*(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
)
MASKED = "<not compared>"
SHORT = 160

Json = Any


@dataclass(frozen=True, slots=True)
class ReportView:
    """How the names of one backend look in a report, and the word of the job that no other job has."""

    prefix: str
    uri_prefix: str
    token: str


def plain(value: Json, view: ReportView, mask: tuple[str, ...] = ()) -> Json:
    """A value without what may differ."""
    if isinstance(value, dict):
        members = {name: _member(name, member, view, mask) for name, member in value.items()}
        return {name: member for name, member in members.items() if name not in ERA_MEMBERS and member is not None}
    if isinstance(value, list):
        return [plain(member, view, mask) for member in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return _text(value, view) if isinstance(value, str) else value


def _member(name: str, member: Json, view: ReportView, mask: tuple[str, ...]) -> Json:
    if name in mask:
        return MASKED
    if name in ("name", "uri", "uriTemplate") and isinstance(member, str):
        member = member.removeprefix(view.prefix if name == "name" else view.uri_prefix)
    if name == "_meta" and isinstance(member, dict):
        member = {key: inner for key, inner in member.items() if not key.startswith(ERA_META)} or None
    return plain(member, view, mask)


def _text(text: str, view: ReportView) -> str:
    text = text.replace(view.token, "<token>")
    for pattern, stand_in in VOLATILE:
        text = pattern.sub(stand_in, text)
    return text


def is_refusal(outcome: Json) -> bool:
    """Whether a request was refused, as an error or as a result that says so."""
    return "error" in outcome or outcome.get("failed", "").startswith("exit") or bool(_result(outcome).get("isError"))


def surprises(step: Json, outcome: Json) -> list[str]:
    """What is not as the step says, nothing being between: the servers or clients are not the ones we know."""
    unanswered = "failed" in outcome and not is_refusal(outcome)
    unmoved = outcome.get("updated") is False or outcome.get("cancelled") is False
    wrong = unanswered or unmoved or is_refusal(outcome) != step.get("fails", False)
    return [short(outcome)] if wrong else []


def _result(outcome: Json) -> dict[str, Json]:
    result = outcome.get("result")
    return result if isinstance(result, dict) else {}


def listed(report: Json, kind: str, view: ReportView) -> dict[str, Json] | str:
    """The items of one kind that carry this view's prefix, by native name; a text if there is no list."""
    items = report.get(kind, [])
    if not isinstance(items, list):
        return json.dumps(items)
    own = [item for item in items if item["name"].startswith(view.prefix)]
    return {str(plain(item, view)[KEYS.get(kind, "name")]): plain(item, view) for item in own}


def step_differences(step: Json, direct: Json, through: Json, views: tuple[ReportView, ReportView]) -> list[str]:
    """How one step's outcome through the manifold differs from the direct one."""
    if step.get("compare") == "refused":
        if is_refusal(direct) == is_refusal(through):
            return []
        return [f"{step['id']}: direct {short(direct)}, through {short(through)}"]
    mask = tuple(step.get("mask", ()))
    before, after = plain(direct, views[0], mask), plain(through, views[1], mask)
    if step.get("progress"):
        before, after = _servers_ticks(before), _servers_ticks(after)
    return [f"{step['id']}: {where}" for where in paths(before, after)]


def _servers_ticks(outcome: Json) -> Json:
    """The ticks that are compared: not the last one, which some SDKs lose as it arrives together with the result, and
    none without a total, which the TypeScript 2.x client makes itself whenever it is asked for input.
    """
    ticks = outcome.get("progress") or []
    return outcome | {"progress": [tick for tick in ticks if tick[0] != tick[1] and tick[1] is not None]}


def list_differences(direct: Json, through: Json, views: tuple[ReportView, ReportView]) -> list[str]:
    """What is missing from, or is not the same in, the lists; more than there is directly is no loss."""
    found: list[str] = []
    same_era = _is_modern(direct) == _is_modern(through)
    for kind in KINDS:
        before, after = listed(direct, kind, views[0]), listed(through, kind, views[1])
        if isinstance(before, str):  # a server without such a thing: the manifold may have it from another
            continue
        if isinstance(after, str):
            found.append(f"{kind}: {after[:SHORT]}")
            continue
        missing = sorted(before.keys() - after.keys())
        found += [f"{kind}: {name} is missing" for name in missing]
        both = sorted(before.keys() & after.keys())
        for name in both:
            pair = before[name], _renamed(before[name], after[name])
            places = paths(*pair) if same_era else paths(*(_without_era(item) for item in pair))
            found += [f"{kind} {name}: {where}" for where in places]
    return found


def _is_modern(report: Json) -> bool:
    return str(report.get("protocol")).startswith(MODERN)


def _without_era(item: dict[str, Json]) -> dict[str, Json]:
    return {name: member for name, member in item.items() if name not in ERA_ITEM_MEMBERS}


def _renamed(before: dict[str, Json], after: dict[str, Json]) -> dict[str, Json]:
    """The item under its native name, if its public name is one the naming may have made of that."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", before["name"])
    made = re.fullmatch(re.escape(safe) + DIGEST, after["name"])
    return after | {"name": before["name"]} if made else after


def capability_differences(direct: Json, through: Json) -> list[str]:
    """Features the backend declares and the manifold does not."""
    before, after = direct.get("capabilities") or {}, through.get("capabilities") or {}
    return [f"capability {name} is missing" for name in FEATURES if name in before and name not in after]


def paths(before: Json, after: Json, at: str = "") -> list[str]:
    """Where two values differ, each place once."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = list(before | after)
        return [where for name in names for where in paths(before.get(name), after.get(name), f"{at}.{name}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [where for index, pair in pairs for where in paths(*pair, at=f"{at}[{index}]")]
    return [] if before == after else [f"{at.lstrip('.') or 'value'}: direct {short(before)}, through {short(after)}"]


def short(value: Json) -> str:
    """A value in one line of bounded length."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= SHORT else text[: SHORT - 1] + "…"
