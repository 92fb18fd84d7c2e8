"""Optional capabilities: declared in their own era, and only where one server provides them."""

import json
from typing import Any, Literal

import pytest

from mcp_manifold.model.capabilities import declared, extending, extends_tasks, owners, runs_tasks
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.wire import HANDSHAKE_VERSIONS, LATEST_HANDSHAKE, MODERN_VERSION, encode

TASKS = "io.modelcontextprotocol/tasks"
UI = "io.modelcontextprotocol/ui"
CALLS: Any = {"requests": {"tools": {"call": {}}}}


def listing(name: str, era: Literal["handshake", "modern"] = "handshake", **capabilities: Any) -> Listing:
    return Listing(name, 1, era, capabilities=json.dumps(capabilities).encode())


def merged(version: str, *listings: Listing) -> Any:
    return json.loads(encode(extending(listings, version)))


def test_tasks_are_merged_for_the_one_revision_that_has_them() -> None:
    a, b = listing("a", tasks={"list": {}, **CALLS}), listing("b", tasks={"cancel": {}, "x": 1, **CALLS})
    for version in (*HANDSHAKE_VERSIONS, MODERN_VERSION):
        wanted = {"tasks": {"list": {}, "cancel": {}, **CALLS}} if version == LATEST_HANDSHAKE else {}
        assert merged(version, a, b, listing("c")) == wanted


@pytest.mark.parametrize("tasks", [{}, {"list": {}}, {"requests": {}}, {"requests": {"tools": {}}}, None, [], 7])
def test_a_backend_without_task_calls_declares_no_tasks(tasks: object) -> None:
    assert not runs_tasks(listing("a", tasks=tasks))
    assert merged(LATEST_HANDSHAKE, listing("a", tasks=tasks)) == {}
    assert not runs_tasks(listing("a", "modern", tasks=CALLS))


def test_the_tasks_extension_is_declared_in_its_own_era_by_any_number() -> None:
    modern = [listing(name, "modern", extensions={TASKS: {}}) for name in "ab"]
    assert merged(MODERN_VERSION, *modern) == {"extensions": {TASKS: {}}}
    assert merged(LATEST_HANDSHAKE, *modern) == {}
    assert not extends_tasks(listing("a", extensions={TASKS: {}}))
    assert merged(LATEST_HANDSHAKE, listing("a", extensions={TASKS: {}})) == {}


def test_mcp_apps_are_declared_in_both_eras() -> None:
    for era, version in (("handshake", MODERN_VERSION), ("modern", LATEST_HANDSHAKE)):
        found = listing("a", era, extensions={UI: {"first": 1}})  # type: ignore[arg-type]  # one of the literals
        again = listing("b", era, extensions={UI: {"second": 1}})  # type: ignore[arg-type]  # the same
        assert merged(version, found, again) == {"extensions": {UI: {"first": 1}}}


def test_a_capability_of_two_servers_is_not_declared() -> None:
    a, b = listing("a", experimental={"x": 1, "y": 2}), listing("b", "modern", experimental={"y": 3, "z": 4})
    assert merged(LATEST_HANDSHAKE, a, b) == {"experimental": {"x": 1}}
    assert merged(MODERN_VERSION, a, b) == {"experimental": {"z": 4}}
    assert [owners((a, b), key) for key in "xyzw"] == [["a"], ["a", "b"], ["b"], []]


def test_unreadable_capabilities_are_not_declared() -> None:
    assert declared(Listing("a", 1, "modern", capabilities=b"[]"), "extensions") == {}
    assert merged(MODERN_VERSION, Listing("a", 1, "modern", capabilities=b'{"extensions":[1]}')) == {}
