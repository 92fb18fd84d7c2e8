"""The client programs, in the eras they speak, and how a job is given to one; knows no backend and no outcome."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import HERE, Cache
from processes import run

DEADLINE = 25  # seconds for one request of a client; a hanging server would hang the client
AT_MOST = 600  # seconds for one client program: the inspector starts all servers anew for each of its commands

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClientProgram:
    """One client program in one era."""

    name: str
    era: str
    command: tuple[str, ...]
    more: tuple[str, ...] = ()


def clients(cache: Cache) -> list[ClientProgram]:
    """All of them; "auto" is what the program does when it is told nothing, or probes."""
    programs = HERE / "clients"
    new = (sys.executable, str(programs / "py23.py"))
    old = (cache.python("py130"), str(programs / "py130.py"))
    typescript_1 = (cache.node, str(cache.npm / "ts1.mjs"))
    typescript_2 = (cache.node, str(cache.npm / "ts2.mjs"))
    inspector = (sys.executable, str(programs / "inspector.py"))
    launcher = (cache.node, str(cache.package("inspector") / "clients" / "launcher" / "build" / "index.js"))
    return [
        ClientProgram("py23", "auto", new),
        ClientProgram("py23-handshake", "handshake", new),
        ClientProgram("py130", "handshake", old),
        ClientProgram("ts1", "handshake", typescript_1),
        ClientProgram("ts2", "auto", typescript_2),
        ClientProgram("ts2-handshake", "handshake", typescript_2),
        ClientProgram("inspector", "handshake", inspector, launcher),
        ClientProgram("inspector-auto", "auto", inspector, launcher),
    ]


@dataclass(frozen=True, slots=True)
class Errand:
    """One job for one client, and where its papers go."""

    target: dict[str, Any]
    parts: list[dict[str, Any]]
    roots: list[dict[str, str]]
    paper: Path


def send(client: ClientProgram, errand: Errand, environment: dict[str, str]) -> Report:
    """Have the client do the job; its report, or what became of it instead."""
    job = {"target": errand.target, "era": client.era, "deadline": DEADLINE, "roots": errand.roots}
    errand.paper.write_text(json.dumps(job | {"parts": errand.parts}, indent=1))
    done = run([*client.command, str(errand.paper), *client.more], environment, AT_MOST)
    try:
        report: Report = json.loads(done.stdout)
    except ValueError:
        report = {"trouble": {"failed": f"exit {done.code}", "message": done.said}, "parts": {}}
    report["stderr"] = done.stderr[-4000:]
    errand.paper.with_suffix(".report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False))
    return report
