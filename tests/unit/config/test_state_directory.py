"""The state directory: private, atomic and never blocking. The notes of running instances."""

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcp_manifold.config.state_directory import Announced, StateDirectory, running


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_get_returns_what_put_wrote(tmp_path: Path) -> None:
    store = StateDirectory(tmp_path / "deep" / "store")
    assert store.get("a") is None
    for data in (b"", b"one", b"\0" * (3 << 20), b"two"):
        store.put("a", data)
        assert store.get("a") == data
    assert [path.name for path in (tmp_path / "deep" / "store").iterdir()] == ["a"]


@pytest.mark.parametrize("mode_before", [None, 0o755])
def test_files_are_readable_by_their_user_only(tmp_path: Path, mode_before: int | None) -> None:
    before = os.umask(0)
    try:
        if mode_before:
            (tmp_path / "store").mkdir(mode=mode_before)
        store = StateDirectory(tmp_path / "store")
        assert store.get("a") is None
        store.put("a", b"x")
    finally:
        os.umask(before)
    assert (mode(tmp_path / "store"), mode(tmp_path / "store" / "a")) == (0o700, 0o600)


@pytest.mark.parametrize("bits", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, bits: int) -> None:
    store = StateDirectory(tmp_path / "store")
    store.put("a", b"x")
    (tmp_path / "store" / "a").chmod(bits)
    with pytest.raises(PermissionError, match="others may write it"):
        store.get("a")
    store.put("a", b"y")
    assert store.get("a") == b"y"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("which", ["", "a"])
def test_a_file_or_directory_of_another_user_is_not_read(tmp_path: Path, which: str) -> None:
    store = StateDirectory(tmp_path / "store")
    store.put("a", b"x")
    os.chown(tmp_path / "store" / which, 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to another user"):
        store.get("a")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    store = StateDirectory(tmp_path / "store")
    store.put("real", b"x")
    (tmp_path / "store" / "a").symlink_to("real")
    with pytest.raises(OSError, match=r"symbolic|Too many levels"):
        store.get("a")
    store.put("a", b"y")
    assert (store.get("a"), store.get("real")) == (b"y", b"x")


def test_a_large_file_a_pipe_and_a_directory_are_not_read(tmp_path: Path) -> None:
    store = StateDirectory(tmp_path / "store", largest=3)
    store.put("large", b"four")
    os.mkfifo(tmp_path / "store" / "pipe", 0o600)
    (tmp_path / "store" / "directory").mkdir(mode=0o700)
    for name in ("large", "pipe", "directory"):
        with pytest.raises(OSError, match="not a file of ours"):
            store.get(name)
    with pytest.raises(OSError, match="directory"):
        store.put("directory", b"x")
    assert len(list((tmp_path / "store").iterdir())) == 3


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    store = StateDirectory(tmp_path / "store")
    with pytest.raises(NotADirectoryError):
        store.get("a")
    with pytest.raises(OSError, match=r"exists|directory"):
        store.put("a", b"x")


def test_concurrent_writers_leave_one_complete_file(tmp_path: Path) -> None:
    whole = [bytes([number]) * 200_000 for number in range(1, 9)]
    stores = [StateDirectory(tmp_path / "store") for _ in whole]
    stores[0].put("a", whole[0])
    with ThreadPoolExecutor(9) as pool:
        writers = [pool.submit(store.put, "a", data) for store, data in zip(stores, whole, strict=True)]
        readers = [pool.submit(stores[0].get, "a") for _ in range(50)]
    assert all(reader.result() in whole for reader in readers)
    assert all(writer.result() is None for writer in writers)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a"]


def test_old_and_unfinished_files_are_deleted(tmp_path: Path) -> None:
    store = StateDirectory(tmp_path / "store")
    store.tidy(".listing", before=2000)
    assert not (tmp_path / "store").exists()
    for name in ("old.listing", "fresh.listing", ".half.new", "of.somebody"):
        store.put(name, b"x")
    for name in ("old.listing", ".half.new", "of.somebody"):
        os.utime(tmp_path / "store" / name, (1000, 1000))
    store.tidy(".listing", before=2000)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["fresh.listing", "of.somebody"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mcp.json"
    path.write_text("{}")
    return path


def test_an_instance_is_found_while_it_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "notes"
    with Announced(file, notes) as note:
        (found,) = running(file, notes)
        assert (found.pid, found.is_alive, found.told()) == (os.getpid(), True, (0, {}))
        monkeypatch.chdir(tmp_path)
        assert running(Path("mcp.json"), notes) == (found,)
        assert running(tmp_path / "other.json", notes) == ()
        note.tell(3, {"error": "why"})
        assert found.told() == (3, {"error": "why"})
        assert {each.stat().st_mode & 0o777 for each in notes.iterdir()} == {0o600}
        assert notes.stat().st_mode & 0o777 == 0o700
    assert (running(file, notes), found.is_alive, list(notes.iterdir())) == ((), False, [])


def test_the_note_of_a_killed_instance_is_removed(file: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from mcp_manifold.config.state_directory import Announced\n"
        "Announced(*map(pathlib.Path, sys.argv[1:])).open(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(file), str(tmp_path / "notes")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "notes").glob("*.json"))) == 1
    assert running(file, tmp_path / "notes") == ()
    assert list((tmp_path / "notes").iterdir()) == []


def test_an_unsafe_notes_directory_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "notes").symlink_to(tmp_path / "there")
    with pytest.raises(PermissionError):
        Announced(file, tmp_path / "notes").open()
