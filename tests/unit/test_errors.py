"""The error tree: what each error says of itself."""

import pytest

from mcp_manifold.errors import (
    AllUnavailable,
    BackendError,
    BackendLost,
    BackendUnavailable,
    ConfigError,
    Forbidden,
    InvalidParams,
    ManifoldError,
    RemoteError,
    RequestError,
    SessionExpired,
    TooManyRequests,
    UnknownItem,
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("wrong"), "wrong"),
        (ConfigError("wrong", path="a.json"), "a.json: wrong"),
        (ConfigError("wrong", path="a.json", line=3, column=7), "a.json:3:7: wrong"),
        (ConfigError("wrong", line=3, column=7), ":3:7: wrong"),
        (BackendUnavailable("notes", "is gone"), "notes: is gone"),
        (RemoteError(b"{}", code=-1, backend="notes"), "notes answered with error -1"),
        (UnknownItem("tool", "t"), "Unknown tool: t"),
    ],
)
def test_an_error_says_where_and_what(error: ManifoldError, text: str) -> None:
    assert str(error) == text


def test_a_code_given_holds_for_that_error_alone() -> None:
    assert RequestError("x", code=-32700).code == -32700
    assert RequestError("x").code == -32600
    assert InvalidParams("x").code == -32602


def test_forbidden_is_an_unknown_item_in_every_word() -> None:
    forbidden, unknown = Forbidden("tool", "t"), UnknownItem("tool", "t")
    assert isinstance(forbidden, UnknownItem)
    assert (str(forbidden), forbidden.code, forbidden.data) == (str(unknown), unknown.code, unknown.data)


def test_an_expired_session_is_a_lost_link() -> None:
    assert isinstance(SessionExpired("notes", "x"), BackendLost)


def test_a_limit_says_when_to_come_back() -> None:
    error = TooManyRequests("x", retry_after=2.0)
    assert (error.retry_after, error.data) == (2.0, {"retryAfterSeconds": 2.0})


def test_a_backends_failure_tells_only_what_is_known() -> None:
    assert BackendUnavailable("notes", "is gone").data() == {
        "server": "notes",
        "reason": "BackendUnavailable",
        "detail": "is gone",
        "advice": BackendUnavailable.advice,
    }
    assert BackendUnavailable("notes", "is gone", next_try=0.0).data()["nextAttemptInSeconds"] == 0.0


def test_a_backends_failure_says_what_to_do() -> None:
    assert (
        BackendUnavailable("notes", "is gone").explanation
        == "notes: is gone. Try again later, or go on without this server."
    )
    assert BackendUnavailable("notes", "is gone", advice="Wait.").explanation == "notes: is gone. Wait."
    assert BackendError("notes", "is gone").explanation == "notes: is gone"


def test_when_all_are_gone_each_says_why() -> None:
    gone = AllUnavailable({"git": "no such program", "files": "connection refused"})
    assert str(gone) == "all servers of this endpoint are unavailable (git: no such program; files: connection refused)"
    assert gone.data() == {
        "reason": "AllUnavailable",
        "servers": [
            {"server": "git", "detail": "no such program"},
            {"server": "files", "detail": "connection refused"},
        ],
        "advice": BackendUnavailable.advice,
    }
