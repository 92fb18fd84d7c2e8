"""Rules on state and conduct: owners of attributes, module state, `__repr__`, tasks, broad excepts, banned names."""

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Final

from tests.architecture.source import Complaint, Function, Module, Rule, dotted

MUTABLE: Final = {
    "list", "dict", "set", "bytearray", "deque", "defaultdict", "OrderedDict", "Counter", "ChainMap", "Queue", "Lock",
    "SimpleQueue", "RLock", "Event", "Semaphore", "Condition", "ContextVar", "WeakKeyDictionary", "WeakSet", "count",
    "WeakValueDictionary", "cycle",
}  # fmt: skip
DISPLAYS: Final = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
CHANGES: Final = {
    "append", "add", "update", "pop", "popitem", "clear", "extend", "insert", "remove", "discard", "setdefault", "sort",
}  # fmt: skip

BANNED: Final = {
    ".create_task": "a task needs an owner that waits for it",
    ".ensure_future": "a task needs an owner that waits for it",
    ".sleep": "wait for an event, with a limit",
    "time.time": "time is passed in, as a Clock",
    "time.time_ns": "time is passed in, as a Clock",
    "time.monotonic": "time is passed in, as a Clock",
    "time.monotonic_ns": "time is passed in, as a Clock",
    "time.perf_counter": "time is passed in, as a Clock",
    "time.perf_counter_ns": "time is passed in, as a Clock",
    "datetime.now": "time is passed in, as a Clock",
    "datetime.datetime.now": "time is passed in, as a Clock",
    ".utcnow": "time is passed in, as a Clock",
    ".today": "time is passed in, as a Clock",
    ".time": "the loop's time is that of a Clock",
    ".call_later": "a Clock has timers",
    ".call_at": "a Clock has timers",
    "asyncio.timeout": "a Clock has timeouts",
    "asyncio.timeout_at": "a Clock has timeouts",
    "asyncio.wait_for": "a Clock has timeouts",
    "anyio.fail_after": "a Clock has timeouts",
    "anyio.move_on_after": "a Clock has timeouts",
    "asyncio.wait(timeout)": "a Clock waits with a limit",
    "print": "stdout may carry the protocol",
    "open": "only config reads files",
    ".read_text": "only config reads files",
    ".read_bytes": "only config reads files",
    "os.environ": "only config reads the environment",
    "os.getenv": "only config reads the environment",
    ".lru_cache": "a cache is state of the module",
    "functools.cache": "a cache is state of the module",
}
"""Names that may not be used, and why. A leading dot: an attribute of anything."""

READING: Final = {"open", ".read_text", ".read_bytes", "os.environ", "os.getenv"}
"""Those of them that are config's own."""

USES: Final = {
    "app.reload .create_task": "its own task, and the watch on files; both end with it",
    "app.runtime .create_task": "the fleet's task; cancelled and awaited when the Manifold is left",
    "backends.http.dial .create_task": "the attempts of a race; cancelled in a finally",
    "backends.http.pool .create_task": "connections being opened; the pool cancels them",
    "backends.process.orphans .read_bytes": "/proc holds no files",
    "cli.instances .sleep": "nothing announces what another process did",
    "cli.instances time.monotonic": "bounds what it asks of another process, without an event loop",
    "cli.serve .create_task": "a task group's, which ends in a finally",
    "clock .call_at": "the clock of the program",
    "clock .call_later": "the clock of the program",
    "clock .sleep": "the clock of the program",
    "clock .time": "the clock of the program",
    "clock asyncio.timeout": "the clock of the program",
    "clock asyncio.wait(timeout)": "the clock of the program",
    "clock datetime.now": "the clock of the program",
    "clock time.perf_counter": "the clock of the program",
    "core.dispatcher .create_task": "the waits of calls; kept in a set, and cancelled when the dispatcher closes",
    "core.results .sleep": "of no time: the turn of others within a long result",
    "fronts.conversation asyncio.wait(timeout)": "bounds the end of a conversation, which has no Clock",
    "fronts.http.asgi .create_task": "the stream of one answer; kept until it is sent",
    "fronts.http.asgi asyncio.timeout": "bounds one write to an ASGI server, which gives no Clock",
    "fronts.http.asgi asyncio.wait(timeout)": "the same, before it watches for a disconnect",
    "fronts.http.request asyncio.timeout": "bounds one read from an ASGI server, which gives no Clock",
    "fronts.http.stream .create_task": "the watch for a disconnect; cancelled where it was started",
    "fronts.http.stream .time": "ends a write now: a timer of the Clock does so",
    "fronts.http.stream asyncio.timeout": "has no limit of its own: a timer of the Clock ends it",
    "fronts.http.metrics time.monotonic": "measures the loop, whose own time stands still during a callback",
    "fronts.server.connection .create_task": "a request served as an ASGI call; the server waits for it",
    "fronts.stdio .create_task": "the front's writer; ends in its own run",
    "fronts.stdio asyncio.wait(timeout)": "bounds the last write to stdout, which has no Clock",
}
"""Where a banned name is used all the same, as `module name`, and why that is safe."""

