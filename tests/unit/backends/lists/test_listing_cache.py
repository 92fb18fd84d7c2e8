"""The listing cache: the same bytes from one run to the next, and nothing from a damaged file."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.backends.link.negotiation import Negotiation
from mcp_manifold.backends.lists.listing_cache import ListingCache, _entries_in, _Unusable
from mcp_manifold.config import ServerSettings
from mcp_manifold.config.state_directory import StateDirectory
from mcp_manifold.model.catalogue import Hint, Listing
from mcp_manifold.wire import Payload
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.anyio

NOTES = ServerSettings(name="notes", command="notes")
CAPABILITIES = b'{"tools" : {"listChanged":true},"x-odd":1.50}'
LISTING = Listing(
    "notes",
    7,
    "modern",
    tools=(b'{"name":"a","n":1e2,"x":"\\u00fc"}', b"{only nearly JSON \xff"),
    prompts=(b'{"name":"p"}',),
    resources=(b'{"uri":"a://b","name":"r"}',),
    templates=(b'{"uriTemplate":"a://{b}","name":"t"}',),
    capabilities=CAPABILITIES,
    instructions="Say please.",
    server_info=b'{"name":"n"}',
    hints={"tools/list": Hint(60_000, is_public=True, at=5.0), "server/discover": Hint(1, is_public=False, at=5.0)},
)
GREETING = Negotiation("modern", "2026-07-28", Payload(CAPABILITIES), Payload(b'{"name":"n"}'), "Say please.")


def memory(directory: Path, *, now: float = 1000.0) -> ListingCache:
    return ListingCache(StateDirectory(directory), FakeClock(now))


def the_file(directory: Path) -> Path:
    (found,) = directory.iterdir()
    return found


async def test_a_kept_listing_is_recalled_byte_for_byte_with_its_lifetimes_over(tmp_path: Path) -> None:
    await memory(tmp_path / "m").keep(NOTES, LISTING, GREETING, "http")
    found = memory(tmp_path / "m", now=1060.0).recall(NOTES)
    assert found is not None
    listing = found.listing
    for member in ("backend", "era", "tools", "prompts", "resources", "templates", "capabilities", "instructions"):
        assert getattr(listing, member) == getattr(LISTING, member), member
    assert listing.server_info == LISTING.server_info
    assert found.kind == "http"
    assert (found.greeting.era, found.greeting.version) == ("modern", "2026-07-28")
    assert bytes(found.greeting.capabilities) == CAPABILITIES
    assert found.age == 60
    assert {key: (hint.ttl_ms, hint.is_public) for key, hint in listing.hints.items()} == {
        "tools/list": (0, True),
        "server/discover": (0, False),
    }


async def test_an_unknown_server_is_not_recalled(tmp_path: Path) -> None:
    assert memory(tmp_path / "m").recall(NOTES) is None
    assert not (tmp_path / "m").exists()


async def test_an_unchanged_listing_is_not_written_again(tmp_path: Path) -> None:
    kept = memory(tmp_path / "m")
    await kept.keep(NOTES, LISTING, GREETING, "http")
    the_file(tmp_path / "m").unlink()
    await kept.keep(NOTES, LISTING, GREETING, "http")
    assert list((tmp_path / "m").iterdir()) == []
    await kept.keep(NOTES, Listing("notes", 8, "modern", capabilities=CAPABILITIES), GREETING, "http")
    assert the_file(tmp_path / "m").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data[:-1], "damaged"),
        (lambda data: data[:30], "damaged"),
        (lambda data: data + b"x", "damaged"),
        (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "damaged"),
        (lambda data: data.replace(b"listing 2", b"listing 1"), "another version"),
        (lambda data: b"", "not a listing"),
        (lambda data: b"\x80\x04}", "not a listing"),
    ],
)
async def test_a_damaged_or_foreign_file_is_ignored_with_a_warning_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: "object", said: str
) -> None:
    await memory(tmp_path / "m").keep(NOTES, LISTING, GREETING, "http")
    file = the_file(tmp_path / "m")
    file.write_bytes(spoil(file.read_bytes()))  # type: ignore[operator]
    again = memory(tmp_path / "m")
    assert again.recall(NOTES) is None
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert said in record.getMessage()
    assert record.__dict__["backend"] == "notes"
    await again.keep(NOTES, LISTING, GREETING, "http")
    assert memory(tmp_path / "m").recall(NOTES) is not None


async def test_a_write_failure_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "m").write_bytes(b"a file where the directory should be")
    kept = memory(tmp_path / "m")
    for _ in range(3):
        await kept.keep(NOTES, LISTING, GREETING, "http")
    warned = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(warned) == 1
    assert "listing cache cannot be written" in warned[0].getMessage()


@given(st.binary(max_size=300))
def test_any_content_of_a_file_is_only_unusable(data: bytes) -> None:
    for head in (b"", b"mcp-manifold listing 1\n"):
        with pytest.raises(_Unusable):
            _entries_in(head + data)
