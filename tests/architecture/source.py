"""Modules as syntax trees: their imports, names, classes and functions, read the same way by every rule."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = "mcp_manifold"
SOURCE: Final = ROOT / "src" / PACKAGE
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file: its path below its root, its text, and the text's syntax tree."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, self.path)

    @cached_property
    def nodes(self) -> tuple[tuple[ast.AST, str], ...]:
        """Every node, with the name of the function around it; empty for none."""
        return tuple(_walk(self.tree))

    @cached_property
    def imports(self) -> "tuple[Import, ...]":
        """Every import: at the top, in functions, for type checking, and names given to an importing function."""
        return tuple(_imports(self))

    @property
    def name(self) -> str:
        """The dotted name below the package; for an `__init__.py` the name of its package."""
        parts = self.path.removesuffix(".py").split("/")
        return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)

    @property
    def unit(self) -> str:
        """The top-level package or module that it belongs to."""
        return self.name.partition(".")[0]

    def functions(self) -> Iterator[Function]:
        """Every function and method, nested ones included."""
        return (node for node, _ in self.nodes if isinstance(node, Function))

    def classes(self) -> Iterator[ast.ClassDef]:
        """Every class, nested ones included."""
        return (node for node, _ in self.nodes if isinstance(node, ast.ClassDef))


class Import(NamedTuple):
    """One imported name, absolute. `inside` is the function around it, or empty."""

    target: str
    line: int
    inside: str


class Rule(NamedTuple):
    """A rule: finds complaints in all modules, and catches each of its examples.

    Attributes:
        examples: (path, text, part of the complaint) of modules that break it.
        licences: the keys of its exceptions; a rule yields a complaint for every breach, licensed ones included.
    """

    check: "Callable[[list[Module]], Iterator[Complaint]]"
    examples: tuple[tuple[str, str, str], ...]
    licences: Mapping[str, str] = {}

    @property
    def name(self) -> str:
        """The name of the check."""
        return self.check.__name__

    def breaches(self, complaints: "Iterable[Complaint]") -> list[str]:
        """The complaints that no licence covers."""
        return [f"{found.place}: {found.text}" for found in complaints if found.key not in self.licences]

    def idle(self, complaints: "Iterable[Complaint]") -> list[str]:
        """The licences that cover nothing."""
        return [f"{self.name}: {key}" for key in self.licences.keys() - {found.key for found in complaints}]


class Complaint(NamedTuple):
    """One breach: where, why, and the key under which a licence may allow it."""

    place: str
    text: str
    key: str = ""


def modules_of(folder: Path) -> list[Module]:
    """All Python files below a folder, with paths relative to it."""
    return [
        Module(file.relative_to(folder).as_posix(), file.read_text("utf-8")) for file in sorted(folder.rglob("*.py"))
    ]


def dotted(node: ast.AST | None) -> str:
    """`a.b.c` for a name; `.c` for an attribute of any other expression; empty for the rest."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def ours(module: Module, known: Iterable[str]) -> Iterator[tuple[str, int]]:
    """The modules of this package that a module imports, with their lines."""
    for found in module.imports:
        top, _, below = found.target.partition(".")
        if top == PACKAGE:
            yield (below if below in known else below.rpartition(".")[0] or "__init__"), found.line


def _walk(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, inside = waiting.pop()
        if node is not tree:
            yield node, inside
        inner = node.name if isinstance(node, Function) else inside
        waiting += [(child, inner) for child in reversed([*ast.iter_child_nodes(node)])]


def _imports(module: Module) -> Iterator[Import]:
    for node, inside in module.nodes:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(f"{node.module}.{alias.name}", node.lineno, inside) for alias in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(rf"{PACKAGE}(\.\w+)+", str(node.value)):
            yield Import(str(node.value), node.lineno, "")
