"""Every client against every backend, directly and through the manifold, and a table of what differs.

Owns the order of things; what is compared and how is in compare.py, what is asked in backends.py.
"""

import argparse
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import backends as catalogue
import cache as installation
import compare
import manifold
from backends import CallTarget, Ports, ReferenceServer
from cache import Cache
from clients import ClientProgram, Errand, clients, send
from processes import MARK, leftovers, marked

from tests.peers.processes import await_port, free_port, running

STARTUP = 5.0  # seconds: the manifold's own startupTimeout
SHOWN = 12  # differences printed for one cell; the reports have them all

Report = dict[str, Any]
Seen = dict[str, tuple[ReferenceServer, Report, str]]  # by backend
Known = dict[str, Seen]  # by client


@dataclass(frozen=True, slots=True)
class Site:
    """One run: what is installed, where its files are, and the environment of its processes."""

    cache: Cache
    work: Path
    reports: Path
    mark: str

    @property
    def environment(self) -> dict[str, str]:
        """For clients, which hand on to servers what their SDK hands on; and the mark."""
        return {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")} | {
            MARK: self.mark
        }

    @property
    def server_environment(self) -> dict[str, str]:
        """What a configuration says of a server's environment."""
        return {MARK: self.mark}

    @property
    def roots(self) -> list[dict[str, str]]:
        return [{"uri": (self.work / "files").as_uri(), "name": "files"}]


@dataclass(slots=True)
class CheckResults:
    """What was found, by client, front and backend; an empty list is a pass."""

    cells: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)

    def add(self, client: str, front: str, backend: str, differences: list[str]) -> None:
        self.cells[client, front, backend] = differences
        for line in differences[:SHOWN]:
            sys.stdout.write(f"      {backend}: {line}\n")
        if len(differences) > SHOWN:
            sys.stdout.write(f"      {backend}: and {len(differences) - SHOWN} more\n")
        sys.stdout.flush()

    @property
    def passed(self) -> bool:
        return not any(self.cells.values())

    def table(self, names: Sequence[str]) -> str:
        """A row per client and front, a column per backend."""
        rows: dict[tuple[str, str], dict[str, str]] = {}
        for (client, front, backend), differences in self.cells.items():
            rows.setdefault((client, front), {})[backend] = f"{len(differences)} differ" if differences else "pass"
        columns = [*names, *sorted({backend for _, _, backend in self.cells} - set(names))]
        lines = [["client", "front", *columns]]
        lines += [[*row, *(cells.get(name, "-") for name in columns)] for row, cells in rows.items()]
        widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
        return "\n".join(
            "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) for line in lines
        )


@contextmanager
def reference_servers(site: Site, ports: Ports) -> Iterator[None]:
    """The servers that are reached by URL, on this machine's own address only."""
    index = str(site.cache.package("server-everything") / "dist" / "index.js")
    preload = (installation.HERE / "loopback.mjs").as_uri()
    with ExitStack() as stack:
        for transport, port in (("streamableHttp", ports.http), ("sse", ports.sse)):
            command = [site.cache.node, "--import", preload, index, transport]
            log = site.work / f"everything-{transport}.log"
            process = stack.enter_context(running(command, log, env=site.environment | {"PORT": str(port)}))
            await_port(process, port, log)
        yield


def ask(site: Site, client: ClientProgram, where: str, target: CallTarget, parts: list[dict[str, Any]]) -> Report:
    """One client program's report."""
    errand = Errand(target, parts, site.roots, site.reports / f"{client.name}.{where}.json")
    return send(client, errand, site.environment)


@contextmanager
def nothing_left(site: Site, faults: list[str]) -> Iterator[None]:
    """Add to the faults what the block leaves running, and end it.

    Not around a client of a manifold that listens: what that starts for a client is the manifold's to end.
    """
    before = marked(site.mark)
    yield
    faults += [f"left running: {name}" for name in leftovers(site.mark, before)]


def direct(site: Site, client: ClientProgram, backend: ReferenceServer) -> tuple[Report, str, list[str]]:
    """A client with one backend and nothing between; what does not go as the steps say is a fault of this check."""
    token = secrets.token_hex(4)
    parts = [catalogue.part(backend, "", "", token)]
    faults: list[str] = []
    with nothing_left(site, faults):
        report = ask(site, client, f"direct.{backend.name}", backend.target, parts)
    outcomes = report["parts"].get(backend.name, {})
    faults += [compare.short(report["trouble"])] if "trouble" in report else []
    asked = [step for step in parts[0]["steps"] if step["id"] in outcomes]
    faults += [f"{step['id']}: {fault}" for step in asked for fault in compare.surprises(step, outcomes[step["id"]])]
    return report, token, faults


