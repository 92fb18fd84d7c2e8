"""Rules on sizes and names: lines of files and functions, crowded folders, fragments, homonyms."""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from tests.architecture.source import Complaint, Function, Module, Rule, dotted, ours

FILE_LINES: Final = 450
FUNCTION_LINES: Final = 60
SHORT_LINES: Final = 30
SHORT_SHARE: Final = 0.9  # share of functions that are at most SHORT_LINES long
FOLDER_FILES: Final = 12
FRAGMENT_LINES: Final = 60


def short_files(modules: list[Module]) -> Iterator[Complaint]:
    """A file is at most FILE_LINES long."""
    for module in modules:
        lines = len(module.text.splitlines())
        if lines > FILE_LINES:
            yield Complaint(module.path, f"has {lines} lines: {FILE_LINES} at most")


def short_functions(modules: list[Module]) -> Iterator[Complaint]:
    """A function fits on a screen, and most are far shorter."""
    sizes = []
    for module in modules:
        for function in module.functions():
            sizes.append(_lines(function))
            if sizes[-1] > FUNCTION_LINES:
                text = f"{function.name}() has {sizes[-1]} lines: {FUNCTION_LINES} at most"
                yield Complaint(f"{module.path}:{function.lineno}", text)
    share = sum(size <= SHORT_LINES for size in sizes) / len(sizes) if sizes else 1.0
    if share < SHORT_SHARE:
        yield Complaint("functions", f"{share:.0%} are at most {SHORT_LINES} lines long: {SHORT_SHARE:.0%} at least")


def _lines(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def uncrowded(modules: list[Module]) -> Iterator[Complaint]:
    """A folder holds at most FOLDER_FILES modules, its `__init__.py` aside."""
    files = Counter(module.path.rpartition("/")[0] for module in modules if not module.path.endswith("__init__.py"))
    for folder, count in files.items():
        if count > FOLDER_FILES:
            yield Complaint(f"{folder}/", f"has {count} files: {FOLDER_FILES} at most")


def whole(modules: list[Module]) -> Iterator[Complaint]:
    """A file that only one other file uses is at least FRAGMENT_LINES long."""
    known = {module.name for module in modules}
    users: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        for target, _ in ours(module, known):
            users[target].add(module.name)
    for module in modules:
        lines, others = len(module.text.splitlines()), users[module.name] - {module.name}
        if lines < FRAGMENT_LINES and len(others) == 1 and not module.path.endswith("__init__.py"):
            text = f"has {lines} lines and serves only {min(others)}: merge it into that"
            yield Complaint(module.path, text, module.name)


def unique(modules: list[Module]) -> Iterator[Complaint]:
    """A public name is defined in one module."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        for name in dict.fromkeys(_public(module)):
            homes[name].append(module.path)
    for name, paths in homes.items():
        if len(paths) > 1:
            yield Complaint(name, f"is defined in {', '.join(paths)}: one name, one concept", name)


def _public(module: Module) -> Iterator[str]:
    for node in module.tree.body:
        if isinstance(node, Function | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            if isinstance(node.value, ast.Call) and dotted(node.value.func) in ("TypeVar", "ParamSpec"):
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_") and name != "logger")


RULES: Final = (
    Rule(short_files, (("core/x.py", "\n" * 451, "has 451 lines: 450 at most"),)),
    Rule(
        short_functions,
        (
            ("core/x.py", "def f():\n" + "  g()\n" * 60, "f() has 61 lines: 60 at most"),
            ("core/x.py", "def f():\n" + "  g()\n" * 40, "0% are at most 30 lines long"),
        ),
    ),
    Rule(uncrowded, ()),
    Rule(whole, (("stages/x.py", "import mcp_manifold.wire.x", "core/hub.py: has 1 lines and serves only wire.x"),)),
    Rule(unique, (("core/x.py", "class Call: pass", "Call: is defined in core/x.py, model/call.py"),)),
)