BROAD: Final = {
    "app.reload:_reload_patiently": "the boundary of the reload task",
    "backends.life.life:_live_once": "the boundary of a backend's owner task",
    "backends.link.client_links:_own": "the boundary of the owner task of one client's link",
    "config.load:_complete": "carries the failure of a thread to its caller",
    "core.dispatcher:_advance": "a defect costs this call an error, and nothing else",
    "core.dispatcher:begin": "a stage refuses the call, or has a defect, which costs this call an error",
    "core.dispatcher:_complete": "a defect of a stage or a reply must not reach the reader of the backend",
    "fronts.server.connection:_offer": "a defect of the application fails this connection only",
    "core.dispatcher:_on_outcome": "a defect must not reach the reader of the backend",
    "core.dispatcher:_sent": "a defect costs this call an error, and nothing else",
    "fronts.http.front:__call__": "the boundary of a request",
    "fronts.http.front:_post": "the boundary of a message",
    "fronts.http.reply:respond": "the boundary of an answer",
}
"""Functions that catch everything, and what would otherwise break."""

FOREIGN: Final = {
    "app.http_server:uvicorn": "uvicorn's server: these flags are its API to stop",
    "backends.link.link:pending": "PendingRequest: the record of a request in flight, which its Link keeps",
    "backends.link.negotiation:module": "a module: its class makes its attributes lazy",
    "backends.process.groups:kernel.CreateJobObjectW": "ctypes: types of a foreign function",
    "backends.process.groups:kernel.OpenProcess": "the same",
    "backends.process.groups:limits.BasicLimitInformation": "ctypes: a structure that the function created",
    "cli.output:logger": "logging: the program configures its loggers",
    "core.dispatcher:call": "Call: written by the Dispatcher once it is in flight",
    "fronts.conversation:call": "Call: its reply is dropped by the reply, once it was given",
    "fronts.http.front:tally": "Tally: the counts of the HTTP front",
    "fronts.http.pages:app.router": "starlette's router: this flag is its API",
    "fronts.http.reply:call": "Call: its reply is dropped by the reply, once it was given",
}
"""Records that a module other than their own writes, as `module:name`: whose they are. One of ours is named first."""

REPRESENTED: Final = re.compile(
    r"^(Protocol|NamedTuple|TypedDict|.*Struct|Base(Model|Settings)|\w*(Exception|Error|Enum))$"
)
"""Base classes that write a `__repr__`, or that have no state."""
UNREPRESENTED: Final = {
    "backends.link.negotiation:_LazyPackage": "a module has one",
    "config.layers:_Variables": "a source of pydantic-settings has one",
}


