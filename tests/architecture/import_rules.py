"""Rules on imports: levels, cycles, third parties, and modules that decide without waiting."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Final

from tests.architecture.source import PACKAGE, Complaint, Module, Rule, ours

LEVELS: Final = {
    "errors": 0, "clock": 0, "bounded_cache": 0,
    "wire": 1, "http1": 1, "config": 1, "paced_reader": 1,
    "model": 2,
    "backends": 3,
    "core": 4, "stages": 4,
    "fronts": 5,
    "app": 6,
    "cli": 7, "__init__": 7, "__main__": 7,
}  # fmt: skip
"""The levels of ARCHITECTURE.md. Imports go to lower ones only, lazy ones and those for type checking included."""

SIBLINGS: Final = {"__main__ -> cli": "`python -m mcp_manifold` is the command line"}

THIRD_PARTIES: Final = {
    "anyio": ("backends", "app"),
    "click": ("cli",),
    "dotenv": ("config",),
    "httptools": ("backends.http", "fronts.server"),
    "httpx2": ("cli",),
    "mcp": ("backends.link",),
    "mcp_types": ("backends.link",),
    "msgspec": ("wire", "model.catalogue", "backends", "fronts.http.pages", "app.future_reply"),
    "prometheus_client": ("fronts.http.metrics",),
    "pydantic": ("config", "backends.link.sdk"),  # the SDK raises pydantic's ValidationError, which ends there
    "pydantic_core": ("config",),
    "pydantic_settings": ("config",),
    "rich": ("cli",),
    "starlette": ("fronts.http.metrics", "fronts.http.pages"),
    "uvicorn": ("app",),
    "uvloop": ("cli",),
    "watchfiles": ("app",),
    # modules of the standard library that give power over the machine, or a way around a rule
    "ctypes": ("backends.process", "cli"),
    "fcntl": ("config",),
    "importlib": ("__init__", "backends.link", "app", "cli"),
    "os": ("config", "backends.http", "backends.process", "fronts.line_writer", "fronts.pipes", "cli"),
    "random": ("backends.life",),
    "secrets": ("model",),
    "select": ("config",),
    "signal": ("backends.process", "cli"),
    "socket": ("backends.http", "app"),
    "ssl": ("backends",),
    "subprocess": ("backends.process",),
    "threading": ("config", "backends.process", "fronts.pipes"),
    "time": ("clock", "fronts", "cli"),
}
"""Which packages may import what. A third party without a line here may not be imported at all."""

WAITING: Final = ("anyio", "asyncio", "concurrent", "select", "socket", "subprocess", "threading", "time")
VALUES: Final = {"asyncio.Future", "asyncio.CancelledError"}
"""Names of those that a pure module may use: types."""
PURE: Final = (
    "errors", "bounded_cache", "wire", "http1", "config", "model", "stages", "core.plan",
    "backends.calls.breaker", "backends.calls.request_policy", "backends.http.exchange",
    "backends.http.inflate", "backends.life.stats", "backends.link.isolation", "backends.link.meta_rewriter",
    "fronts.http.admission", "fronts.checks", "fronts.http.guard", "fronts.http.routes", "fronts.http_errors",
    "backends.link.monitors", "backends.link.server_requests", "backends.process.stderr_tail",
    "core.scope_responder", "core.notifications", "core.status",
)  # fmt: skip
"""Packages and modules that decide and never wait."""
IMPURE: Final = {
    "config.document": "reads files, and pipes that may never be written to",
    "config.load": "reads a file in a thread, because a file system may not answer",
}


def downwards(modules: list[Module]) -> Iterator[Complaint]:
    """Imports go to lower levels, and not to another package of the same level."""
    known = {module.name for module in modules}
    for module in modules:
        level = LEVELS.get(module.unit)
        if level is None:
            yield Complaint(module.path, f"{module.unit} has no level: add it to LEVELS and to ARCHITECTURE.md")
            continue
        for target, line in ours(module, known):
            unit, place = target.partition(".")[0], f"{module.path}:{line}"
            other = LEVELS.get(unit, -1)  # a complaint of its own
            if unit == module.unit:
                if unit == "stages" and target != module.name:
                    yield Complaint(place, f"imports {target}: a stage knows no other stage")
                if unit == "fronts" and module.name.count(".") == 1 < target.count("."):
                    yield Complaint(place, f"imports {target}: the folders of fronts import their parent")
            elif other > level:
                yield Complaint(place, f"imports {target}: level {level} may not import level {other}")
            elif other == level:
                key = f"{module.unit} -> {unit}"
                yield Complaint(place, f"imports {target}: two packages of level {level} do not import each other", key)


def acyclic(modules: list[Module]) -> Iterator[Complaint]:
    """No module imports itself by way of others, at any time."""
    known = {module.name for module in modules}
    graph = {module.name: {target for target, _ in ours(module, known)} - {module.name} for module in modules}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        yield Complaint(PACKAGE, "imports form a cycle: " + " <- ".join(exc.args[1]))


def licensed(modules: list[Module]) -> Iterator[Complaint]:
    """Third parties, and powerful parts of the standard library, are imported where the table says."""
    for module in modules:
        for found in module.imports:
            top, place = found.target.partition(".")[0], f"{module.path}:{found.line}"
            if top == PACKAGE or (top in sys.stdlib_module_names and top not in THIRD_PARTIES):
                continue
            if top not in THIRD_PARTIES:
                yield Complaint(place, f"imports {top}, which is not in THIRD_PARTIES")
            elif not is_in(module.name, THIRD_PARTIES[top]):
                yield Complaint(place, f"imports {top}: only {', '.join(THIRD_PARTIES[top])} may")


def pure(modules: list[Module]) -> Iterator[Complaint]:
    """Modules that decide have no clock, no task and no I/O."""
    for module in modules:
        if not is_in(module.name, PURE):
            continue
        for found in module.imports:
            top = found.target.partition(".")[0]
            names = re.findall(rf"(?<![.\w`]){top}\.\w+", module.text)  # in strings too, which may be annotations
            used = {found.target} if "." in found.target else set(names)
            if top in WAITING and not (used and used <= VALUES):
                text = f"imports {found.target}: it decides, it does not wait"
                yield Complaint(f"{module.path}:{found.line}", text, module.name)
        for function in module.functions():
            if isinstance(function, ast.AsyncFunctionDef):
                text, key = f"async def {function.name}: it decides, it does not wait", f"{module.name}:{function.name}"
                yield Complaint(f"{module.path}:{function.lineno}", text, key)


def is_in(name: str, places: tuple[str, ...]) -> bool:
    """Whether a module is one of these, or in one of these packages."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def idle_tables(modules: list[Module]) -> list[str]:
    """Rows of the tables above that nothing needs."""
    uses = {(found.target.partition(".")[0], module.name) for module in modules for found in module.imports}
    return [
        *(f"LEVELS: {unit}" for unit in LEVELS.keys() - {module.unit for module in modules}),
        *(f"PURE: {place}" for place in PURE if not any(is_in(module.name, (place,)) for module in modules)),
        *(f"THIRD_PARTIES: {top} in {place}" for top, places in THIRD_PARTIES.items() for place in places
          if not any(used == top and is_in(name, (place,)) for used, name in uses)),
    ]  # fmt: skip


