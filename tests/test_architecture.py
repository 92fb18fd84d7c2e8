"""Holds the source to ARCHITECTURE.md: layers, third parties, state, names, sizes. Reads the text; runs none of it.

The tables at the top are the rules. A licence that nobody needs any more fails as well, so that the tables stay as
tight as the source is. To change a rule, change its line here and the page, in the same commit as the code.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = "mcp_manifold"
SOURCE: Final = ROOT / "src" / PACKAGE
PAGE: Final = (ROOT / "ARCHITECTURE.md").read_text("utf-8")

LEVELS: Final[dict[str, int]] = {
    "errors": 0, "names": 0,
    "budget": 1, "config": 1, "heads": 1, "paging": 1, "sse": 1, "wire": 1,
    "catalogue": 2,
    "absences": 3, "capabilities": 3, "lookup": 3, "policy": 3, "subscriptions": 3,
    "call": 4, "filtering": 4,
    "backends": 5, "embedding": 5, "stages": 5,
    "hub": 6, "listen": 6, "tasktable": 6,
    "bridge": 7, "lane": 7, "lists": 7, "loglevels": 7, "notes": 7, "offering": 7, "router": 7, "status": 7,
    "strangers": 7, "tasks": 7, "watching": 7,
    "fronts": 8, "parts": 8, "source": 8,
    "app": 9, "reloading": 9, "serving": 9,
    "__init__": 10, "cli": 10, "logs": 10, "__main__": 10,
}  # fmt: skip
"""Imports go to lower numbers only, lazy ones and those for type checking included."""

SIBLINGS: Final = {
    ("lane", "router"),
    ("lane", "tasks"),
    ("lists", "offering"),
    ("notes", "strangers"),
    ("router", "bridge"),
    ("watching", "tasks"),
    ("app", "reloading"),
    ("app", "serving"),
    ("cli", "logs"),
    ("__main__", "cli"),
}
"""The imports between two of one level that are allowed, as (who, whom)."""

SYNCHRONOUS: Final = 3
"""Up to this level nothing waits, and nothing has a clock."""
PURE: Final = {
    "backends/breaker.py", "backends/deadlines.py", "backends/http1/exchange.py", "backends/http1/inflate.py",
    "backends/http1/request.py", "backends/lifecycle.py", "backends/lines.py", "backends/outage.py",
    "backends/repeating.py", "backends/stamping.py", "backends/turns.py", "fronts/auth.py", "fronts/guard.py",
    "fronts/http1/unfit.py", "fronts/inbound.py", "fronts/routes.py",
}  # fmt: skip
"""Files of higher levels that decide and do not wait either."""
WAITING: Final = ("asyncio", "anyio", "threading", "time", "socket", "subprocess")

IMPORTERS: Final[dict[str, tuple[str, ...]]] = {
    "anyio": ("backends/", "hub.py", "parts.py", "reloading.py", "source.py"),
    "click": ("cli/",),
    "dotenv": ("config/document.py",),
    "httptools": ("backends/http1/connection.py", "fronts/http1/"),
    "httpx2": ("cli/status.py",),
    "json5": ("config/syntax.py",),
    "mcp": ("backends/sdk.py",),
    "mcp_types": ("backends/sdk.py",),
    "msgspec": ("backends/", "catalogue/payload.py", "embedding.py", "fronts/site.py", "wire/"),
    "prometheus_client": ("fronts/metrics.py",),
    "pydantic": ("config/", "backends/sdk.py"),  # the SDK raises its ValidationError, which ends there
    "pydantic_core": ("config/",),
    "pydantic_settings": ("config/variables.py",),
    "rich": ("cli/",),
    "starlette": ("fronts/metrics.py", "fronts/site.py"),
    "uvicorn": ("serving.py",),
    "uvloop": ("cli/running.py",),
    "watchfiles": ("reloading.py",),
    # parts of the standard library that are a power, or a way around a rule
    "importlib": ("__init__.py", "backends/unopened.py", "parts.py", "cli/root.py"),
    "os": (
        "backends/http1/pool.py",
        "backends/orphans.py",
        "backends/process.py",
        "cli/reload.py",
        "cli/root.py",
        "cli/running.py",
        "config/",
        "fronts/linewriter.py",
        "fronts/pipes.py",
    ),
    "random": ("backends/life.py",),
    "signal": ("backends/orphans.py", "backends/process.py", "backends/stdio.py", "cli/"),
    "socket": ("backends/http1/", "serving.py"),
    "ssl": ("backends/connect.py", "backends/http1/"),
    "subprocess": ("backends/process.py", "backends/shell.py", "backends/stdio.py", "backends/warden.py"),
    "threading": ("backends/process.py", "fronts/pipes.py"),
    "time": (
        "backends/link.py",
        "call.py",
        "cli/check.py",
        "cli/reload.py",
        "cli/status.py",
        "fronts/lag.py",
        "logs.py",
        "stages/calllog.py",
        "stages/metrics.py",
    ),
}
"""Who may import what. A third party that has no line here may not be imported at all."""

NAMES: Final[dict[str, tuple[str, dict[str, str]]]] = {
    ".create_task": (
        "a task that nobody owns",
        {
            "parts.py": "the fleet's; cancelled and waited for when the Manifold is left",
            "lane.py": "one for each call that went on by the long way; kept in a set",
            "fronts/http1/connection.py": "one for each request of the long way; the server waits for them",
            "backends/http1/dial.py": "the race's attempts; called off in a finally",
            "backends/http1/pool.py": "one for each connection being opened; the pool cancels them",
            "cli/serve.py": "a task group's, ended in a finally",
            "cli/stdio.py": "the same",
            "fronts/conversation.py": "one for each call of a channel; the conversation keeps them in a set",
            "fronts/responder.py": "one for each answer that became a stream; kept until it is sent",
            "fronts/stdio.py": "the front's writer; ended in its own run",
            "fronts/stream.py": "the watch for a disconnect; cancelled where it was started",
            "reloading.py": "its own, and that of the watch on files; ended in `stop`, and in a finally",
        },
    ),
    ".ensure_future": ("a task that nobody owns", {}),
    ".sleep": (
        "waiting for the clock instead of an event",
        {
            "backends/stdio.py": "a group's end can only be asked",
            "cli/reload.py": "what another process did can only be asked",
            "cli/status.py": "the pace of --watch, in a process of its own",
            "bridge.py": "the pace of calls repeated with a state alone, where there is no event to wait for",
            "router.py": "of no time at all: the turn of others within a long result",
        },
    ),
    "time.time": ("a clock that jumps; use the loop's, or monotonic", {}),
    "print": ("stdout may be the protocol's", {}),
    "unittest.mock": ("fakes, not mocks", {}),
    "os.environ": (
        "config/ is the only reader of the environment",
        {"config/": ""},
    ),
    "os.getenv": ("config/ is the only reader of the environment", {}),
    "open": ("config/ is the only reader of files", {}),
    ".read_text": ("config/ is the only reader of files", {"config/": ""}),
    ".read_bytes": (
        "config/ is the only reader of files",
        {"backends/orphans.py": "/proc, which is no file"},
    ),
    ".lru_cache": ("state of a module", {}),
    "functools.cache": ("state of a module", {}),
}
"""Names that may not be used, why, and where one may be nevertheless. A leading dot: whatever stands before it."""

EVERYTHING: Final = ("Exception", "BaseException")
BROAD: Final = {
    "backends/life.py:_live_once": "the owner task's boundary",
    "backends/held.py:_own": "the owner task's boundary, for one client's link",
    "fronts/flight.py:answered": "the front's boundary, for a call",
    "fronts/http.py:__call__": "the front's boundary, for a request",
    "fronts/lists.py:listed": "the front's boundary, for a list on the short way",
    "fronts/shortcut.py:over": "the front's boundary, for a call on the short way",
    "lane.py:_end": "a defect must not reach who reads from the backend; whoever is told has the boundary",
    "reloading.py:_reloaded": "the task's boundary",
}
"""Where everything may be caught and not raised again."""

LAZY: Final = {
    "__init__.py:__getattr__": "only who asks for the heavy names pays for them",
    "cli/opening.py:_manifold": "--help comes up without the protocol's libraries; this file is the door to them",
    "cli/opening.py:_settings": "the same",
    "cli/opening.py:_find": "the same",
    "cli/opening.py:_schema": "the same",
    "cli/opening.py:_announced": "the same",
    "cli/opening.py:_running": "the same",
    "config/document.py:dotenv_of": "only who has such a file needs the library that reads it",
    "config/layers.py:_said_by": "only who sets variables of ours needs the library that reads them",
    "config/reading.py:_thoroughly": "only what is more than plain JSON, or wrong, needs its library",
    "cli/status.py:_got": "only this command asks over HTTP, and its client takes long to import",
    "cli/root.py:_print_version": "the version is asked for alone",
    "cli/running.py:_loop_factory": "not there on Windows",
}
"""Functions that may import."""

FILE_LINES: Final = 450
FUNCTION_LINES: Final = 60

MUTABLE: Final = {
    "list", "dict", "set", "bytearray", "deque", "defaultdict", "OrderedDict", "Counter", "ChainMap", "Queue", "Lock",
    "SimpleQueue", "RLock", "Event", "Semaphore", "Condition", "ContextVar", "WeakKeyDictionary", "WeakSet", "count",
    "WeakValueDictionary", "cycle",
}  # fmt: skip
DISPLAYS: Final = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
CHANGES: Final = {
    "append", "add", "update", "pop", "popitem", "clear", "extend", "insert", "remove", "discard", "setdefault", "sort",
}  # fmt: skip

NOUNS: Final = (
    "Backend", "Link", "Lifecycle", "Fleet", "Listing", "Entry", "Catalogue", "Naming", "Principal", "Policy", "Call",
    "Stage", "Session", "Front", "Hub", "Bridge", "UnavailableServer", "Change",
)  # fmt: skip
"""The project's vocabulary. Those that are a class, or an alias, are defined in one file; the others name a file."""


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """One source file: its path below the package, its text, what the text means."""

    path: str
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Dotted, below the package; a package's own name for its `__init__.py`."""
        parts = self.path.removesuffix(".py").split("/")
        return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)

    @property
    def unit(self) -> str:
        """The row of the level table it belongs to."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Import:
    """One imported name, absolute; `inside` is the function it is in, or empty."""

    target: str
    line: int
    inside: str


Check = Callable[[list[Module]], Iterator[str]]


def parsed(path: str, text: str) -> Module:
    return Module(path, text, ast.parse(text, path))


@pytest.fixture(scope="module")
def source() -> list[Module]:
    files = sorted(SOURCE.rglob("*.py"))
    return [parsed(file.relative_to(SOURCE).as_posix(), file.read_text("utf-8")) for file in files]


def walk(tree: ast.AST, inside: str = "") -> Iterator[tuple[ast.AST, str]]:
    """Every node, with the function around it."""
    for node in ast.iter_child_nodes(tree):
        yield node, inside
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from walk(node, getattr(node, "name", "") if is_function else inside)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name; `.c` of an attribute of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def imports(module: Module) -> Iterator[Import]:
    """All of them: at the top, in functions, for type checking, and by a name given to an importing function."""
    for node, inside in walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(f"{node.module}.{alias.name}", node.lineno, inside) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and module.path != "__init__.py":
            if re.fullmatch(rf"{PACKAGE}(\.\w+)+", node.value) and node.value != f"{PACKAGE}.{module.name}":
                yield Import(node.value, node.lineno, "")
        elif isinstance(node, ast.Call) and dotted(node.func) == "deferred" and isinstance(node.args[0], ast.Constant):
            yield Import(f"{PACKAGE}.{node.args[0].value!s}", node.lineno, "")


def ours(module: Module, known: set[str]) -> Iterator[tuple[str, int]]:
    """The modules of this package that a module imports."""
    for found in imports(module):
        top, _, below = found.target.partition(".")
        if top == PACKAGE:
            yield (below if below in known else below.rpartition(".")[0] or "__init__"), found.line


# --- the rules ----------------------------------------------------------------------------------------------------


def downwards(modules: list[Module]) -> Iterator[str]:
    known = {module.name for module in modules}
    for module in modules:
        level = LEVELS.get(module.unit)
        if level is None:
            yield f"{module.path}: {module.unit} has no level; give it one in LEVELS and in ARCHITECTURE.md"
            continue
        for target, line in ours(module, known):
            unit = target.partition(".")[0]
            other = LEVELS.get(unit, -1)  # a complaint of its own
            place = f"{module.path}:{line} imports {target}"
            if unit == module.unit:
                if unit == "stages" and target != module.name:
                    yield f"{place}: a stage knows no other stage"
            elif other > level:
                yield f"{place}: level {level} may not import level {other}"
            elif other == level and (module.unit, unit) not in SIBLINGS:
                yield f"{place}: two of level {level} do not import each other"


def acyclic(modules: list[Module]) -> Iterator[str]:
    known = {module.name for module in modules}
    graph = {module.name: {target for target, _ in ours(module, known)} - {module.name} for module in modules}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        yield "imports go in a circle: " + " <- ".join(exc.args[1])


def licensed_imports(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        for found in imports(module):
            top = found.target.partition(".")[0]
            if top == PACKAGE or (top in sys.stdlib_module_names and top not in IMPORTERS):
                continue
            if top not in IMPORTERS:
                yield f"{module.path}:{found.line} imports {top}, which is not in the third-party table"
            elif not module.path.startswith(IMPORTERS[top]):
                allowed = ", ".join(IMPORTERS[top]) or "nobody"
                yield f"{module.path}:{found.line} imports {top}: only {allowed} may"


def still(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        if LEVELS.get(module.unit, 99) > SYNCHRONOUS and module.path not in PURE:
            continue
        for found in imports(module):
            if found.target.partition(".")[0] in WAITING:
                yield f"{module.path}:{found.line} imports {found.target}: it decides, it does not wait"
        for node, _ in walk(module.tree):
            if isinstance(node, ast.AsyncFunctionDef):
                yield f"{module.path}:{node.lineno} async def {node.name}: it decides, it does not wait"


def at_the_top(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        for found in imports(module):
            if found.inside and f"{module.path}:{found.inside}" not in LAZY:
                yield f"{module.path}:{found.line} imports {found.target} inside {found.inside}(): import it at the top"


def stateless(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        finals = set()
        for node in module.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            value = getattr(node, "value", None)
            name = dotted(targets[0]) if targets[0] is not None else ""
            is_final = isinstance(node, ast.AnnAssign) and "Final" in ast.unparse(node.annotation)
            if isinstance(value, ast.Call) and dotted(value.func).rpartition(".")[2] in MUTABLE:
                yield f"{module.path}:{value.lineno} {name} is a mutable object of the module: give it an owner"
            elif isinstance(value, DISPLAYS) and is_final:
                finals.add(name)
            elif isinstance(value, DISPLAYS) and name != "__all__":
                yield f"{module.path}:{value.lineno} {name} can be changed: annotate it Final, or make it immutable"
        yield from (f"{module.path}:{line} changes {name}, a constant" for name, line in changes(module, finals))


def changes(module: Module, constants: set[str]) -> Iterator[tuple[str, int]]:
    for node, _ in walk(module.tree):
        if isinstance(node, ast.Global):
            yield from ((name, node.lineno) for name in node.names)
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load) and dotted(node.value) in constants:
            yield dotted(node.value), node.lineno
        elif isinstance(node, ast.Call):
            name, _, method = dotted(node.func).rpartition(".")
            if name in constants and method in CHANGES:
                yield name, node.lineno


def matches(rule: str, name: str) -> bool:
    return name.endswith(rule) if rule.startswith(".") else name == rule or name.startswith(f"{rule}.")


def uses(module: Module) -> Iterator[tuple[str, int]]:
    """Every name that is imported, called or read as an attribute."""
    yield from ((found.target, found.line) for found in imports(module))
    for node, _ in walk(module.tree):
        if isinstance(node, ast.Attribute):
            yield dotted(node), node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node.lineno


def unbanned(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        for name, line in uses(module):
            for rule, (reason, licences) in NAMES.items():
                if matches(rule, name) and not module.path.startswith(tuple(licences)):
                    yield f"{module.path}:{line} uses {name}: {reason}"
        for node, _ in walk(module.tree):
            if isinstance(node, ast.Raise) and node.exc and "NotImplementedError" in ast.unparse(node.exc):
                yield f"{module.path}:{node.lineno} raises NotImplementedError: no stubs"


def broad(module: Module) -> Iterator[tuple[str, int]]:
    """The function and line of everything that swallows whatever comes."""
    for node, inside in walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "BaseException"
            last = node.body[-1]
            if isinstance(last, ast.With | ast.AsyncWith):  # what is cleaned up in a context is raised from inside it
                last = last.body[-1]
            reraised = node.type is not None and isinstance(last, ast.Raise) and last.exc is None
            if re.search(r"\b(Base)?Exception\b", caught) and not reraised:
                yield inside, node.lineno
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("suppress"):
            yield from ((inside, node.lineno) for name in map(dotted, node.args) if name in EVERYTHING)


def narrow(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        for inside, line in broad(module):
            if f"{module.path}:{inside}" not in BROAD:
                yield f"{module.path}:{line} catches everything in {inside}(): name what can happen"


def small(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        lines = len(module.text.splitlines())
        if lines > FILE_LINES:
            yield f"{module.path} has {lines} lines: {FILE_LINES} at most"
        for node, _ in walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    yield f"{module.path}:{node.lineno} {node.name}() has {length} lines: {FUNCTION_LINES} at most"


def introduced(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        if not ast.get_docstring(module.tree):
            yield f"{module.path} does not say what it owns and what it refuses to know"


RULES: Final[tuple[Check, ...]] = (
    downwards, acyclic, licensed_imports, still, at_the_top, stateless, unbanned, narrow, small, introduced,
)  # fmt: skip


# --- the tests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_keeps_the_rule(rule: Check, source: list[Module]) -> None:
    found = dict.fromkeys(rule(source))
    assert not found, "\n" + "\n".join(found)


WRONG: Final = (
    (downwards, "backends/x.py", "from mcp_manifold import hub", "backends/x.py:1 imports hub: level 5 may not import"),
    (
        downwards,
        "wire/x.py",
        "if TYPE_CHECKING:\n  import mcp_manifold.core.hub",
        "wire/x.py:2 imports hub: level 1 may not",
    ),
    (
        downwards,
        "wire/x.py",
        "def f(): from mcp_manifold.core.hub import Hub",
        "imports hub: level 1 may not import level 6",
    ),
    (downwards, "wire/x.py", "import_module('mcp_manifold.core.hub')", "imports hub: level 1 may not import level 6"),
    (downwards, "wire/x.py", "deferred('hub')", "imports hub: level 1 may not import level 6"),
    (downwards, "hub.py", "from mcp_manifold import Manifold", "imports __init__: level 6 may not import level 10"),
    (downwards, "names.py", "from mcp_manifold.errors import E", "two of level 0 do not import each other"),
    (downwards, "stages/y.py", "import mcp_manifold.stages.x", "a stage knows no other stage"),
    (downwards, "plugins.py", "", "plugins has no level"),
    (acyclic, "hub.py", "def f(): import mcp_manifold.wire.x", "hub <- wire.x <- hub"),
    (licensed_imports, "hub.py", "import mcp.types", "hub.py:1 imports mcp: only backends/sdk.py may"),
    (licensed_imports, "hub.py", "def f(): import requests", "imports requests, which is not in the third-party table"),
    (licensed_imports, "hub.py", "import subprocess", "imports subprocess: only backends/process.py"),
    (still, "policy.py", "import anyio", "imports anyio: it decides, it does not wait"),
    (still, "fronts/guard.py", "async def f(): pass", "async def f: it decides, it does not wait"),
    (at_the_top, "hub.py", "def f():\n  import json", "hub.py:2 imports json inside f()"),
    (stateless, "hub.py", "SEEN = {}", "SEEN can be changed"),
    (stateless, "hub.py", "SEEN: Final = collections.deque()", "SEEN is a mutable object of the module"),
    (stateless, "hub.py", "SEEN: Final = {}\ndef f(): SEEN['a'] = 1", "hub.py:2 changes SEEN"),
    (stateless, "hub.py", "SEEN: Final = []\ndef f(): SEEN.append(1)", "hub.py:2 changes SEEN"),
    (stateless, "hub.py", "def f():\n  global seen", "hub.py:2 changes seen"),
    (unbanned, "hub.py", "asyncio.get_running_loop().create_task(f())", "uses .create_task: a task that nobody owns"),
    (unbanned, "hub.py", "from asyncio import sleep", "uses asyncio.sleep"),
    (unbanned, "hub.py", "from time import time", "uses time.time"),
    (unbanned, "hub.py", "os.environ.get('A')", "uses os.environ"),
    (unbanned, "hub.py", "print(1)", "uses print"),
    (unbanned, "hub.py", "def f(): raise NotImplementedError", "raises NotImplementedError: no stubs"),
    (narrow, "hub.py", "def f():\n try: g()\n except: raise", "hub.py:3 catches everything in f()"),
    (narrow, "hub.py", "def f():\n try: g()\n except (A, Exception): pass", "catches everything in f()"),
    (narrow, "hub.py", "with suppress(Exception): f()", "catches everything"),
    (small, "hub.py", "\n" * 401, "hub.py has 401 lines: 400 at most"),
    (small, "hub.py", "def f():\n" + "  g()\n" * 60, "f() has 61 lines: 60 at most"),
    (introduced, "hub.py", "import json", "hub.py does not say what it owns"),
)


@pytest.mark.parametrize(("rule", "path", "text", "complaint"), WRONG)
def test_a_rule_catches_what_it_is_for(rule: Check, path: str, text: str, complaint: str) -> None:
    around = {"hub.py": "", "wire/__init__.py": "", "wire/x.py": "import mcp_manifold.core.hub", "errors.py": "",
              "stages/x.py": "", "__init__.py": "", path: text}  # fmt: skip
    found = "\n".join(rule([parsed(name, body) for name, body in around.items()]))
    assert complaint in found


def test_what_cleans_up_and_raises_again_is_not_broad() -> None:
    text = "def f():\n try: g()\n except BaseException:\n  h()\n  raise"
    assert not list(broad(parsed("hub.py", text)))


def test_no_licence_outlives_its_need(source: list[Module]) -> None:
    modules = source
    tops = {(found.target.partition(".")[0], module.path) for module in modules for found in imports(module)}
    used = {(name, module.path) for module in modules for name, _ in uses(module)}
    caught = {f"{module.path}:{inside}" for module in modules for inside, _ in broad(module)}
    lazy = {f"{module.path}:{found.inside}" for module in modules for found in imports(module) if found.inside}
    known = {module.name for module in modules}
    asides = {(m.unit, target.partition(".")[0]) for m in modules for target, _ in ours(m, known)}
    idle = [
        *(f"IMPORTERS: {top} in {place}" for top, places in IMPORTERS.items() for place in places
          if not any(name == top and path.startswith(place) for name, path in tops)),
        *(f"NAMES: {rule} in {place}" for rule, (_, places) in NAMES.items() for place in places
          if not any(path.startswith(place) and matches(rule, name) for name, path in used)),
        *(f"BROAD: {place}" for place in BROAD.keys() - caught),
        *(f"LAZY: {place}" for place in LAZY.keys() - lazy),
        *(f"LEVELS: {unit}" for unit in LEVELS.keys() - {module.unit for module in modules}),
        *(f"SIBLINGS: {pair}" for pair in SIBLINGS - asides),
        *(f"PURE: {path}" for path in PURE - {module.path for module in modules}),
    ]  # fmt: skip
    assert not idle, "nobody needs these licences any more:\n" + "\n".join(sorted(idle))


def test_tests_and_examples_have_no_mocks() -> None:
    for file in [*ROOT.glob("tests/**/*.py"), *ROOT.glob("examples/**/*.py")]:
        found = {target.target for target in imports(parsed(file.name, file.read_text("utf-8")))}
        assert not [name for name in found if matches("unittest.mock", name)], file


# --- the page -----------------------------------------------------------------------------------------------------


def test_the_page_has_the_level_table() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", PAGE, re.M)
    page = {name.removesuffix(".py"): int(level) for level, cell in rows for name in re.findall(r"`([\w.]+)/?`", cell)}
    assert page == LEVELS


def named() -> set[str]:
    """The paths the page names; in the row of a package, they are below the package."""
    found = set()
    for line in PAGE.splitlines():
        row = re.match(r"\| `([\w/]+/)` \|", line)
        found |= {
            (row[1] if row else "") + name
            for name in re.findall(r"`([\w./-]+(?:\.py|\.md|/))`", line[row.end() if row else 0 :])
        }
    return found


def test_the_page_names_every_module(source: list[Module]) -> None:
    missing = {module.path for module in source if not module.path.endswith("/__init__.py")} - named()
    assert not missing, f"ARCHITECTURE.md does not name {', '.join(sorted(missing))}"


def test_the_page_names_nothing_that_is_not_there() -> None:
    gone = sorted(name for name in named() if not (SOURCE / name).exists() and not (ROOT / name).exists())
    assert not gone, f"ARCHITECTURE.md names {', '.join(gone)}"


def test_every_noun_is_where_the_page_says(source: list[Module]) -> None:
    where = dict(re.findall(r"^\| \*\*(\w+)\*\* \| `([\w/.]+)` \|", PAGE, re.M))
    assert set(where) <= set(NOUNS)
    for noun in NOUNS:
        homes = [module.path for module in source if noun in definitions(module)]
        assert homes in ([], [where.get(noun)]), f"{noun} is defined in {homes}, the page says {where.get(noun)}"
        if not homes and noun in where:
            assert (SOURCE / where[noun]).exists()


def definitions(module: Module) -> set[str]:
    """The classes and aliases at the top of a module."""
    classes = {node.name for node in module.tree.body if isinstance(node, ast.ClassDef)}
    return classes | {dotted(node.targets[0]) for node in module.tree.body if isinstance(node, ast.Assign)}
