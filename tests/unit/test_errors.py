"""The error tree: text, code, data and advice of each error."""

import pytest

from mcp_manifold.errors import (
    AllUnavailable,
    BackendError,
    BackendLost,
    BackendUnavailable,
    ConfigError,
    ManifoldError,
    RemoteError,
    SessionExpired,
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
def test_an_error_shows_its_place_and_reason(error: ManifoldError, text: str) -> None:
    assert str(error) == text


def test_a_backend_error_has_the_reason_and_advice() -> None:
    gone = BackendUnavailable("notes", "is gone")
    assert BackendUnavailable("notes", "is gone", next_try=0.0).data()["nextAttemptInSeconds"] == 0.0
    assert gone.explanation == "notes: is gone. Try again later, or go on without this server."
    assert BackendUnavailable("notes", "is gone", advice="Wait.").explanation == "notes: is gone. Wait."
    assert BackendError("notes", "is gone").explanation == "notes: is gone"
    assert isinstance(SessionExpired("notes", "x"), BackendLost)


def test_the_error_for_all_servers_has_the_reason_of_each() -> None:
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