def through(site: Site, client: ClientProgram, front: str, target: CallTarget, known: Seen) -> dict[str, list[str]]:
    """A client with all backends behind the manifold: the differences, by backend."""
    token = secrets.token_hex(4)
    parts = [catalogue.part(backend, f"{name}__", backend.uri_prefix, token) for name, (backend, _, _) in known.items()]
    faults: list[str] = []
    with nothing_left(site, faults) if front == "stdio" else nullcontext():
        report = ask(site, client, front, target, parts)
    faults += [compare.short(report["trouble"])] if "trouble" in report else []
    found = {"(all)": faults}
    for asked in parts:
        backend, before, old = known[asked["backend"]]
        views = compare.ReportView("", "", old), compare.ReportView(asked["prefix"], backend.uri_prefix, token)
        found[backend.name] = compare.capability_differences(before, report)
        found[backend.name] += compare.list_differences(before, report, views)
        outcomes = report["parts"].get(backend.name, {})
        for step in asked["steps"]:
            if step["id"] in before["parts"].get(backend.name, {}):
                pair = before["parts"][backend.name][step["id"]], outcomes.get(step["id"], {"failed": "not done"})
                found[backend.name] += compare.step_differences(step, *pair, views)
    return found


def check_direct(
    site: Site, programs: list[ClientProgram], servers: list[ReferenceServer], results: CheckResults
) -> Known:
    """All clients with all backends, one to one."""
    known: Known = {}
    for client in programs:
        sys.stdout.write(f"{client.name} direct\n")
        for backend in servers:
            report, token, faults = direct(site, client, backend)
            known.setdefault(client.name, {})[backend.name] = (backend, report, token)
            results.add(client.name, "direct", backend.name, faults)
    return known


def check_through(site: Site, programs: list[ClientProgram], known: Known, results: CheckResults, options: Any) -> None:
    """All clients at all fronts, with the same backends behind."""
    servers = [backend for backend, _, _ in next(iter(known.values())).values()]
    config = site.work / "config.json"
    config.write_text(json.dumps(manifold.configuration(servers, sys.executable, site.server_environment), indent=2))
    listening = [front for front in options.front if front != "stdio"]
    if listening:
        left: list[str] = []
        with nothing_left(site, left), manifold.serving(options.manifold, config, site.environment) as serving:
            missing = manifold.unlisted(serving, servers, options.startup_timeout)
            late = [f"not listed within {options.startup_timeout} s: {name}" for name in missing]
            results.add("(startup)", "http", "(all)", late)
            for front in listening:
                check_front(site, programs, front, serving.target(front), known, results)
        results.add("(shutdown)", "http", "(all)", left)
    if "stdio" in options.front:
        target = manifold.stdio_target(options.manifold, config, site.environment)
        check_front(site, programs, "stdio", target, known, results)


def check_front(
    site: Site, programs: list[ClientProgram], front: str, target: CallTarget, known: Known, results: CheckResults
) -> None:
    """All clients at one front."""
    for client in programs:
        sys.stdout.write(f"{client.name} {front}\n")
        for backend, differences in through(site, client, front, target, known[client.name]).items():
            results.add(client.name, front, backend, differences)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="run", description="Check mcp-manifold with MCP servers and clients of others."
    )
    parser.add_argument("--direct", action="store_true", help="only clients with servers, nothing between")
    parser.add_argument("--front", action="append", choices=manifold.FRONTS, help="only this front (may be repeated)")
    parser.add_argument("--client", action="append", metavar="NAME", help="only this client (may be repeated)")
    parser.add_argument("--backend", action="append", metavar="NAME", help="only this backend (may be repeated)")
    parser.add_argument("--manifold", default=manifold.of_this_checkout(), metavar="COMMAND", help="%(default)s")
    parser.add_argument("--startup-timeout", type=float, default=STARTUP, help="seconds (%(default)s)")
    parser.add_argument("--cache", type=Path, default=installation.default_root(), help="%(default)s")
    parser.add_argument("--reports", type=Path, help="where jobs and reports are kept (CACHE/reports)")
    options = parser.parse_args(arguments)
    options.front = options.front or list(manifold.FRONTS)
    return options


def chosen(items: list[Any], names: list[str] | None) -> list[Any]:
    """The items of those names, or all; a name that nothing has is a mistake."""
    known = [item.name for item in items]
    unknown = sorted(set(names or []) - set(known))
    if unknown:
        raise SystemExit(f"{', '.join(unknown)}: not among {', '.join(known)}")
    return [item for item in items if names is None or item.name in names]


def main(arguments: Sequence[str] | None = None) -> int:
    """Install, check, print the table; 1 if anything differs."""
    options = options_of(arguments)
    cache = installation.install(options.cache)
    reports: Path = options.reports or options.cache / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    results = CheckResults()
    with tempfile.TemporaryDirectory(prefix="interop-") as directory:
        site = Site(cache, Path(directory).resolve(), reports, secrets.token_hex(8))
        catalogue.prepare(site.work)
        ports = Ports(free_port(), free_port())
        servers = chosen(catalogue.backends(cache, site.work, ports, site.server_environment), options.backend)
        programs = chosen(clients(cache), options.client)
        with reference_servers(site, ports):
            known = check_direct(site, programs, servers, results)
            if not options.direct:
                check_through(site, programs, known, results, options)
    sys.stdout.write(f"\n{results.table([backend.name for backend in servers])}\n\nreports: {reports}\n")
    return 0 if results.passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