RULES: Final = (
    Rule(
        downwards,
        (
            ("backends/x.py", "from mcp_manifold.core import hub", "imports core.hub: level 3 may not import level 4"),
            ("wire/x.py", "if TYPE_CHECKING:\n  import mcp_manifold.core.hub", "level 1 may not import level 4"),
            ("wire/x.py", "def f(): from mcp_manifold.core.hub import Hub", "level 1 may not import level 4"),
            ("wire/x.py", "import_module('mcp_manifold.core.hub')", "level 1 may not import level 4"),
            ("core/x.py", "from mcp_manifold import Manifold", "imports __init__: level 4 may not import level 7"),
            ("config/x.py", "from mcp_manifold import wire", "two packages of level 1 do not import each other"),
            ("stages/y.py", "import mcp_manifold.stages.x", "a stage knows no other stage"),
            (
                "fronts/x.py",
                "from mcp_manifold.fronts.http.guard import Gate",
                "the folders of fronts import their parent",
            ),
            ("plugins.py", "", "plugins has no level"),
        ),
        SIBLINGS,
    ),
    Rule(acyclic, (("core/hub.py", "def f(): import mcp_manifold.wire.x", "core.hub <- wire.x <- core.hub"),)),
    Rule(
        licensed,
        (
            ("core/x.py", "import mcp.types", "imports mcp: only backends.link may"),
            ("core/x.py", "def f(): import requests", "imports requests, which is not in THIRD_PARTIES"),
            ("core/x.py", "import subprocess", "imports subprocess: only backends.process may"),
        ),
    ),
    Rule(
        pure,
        (
            ("model/x.py", "import anyio", "imports anyio: it decides, it does not wait"),
            ("model/x.py", "import asyncio\nasyncio.sleep(1)", "imports asyncio"),
            ("wire/x.py", "from time import monotonic", "imports time.monotonic"),
            ("fronts/http/guard.py", "async def f(): pass", "async def f: it decides, it does not wait"),
        ),
        IMPURE,
    ),
)