def stateless(modules: list[Module]) -> Iterator[Complaint]:
    """Nothing at module level can change."""
    for module in modules:
        finals = set()
        for node in module.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            value, name, place = getattr(node, "value", None), dotted(targets[0]), f"{module.path}:{node.lineno}"
            is_final = isinstance(node, ast.AnnAssign) and "Final" in ast.unparse(node.annotation)
            if isinstance(value, ast.Call) and dotted(value.func).rpartition(".")[2] in MUTABLE:
                yield Complaint(place, f"{name} is a mutable object of the module: give it an owner")
            elif isinstance(value, DISPLAYS) and is_final:
                finals.add(name)
            elif isinstance(value, DISPLAYS) and name != "__all__":
                yield Complaint(place, f"{name} can be changed: annotate it Final, or make it immutable")
        for name, line in _changes(module, finals):
            yield Complaint(f"{module.path}:{line}", f"changes {name}, a constant of the module")


def _changes(module: Module, constants: set[str]) -> Iterator[tuple[str, int]]:
    for node, _ in module.nodes:
        if isinstance(node, ast.Global):
            yield from ((name, node.lineno) for name in node.names)
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load) and dotted(node.value) in constants:
            yield dotted(node.value), node.lineno
        elif isinstance(node, ast.Call):
            name, _, method = dotted(node.func).rpartition(".")
            if name in constants and method in CHANGES:
                yield name, node.lineno


def own_attributes(modules: list[Module]) -> Iterator[Complaint]:
    """Attributes are written by their object, by the function that created it, or by the module of its class."""
    for module, function, owner, node in _foreign_writes(modules):
        text = f"{function.name}() writes {owner}.{node.attr}: ask its owner to"
        yield Complaint(f"{module.path}:{node.lineno}", text, _record(module, owner))


def misnamed_records(modules: list[Module], licences: Mapping[str, str]) -> list[str]:
    """The licences whose class has no such attribute as is written, or does not exist."""
    fields: dict[str, set[str]] = {}
    for each in modules:
        for class_ in each.classes():
            fields.setdefault(class_.name, set()).update(_fields(class_))
    found = []
    for module, _, owner, node in _foreign_writes(modules):
        named = re.match(r"[A-Z]\w*(?=:)", licences.get(_record(module, owner), ""))
        if named and node.attr not in fields.get(named.group(), ()):
            found.append(f"{_record(module, owner)}: {named.group()} has no {node.attr}")
    return found


def _record(module: Module, owner: str) -> str:
    return f"{module.name}:{re.sub(r'^self[.]_?', '', owner)}"


def _foreign_writes(modules: list[Module]) -> Iterator[tuple[Module, Function, str, ast.Attribute]]:
    for module in modules:
        local = {node.name: set(_fields(node)) for node in module.classes()}
        for function in module.functions():
            mine = {"self", "cls", *_created(function)}
            types = {item.arg: _class_name(item.annotation) for item in ast.walk(function) if isinstance(item, ast.arg)}
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
                    owner = ast.unparse(node.value)
                    records = [types[owner]] if types.get(owner) else list(local)
                    if owner not in mine and not any(node.attr in local.get(name, ()) for name in records):
                        yield module, function, owner, node


def _class_name(annotation: ast.expr | None) -> str:
    """The class of a parameter, as its annotation names it; empty for none."""
    text = "" if annotation is None else ast.unparse(annotation).strip("'\"")
    return re.split(r"[\[ |]", text)[0].rpartition(".")[2]


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """The attributes of a class: annotated in its body, or assigned by its `__init__`."""
    for item in node.body:
        if isinstance(item, ast.AnnAssign):
            yield dotted(item.target)
        elif isinstance(item, Function) and item.name == "__init__":
            for part in ast.walk(item):
                if isinstance(part, ast.Attribute) and dotted(part.value) == "self":
                    yield part.attr


def _created(function: Function) -> Iterator[str]:
    """Local names that hold an object which the function created: `name = Class(...)`, and `with Class() as name`."""
    for node in ast.walk(function):
        pairs: list[tuple[ast.expr, ast.expr | None]] = []
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.AnnAssign):
            pairs = [(node.target, node.value)]
        for target, value in pairs:
            made = dotted(value.func).rpartition(".")[2] if isinstance(value, ast.Call) else ""
            if isinstance(target, ast.Name) and (
                made.lstrip("_")[:1].isupper() or made in ("cls", "__new__", "replace")
            ):
                yield target.id


