"""Comparing configurations: the plan of a reload, its outcome, and the fingerprint of a server."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.config import Plan, Reloaded, Settings, load_dict, plan_reload
from mcp_manifold.config.compare import fingerprint, reload_outcome

SECRET = "correct-horse-battery-staple"
A: dict[str, Any] = {"command": "a", "args": ["1", "2"], "env": {"K": SECRET}, "cwd": "/"}
WEB: dict[str, Any] = {"url": "https://a.example/mcp", "headers": {"Authorization": SECRET}}
DEFINITION: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (A, {"command": "other"}),
    (A, {"args": ["12"]}),
    (A, {"args": ["1", "2", ""]}),
    (A, {"args": ["\udce4", "\n", "\x7f"]}),
    (A, {"env": {"K": "other"}}),
    (A, {"env": {}}),
    (A, {"cwd": "/tmp"}),
    (A, {"era": "modern"}),
    (WEB, {"url": "https://a.example/mcp2"}),
    (WEB, {"headers": {"Authorization": "other"}}),
    (WEB, {"transport": "sse"}),
]
"""Entries, and changes that make another server of them."""
SHOWN = {
    "prefix": "p",
    "tools": {"allow": ["x"]},
    "prompts": {"block": ["x"]},
    "resources": {"block": ["x"]},
    "overrides": {"tools": {"t": {"name": "u"}}},
    "uris": "prefix",
}


def settings(servers: dict[str, Any] | None = None, **manifold: Any) -> Settings:
    return load_dict({"mcpServers": servers or {}, "manifold": manifold}, environ={})


def names(found: Plan) -> dict[str, tuple[str, ...]]:
    """The servers of a plan by the change, without empty groups."""
    groups = ("added", "removed", "renewed", "adjusted", "unchanged")
    return {group: getattr(found, group) for group in groups if getattr(found, group)}


def test_an_equal_configuration_changes_nothing() -> None:
    servers = {"a": {**A, **SHOWN}, "b": WEB}
    found = plan_reload(settings(servers, port=1), settings(servers, port=1))
    assert names(found) == {"unchanged": ("a", "b")}
    assert (found.keys, found.fixed, found.settings) == ((), (), settings(servers, port=1))


def test_servers_are_added_and_removed() -> None:
    found = plan_reload(settings({"a": A, "b": A}), settings({"c": A, "b": A, "d": A}))
    assert names(found) == {"added": ("c", "d"), "removed": ("a",), "unchanged": ("b",)}


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        *DEFINITION,
        (A, {"connect_timeout": "1s"}),
        (A, {"sse_read_timeout": "1s"}),
        (A, {"isolation": "client"}),
        (A, {"args": ["x"], **SHOWN}),
    ],
)
def test_changed_connection_settings_renew_the_server(entry: dict[str, Any], change: dict[str, Any]) -> None:
    found = plan_reload(settings({"a": entry}), settings({"a": {**entry, **change}}))
    assert (names(found), found.changed) == ({"renewed": ("a",)}, ("a",))


TREATED = {
    "start": "lazy", "idle_timeout": "1m", "keep_alive": True, "breaker": {"failures": 2}, "timeout": "1s",
    "max_timeout": 0, "initialize_timeout": "1s", "list_timeout": "1s", "max_concurrency": 1, "max_queue": 0,
    "retry": "never",
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [*SHOWN.items(), *TREATED.items()])
def test_changed_presentation_or_treatment_only_adjusts_the_server(key: str, value: object) -> None:
    found = plan_reload(settings({"a": A}), settings({"a": {**A, key: value}}))
    assert (names(found), found.changed) == ({"adjusted": ("a",)}, ("a",))


def test_a_disabled_server_counts_as_absent() -> None:
    on, off = settings({"a": A}), settings({"a": {**A, "disabled": True}})
    assert names(plan_reload(on, off)) == {"removed": ("a",)}
    assert names(plan_reload(off, on)) == {"added": ("a",)}
    assert names(plan_reload(off, off)) == {}


def test_a_server_that_breaks_is_removed_and_reported_once() -> None:
    old, new = settings({"a": A, "b": A}), settings({"a": {"command": "${NOWHERE}"}, "b": A})
    found = plan_reload(old, new)
    assert names(found) == {"removed": ("a",), "unchanged": ("b",)}
    assert reload_outcome(found, old).problems == ('server "a" cannot be used: the variable "NOWHERE" is not set',)
    assert reload_outcome(plan_reload(new, new), new).problems == ()


def test_settings_that_need_a_restart_stay_and_are_reported() -> None:
    old = settings(port=1, host="127.0.0.1", name="x", instructions="old")
    new = settings(port=2, host="::1", basePath="/b", name="y", instructions="new", limits={"maxBody": 1})
    found = plan_reload(old, new)
    assert (found.keys, found.fixed) == (("instructions", "limits"), ("name", "host", "port", "basePath"))
    live = {"instructions": "new", "limits": new.manifold.limits}
    assert found.settings.manifold == old.manifold.model_copy(update=live)
    problems = tuple(f'"{key}" changed, which needs a restart' for key in found.fixed)
    assert reload_outcome(found, old).problems == problems


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Reloaded(), "reloaded: nothing changed"),
        (Reloaded(added=("a", "b"), keys=("tokens",)), "reloaded: added a, b; set tokens"),
        (Reloaded(error="f:1:2: why"), "not reloaded, the old configuration stays: f:1:2: why"),
    ],
)
def test_an_outcome_reads_as_a_sentence(outcome: Reloaded, text: str) -> None:
    assert str(outcome) == text


SERVERS = st.dictionaries(
    st.sampled_from("abcde"),
    st.fixed_dictionaries(
        {"command": st.sampled_from(["x", "y"])},
        optional={"disabled": st.booleans(), "prefix": st.sampled_from(["p", "q"])},
    ),
)


@given(SERVERS, SERVERS)
def test_a_plan_has_every_server_in_one_group(old: dict[str, Any], new: dict[str, Any]) -> None:
    found = plan_reload(settings(old), settings(new))
    grouped = [name for group in names(found).values() for name in group]
    active = {name for each in (old, new) for name, entry in each.items() if not entry.get("disabled")}
    assert sorted(grouped) == sorted(active)
    assert found.settings == settings(new)
    assert set(found.changed) == {*found.renewed, *found.adjusted}


def print_of(entry: dict[str, Any], **change: Any) -> str:
    return fingerprint(settings({"a": {**entry, **change}}).servers[0])


@pytest.mark.parametrize(("entry", "change"), DEFINITION)
def test_the_fingerprint_changes_with_the_definition(entry: dict[str, Any], change: dict[str, Any]) -> None:
    assert print_of(entry, **change) != print_of(entry)


@pytest.mark.parametrize(("key", "value"), [*SHOWN.items(), *TREATED.items(), ("required", True)])
def test_the_fingerprint_ignores_name_presentation_and_treatment(key: str, value: object) -> None:
    assert print_of(A, **{key: value}) == print_of(A) == fingerprint(settings({"b": A}).servers[0])


def test_the_fingerprint_is_a_file_name_without_secrets_or_order() -> None:
    found = print_of(A)
    assert (found.isalnum(), len(found), SECRET in found) == (True, 40, False)
    assert print_of(A, env={"A": "1", "B": "2"}) == print_of(A, env={"B": "2", "A": "1"})
