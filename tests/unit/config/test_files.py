"""Configuration files: lookup, changes, and the list of all files that were read."""

from pathlib import Path

import pytest

from mcp_manifold.config import directories, find, load, stamps
from mcp_manifold.config.document import candidates
from mcp_manifold.errors import ConfigError

SERVER = '{"mcpServers": {"%s": {"command": "x"}}}'


@pytest.mark.parametrize(
    ("platform", "environ", "path"),
    [
        ("linux", {"HOME": "/home/ada"}, "/home/ada/.config/mcp-manifold/config.json"),
        ("linux", {"HOME": "/home/ada", "XDG_CONFIG_HOME": "/etc/xdg"}, "/etc/xdg/mcp-manifold/config.json"),
        ("darwin", {"HOME": "/Users/ada"}, "/Users/ada/Library/Application Support/mcp-manifold/config.json"),
        ("darwin", {"HOME": "/Users/ada", "XDG_CONFIG_HOME": "/x"}, "/x/mcp-manifold/config.json"),
        ("win32", {"APPDATA": "/ada/Roaming"}, "/ada/Roaming/mcp-manifold/config.json"),
        ("win32", {"USERPROFILE": "/ada"}, "/ada/AppData/Roaming/mcp-manifold/config.json"),
    ],
)
def test_each_platform_has_its_own_directory(platform: str, environ: dict[str, str], path: str) -> None:
    assert candidates(environ, platform) == (Path("mcp-manifold.json"), Path(path))


def test_the_variable_wins_over_local_over_users_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, user = tmp_path / "work", tmp_path / "user"
    work.mkdir()
    monkeypatch.chdir(work)
    environ = {"XDG_CONFIG_HOME": str(user)}
    assert find(environ) is None
    (user / "mcp-manifold").mkdir(parents=True)
    (user / "mcp-manifold" / "config.json").write_text(SERVER % "users")
    assert load(environ=environ).servers[0].name == "users"
    (work / "mcp-manifold.json").write_text(SERVER % "local")
    assert load(environ=environ).servers[0].name == "local"
    (tmp_path / "named.json").write_text(SERVER % "named")
    assert load(environ={**environ, "MCP_MANIFOLD_CONFIG": str(tmp_path / "named.json")}).servers[0].name == "named"
    (tmp_path / "given.json").write_text(SERVER % "given")
    assert load(tmp_path / "given.json", environ=environ).servers[0].name == "given"


def test_the_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text(SERVER % "${NOT_A_REFERENCE_IN_A_KEY}")
    monkeypatch.setenv("MCP_MANIFOLD_CONFIG", str(path))
    monkeypatch.setenv("MCP_MANIFOLD_PORT", "7")
    assert find() == path
    settings = load()
    assert (settings.source, settings.manifold.port) == (str(path), 7)
    assert settings.servers[0].name == "${NOT_A_REFERENCE_IN_A_KEY}"


def test_a_missing_file_is_an_error_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"missing\.json: cannot be read: No such file or directory"):
        load(environ={"MCP_MANIFOLD_CONFIG": str(tmp_path / "missing.json")})
    with pytest.raises(ConfigError) as caught:
        load(environ={"XDG_CONFIG_HOME": str(tmp_path)})
    assert str(caught.value) == (
        f"no configuration file: looked for mcp-manifold.json, {tmp_path}/mcp-manifold/config.json; "
        "MCP_MANIFOLD_CONFIG can name another"
    )


def test_stamps_recognise_every_kind_of_change(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    seen = [stamps([str(file)])]
    file.write_text("{}")
    seen.append(stamps([str(file)]))
    assert stamps([str(file)]) == seen[-1]
    file.write_text("{ }")
    seen.append(stamps([str(file)]))
    (tmp_path / "new").write_text("{ }")
    (tmp_path / "new").replace(file)
    seen.append(stamps([str(file)]))
    file.unlink()
    file.symlink_to(file)
    seen.append(stamps([str(file)]))
    assert [seen.index(each) for each in seen] == [0, 1, 2, 3, 0]


def test_directories_include_those_of_symlinks(tmp_path: Path) -> None:
    for name in ("conf", "v1"):
        (tmp_path / name).mkdir()
    (tmp_path / "v1" / "mcp.json").write_text("{}")
    (tmp_path / "conf" / "..data").symlink_to(tmp_path / "v1")
    (tmp_path / "conf" / "mcp.json").symlink_to("..data/mcp.json")
    found = directories([str(tmp_path / "conf" / "mcp.json"), str(tmp_path / "gone" / ".env")])
    assert found == {str(tmp_path / "conf"), str(tmp_path / "conf" / "..data")}


def test_settings_name_every_file_they_were_read_from(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(
        """{"mcpServers": {
            "a": {"command": "x", "envFile": "${DIR:-sub}/a.env"},
            "b": {"url": "http://b", "headers": {"K": "${file:key}"}},
            "c": {"command": "x", "envFile": "${NOWHERE}"}
        }}"""
    )
    found = [str(Path(each).relative_to(tmp_path)) for each in load(file, environ={}).files]
    assert found == ["mcp.json", ".env", "key", "sub/a.env"]