def represented(modules: list[Module]) -> Iterator[Complaint]:
    """A class with state has a `__repr__`."""
    classes = {node.name: node for module in modules for node in module.classes()}
    for module in modules:
        for node in module.classes():
            if _has_state(node) and not _has_repr(node, classes):
                text = f"{node.name} has state and no __repr__"
                yield Complaint(f"{module.path}:{node.lineno}", text, f"{module.name}:{node.name}")


def _has_state(node: ast.ClassDef) -> bool:
    return any(
        isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and dotted(part.value) == "self"
        for part in ast.walk(node)
    )


def _has_repr(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> bool:
    """Whether a class, or a base of it, writes a `__repr__` or is of a kind that has a good one."""
    if any(isinstance(item, Function) and item.name == "__repr__" for item in node.body):
        return True
    bases = [dotted(base.value if isinstance(base, ast.Subscript) else base) for base in node.bases]
    if any("dataclass" in ast.unparse(item) for item in node.decorator_list) or any(map(REPRESENTED.search, bases)):
        return True
    return any(base in classes and _has_repr(classes[base], classes) for base in bases if base != node.name)


def narrow(modules: list[Module]) -> Iterator[Complaint]:
    """An `except` names what can happen, or raises it again."""
    for module in modules:
        for inside, line in _broad(module):
            text = f"catches everything in {inside}(): name what can happen"
            yield Complaint(f"{module.path}:{line}", text, f"{module.name}:{inside}")


def _broad(module: Module) -> Iterator[tuple[str, int]]:
    for node, inside in module.nodes:
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "BaseException"
            last = node.body[-1]
            if isinstance(last, ast.With | ast.AsyncWith):  # a clean-up context that raises again inside
                last = last.body[-1]
            is_raised = node.type is not None and isinstance(last, ast.Raise) and last.exc is None
            if re.search(r"\b(Base)?Exception\b", caught) and not is_raised:
                yield inside, node.lineno
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("suppress"):
            everything = ("Exception", "BaseException")
            yield from ((inside, node.lineno) for name in map(dotted, node.args) if name in everything)


def unbanned(modules: list[Module]) -> Iterator[Complaint]:
    """Nothing uses a banned name."""
    for module in modules:
        for name, line in used_names(module):
            for banned, reason in BANNED.items():
                is_own = (module.unit == "config" and banned in READING) or re.search(r"clock\.\w+$", name)
                if matches(banned, name) and not is_own:
                    yield Complaint(f"{module.path}:{line}", f"uses {name}: {reason}", f"{module.name} {banned}")
        for node, _ in module.nodes:
            if isinstance(node, ast.Raise) and node.exc and "NotImplementedError" in ast.unparse(node.exc):
                yield Complaint(f"{module.path}:{node.lineno}", "raises NotImplementedError: no stubs")


def used_names(module: Module) -> Iterator[tuple[str, int]]:
    """Every name that is imported, called, or read as an attribute; and `name(timeout)` of a call with a timeout."""
    yield from ((found.target, found.line) for found in module.imports)
    for node, _ in module.nodes:
        if isinstance(node, ast.Attribute):
            yield dotted(node), node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node.lineno
        if isinstance(node, ast.Call) and any(each.arg == "timeout" for each in node.keywords):
            yield f"{dotted(node.func)}(timeout)", node.lineno


def matches(banned: str, name: str) -> bool:
    """Whether a name that is used is the banned one, or a part of it."""
    return name.endswith(banned) if banned.startswith(".") else name == banned or name.startswith(f"{banned}.")


def one_stage_list(modules: list[Module]) -> Iterator[Complaint]:
    """Stages are listed in one place: where the Dispatcher is made."""
    makers = [
        f"{module.path}:{node.lineno}"
        for module in modules
        for node, _ in module.nodes
        if isinstance(node, ast.Call) and any(keyword.arg == "stages" for keyword in node.keywords)
    ]
    for place in makers[1:]:
        yield Complaint(place, f"lists stages, as {makers[0]} does: one list holds every stage")
    units = {
        module.unit for module in modules if any(f.target.startswith("mcp_manifold.stages.") for f in module.imports)
    }
    for unit in sorted(units - {"app", "stages", "fronts"}):
        yield Complaint(unit, "imports a stage: only app composes stages, and fronts show the counts")


RULES: Final = (
    Rule(
        stateless,
        (
            ("core/x.py", "SEEN = {}", "SEEN can be changed"),
            ("core/x.py", "SEEN: Final = collections.deque()", "SEEN is a mutable object of the module"),
            ("core/x.py", "SEEN: Final = {}\ndef f(): SEEN['a'] = 1", "core/x.py:2: changes SEEN"),
            ("core/x.py", "SEEN: Final = []\ndef f(): SEEN.append(1)", "core/x.py:2: changes SEEN"),
            ("core/x.py", "def f():\n  global seen", "core/x.py:2: changes seen"),
        ),
    ),
    Rule(
        own_attributes,
        (
            ("core/x.py", "def f(call): call.slot = 1", "f() writes call.slot: ask its owner to"),
            ("core/x.py", "def f(self): self.call.slot += 1", "f() writes self.call.slot"),
            ("core/x.py", "def f(call): del call.slot", "f() writes call.slot"),
            ("core/x.py", "def f():\n x = find()\n x.slot = 1", "f() writes x.slot"),
        ),
        FOREIGN,
    ),
    Rule(
        represented,
        (
            ("core/x.py", "class A:\n def f(self): self.x = 1", "A has state and no __repr__"),
            ("core/x.py", "class A(B):\n def f(self): self.x += 1", "A has state and no __repr__"),
        ),
        UNREPRESENTED,
    ),
    Rule(
        narrow,
        (
            ("core/x.py", "def f():\n try: g()\n except: raise", "core/x.py:3: catches everything in f()"),
            ("core/x.py", "def f():\n try: g()\n except (A, Exception): pass", "catches everything in f()"),
            ("core/x.py", "with suppress(Exception): f()", "catches everything"),
        ),
        BROAD,
    ),
    Rule(
        unbanned,
        (
            ("core/x.py", "asyncio.get_running_loop().create_task(f())", "uses .create_task: a task needs an owner"),
            ("core/x.py", "from asyncio import sleep", "uses asyncio.sleep"),
            ("core/x.py", "from time import time", "uses time.time"),
            ("core/x.py", "from time import perf_counter", "uses time.perf_counter: time is passed in, as a Clock"),
            ("core/x.py", "import time\ntime.monotonic()", "uses time.monotonic"),
            ("core/x.py", "from datetime import datetime\ndatetime.now(UTC)", "uses datetime.now"),
            ("core/x.py", "asyncio.get_running_loop().time()", "uses .time: the loop's time is that of a Clock"),
            ("core/x.py", "self._loop.call_later(1, f)", "uses self._loop.call_later: a Clock has timers"),
            ("core/x.py", "async with asyncio.timeout(5): pass", "uses asyncio.timeout"),
            ("core/x.py", "await asyncio.wait({task}, timeout=5)", "uses asyncio.wait(timeout): a Clock waits"),
            ("core/x.py", "os.environ.get('A')", "uses os.environ"),
            ("core/x.py", "print(1)", "uses print"),
            ("core/x.py", "def f(): raise NotImplementedError", "raises NotImplementedError: no stubs"),
        ),
        USES,
    ),
    Rule(
        one_stage_list,
        (
            ("app/y.py", "Dispatcher(stages=[A()])\nDispatcher(stages=[B()])", "one list holds every stage"),
            ("core/x.py", "from mcp_manifold.stages.metrics import Counts", "imports a stage"),
        ),
    ),
)
