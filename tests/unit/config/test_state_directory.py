"""A private directory of files: whole or not at all, nobody else's, never in the way."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcp_manifold.config.state_directory import StateDirectory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_was_put_there_is_what_is_got(tmp_path: Path) -> None:
    shelf = StateDirectory(tmp_path / "deep" / "shelf")
    assert shelf.get("a") is None
    for data in (b"", b"one", b"\0" * (3 << 20), b"two"):
        shelf.put("a", data)
        assert shelf.get("a") == data
    assert [path.name for path in (tmp_path / "deep" / "shelf").iterdir()] == ["a"]


def test_only_the_user_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        StateDirectory(tmp_path / "shelf").put("a", b"x")
    finally:
        os.umask(before)
    assert (mode(tmp_path / "shelf"), mode(tmp_path / "shelf" / "a")) == (0o700, 0o600)


def test_a_directory_that_is_too_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir(mode=0o755)
    shelf = StateDirectory(tmp_path / "shelf")
    assert shelf.get("a") is None
    assert mode(tmp_path / "shelf") == 0o700


@pytest.mark.parametrize("bits", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_none_of_ours(tmp_path: Path, bits: int) -> None:
    shelf = StateDirectory(tmp_path / "shelf")
    shelf.put("a", b"x")
    (tmp_path / "shelf" / "a").chmod(bits)
    with pytest.raises(PermissionError, match="others may write it"):
        shelf.get("a")
    shelf.put("a", b"y")
    assert shelf.get("a") == b"y"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("which", ["", "a"])
def test_what_belongs_to_somebody_else_is_not_read(tmp_path: Path, which: str) -> None:
    shelf = StateDirectory(tmp_path / "shelf")
    shelf.put("a", b"x")
    os.chown(tmp_path / "shelf" / which, 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to another user"):
        shelf.get("a")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    shelf = StateDirectory(tmp_path / "shelf")
    shelf.put("real", b"x")
    (tmp_path / "shelf" / "a").symlink_to("real")
    with pytest.raises(OSError, match=r"symbolic|Too many levels"):
        shelf.get("a")
    shelf.put("a", b"y")
    assert (shelf.get("a"), shelf.get("real")) == (b"y", b"x")


def test_a_pipe_in_its_place_does_not_hang(tmp_path: Path) -> None:
    shelf = StateDirectory(tmp_path / "shelf")
    shelf.put("b", b"x")
    os.mkfifo(tmp_path / "shelf" / "a", 0o600)
    with pytest.raises(OSError, match="not a file of ours"):
        shelf.get("a")


def test_a_directory_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "shelf" / "a").mkdir(parents=True, mode=0o700)
    shelf = StateDirectory(tmp_path / "shelf")
    with pytest.raises(OSError, match="not a file of ours"):
        shelf.get("a")
    with pytest.raises(OSError, match="directory"):
        shelf.put("a", b"x")
    assert [path.name for path in (tmp_path / "shelf").iterdir()] == ["a"]


def test_a_file_in_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "shelf").write_bytes(b"")
    shelf = StateDirectory(tmp_path / "shelf")
    with pytest.raises(NotADirectoryError):
        shelf.get("a")
    with pytest.raises(OSError, match=r"exists|directory"):
        shelf.put("a", b"x")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    shelf = StateDirectory(tmp_path / "shelf", largest=3)
    shelf.put("a", b"four")
    with pytest.raises(OSError, match="not a file of ours"):
        shelf.get("a")


def test_many_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    whole = [bytes([number]) * 200_000 for number in range(1, 9)]
    shelves = [StateDirectory(tmp_path / "shelf") for _ in whole]
    shelves[0].put("a", whole[0])
    with ThreadPoolExecutor(9) as pool:
        writers = [pool.submit(shelf.put, "a", data) for shelf, data in zip(shelves, whole, strict=True)]
        readers = [pool.submit(shelves[0].get, "a") for _ in range(50)]
    assert all(reader.result() in whole for reader in readers)
    assert all(writer.result() is None for writer in writers)
    assert [path.name for path in (tmp_path / "shelf").iterdir()] == ["a"]


def test_old_files_and_halves_of_a_killed_writer_are_taken_away(tmp_path: Path) -> None:
    shelf = StateDirectory(tmp_path / "shelf")
    for name in ("old.listing", "fresh.listing", ".half.new", "of.somebody"):
        shelf.put(name, b"x")
    for name in ("old.listing", ".half.new", "of.somebody"):
        os.utime(tmp_path / "shelf" / name, (1000, 1000))
    shelf.tidy(".listing", before=2000)
    assert sorted(path.name for path in (tmp_path / "shelf").iterdir()) == ["fresh.listing", "of.somebody"]


def test_tidying_what_is_not_there_is_no_fault(tmp_path: Path) -> None:
    StateDirectory(tmp_path / "shelf").tidy(".listing", before=2000)
    assert not (tmp_path / "shelf").exists()
