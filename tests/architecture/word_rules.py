"""Rules on words: the first line of a module, docstrings, and phrases that hide their subject."""

import ast
import re
from collections.abc import Iterator
from typing import Final

from tests.architecture.source import Complaint, Function, Module, Rule

ODD: Final = re.compile(
    r"\b(?:what is no\b|who (?:do|does|has|have|is|are) not\b|is to be (?:had|seen|told|asked)\b|where it goes\b"
    r"|what becomes of\b|so be it\b|(?:short|long) way\b|nobody's\b|what comes of\b|let(?:s|ting)? in\b"
    r"|has not (?:your|our|its)\b|given up just\b|tells? (?:who|what|whose)\b"
    r"|what (?:goes|comes|is) (?:on|in|out|wrong)\b"
    r"|whoever\b|wherever\b|for whom\b|as it came\b)",
    re.I,
)
"""Phrases that read like riddles: CONTRIBUTING.md, "Writing"."""
FIRST_WORDS: Final = 4
MAX_SENTENCE: Final = 25  # words
_BREAKS: Final = re.compile(r"[.;:!?](?:\s|$)|\n\s*\n|\n\s*[-*] |\n(?=.*[─│├└])")
"""Where a sentence ends: also at an item of a list, and at a line of a drawing."""


def introduced(modules: list[Module]) -> Iterator[Complaint]:
    """A module's first line says what the module owns."""
    for module in modules:
        text = ast.get_docstring(module.tree) or ""
        first = text.split("\n")[0]
        if len(first.split()) < FIRST_WORDS:
            yield Complaint(module.path, f"does not say what it owns: {first!r}")
        elif not first.endswith("."):
            yield Complaint(module.path, f"its first line is not a sentence: {first!r}")
        elif re.match(r"See\b", first):
            yield Complaint(module.path, f"refers elsewhere instead of saying what it owns: {first!r}")


def documented(modules: list[Module]) -> Iterator[Complaint]:
    """Public functions and classes have a docstring; not one-line members, nor what a Protocol of ours documents."""
    shared = {
        item.name
        for module in modules
        for node in module.classes()
        if any("Protocol" in ast.unparse(base) for base in node.bases)
        for item in node.body
        if isinstance(item, Function) and ast.get_docstring(item)
    }
    for module in modules:
        for owner, node in _public(module.tree.body):
            if not ast.get_docstring(node) and not (owner and node.name in shared):
                yield Complaint(f"{module.path}:{node.lineno}", f"{owner}{node.name} has no docstring")


def _public(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for node in body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            yield owner, node
            if not node.bases:
                yield from _public(node.body, f"{node.name}.")
        elif not (owner and len(node.body) == 1):
            yield owner, node


def plain(modules: list[Module]) -> Iterator[Complaint]:
    """Docstrings and comments have no odd phrase and no endless sentence, and say more than where to look."""
    for module in modules:
        for text, line in _texts(module):
            found = ODD.search(text)
            if found:
                yield Complaint(f"{module.path}:{line}", f"says {found[0]!r}: use the trade's word")
            if re.match(r"See the module\.\s*(\n|$)", text):
                yield Complaint(f"{module.path}:{line}", "says only 'See the module.': say what it is")
            for sentence in _BREAKS.split(text):
                words = len(sentence.split())
                if words > MAX_SENTENCE:
                    yield Complaint(f"{module.path}:{line}", f"a sentence of {words} words: {MAX_SENTENCE} at most")


def _texts(module: Module) -> Iterator[tuple[str, int]]:
    """Docstrings, the strings below attributes, and comments."""
    for node in [module.tree, *(node for node, _ in module.nodes)]:
        for item in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            if (
                isinstance(item, ast.Expr)
                and isinstance(item.value, ast.Constant)
                and isinstance(item.value.value, str)
            ):
                yield item.value.value, item.lineno
    for number, line in enumerate(module.text.splitlines(), 1):
        comment = re.search(r"(?:^|\s)#\s(.+)$", line)
        if comment:
            yield comment[1], number


RULES: Final = (
    Rule(
        introduced,
        (
            ("core/x.py", "import json", "core/x.py: does not say what it owns"),
            ("core/x.py", '"""."""', "does not say what it owns"),
            ("core/x.py", '"""Owner of the current catalogue"""', "its first line is not a sentence"),
            ("core/x.py", '"""See the other module there."""', "refers elsewhere"),
        ),
    ),
    Rule(
        documented,
        (
            ("core/x.py", "def f(): pass", "f has no docstring"),
            ("core/x.py", "class A: pass", "A has no docstring"),
            ("core/x.py", "class A:\n def f(self):\n  a()\n  b()", "A.f has no docstring"),
        ),
    ),
    Rule(
        plain,
        (
            ("core/x.py", '"""Where it goes what is sent."""', "says 'Where it goes'"),
            ("core/x.py", "# whoever asks\n", "says 'whoever'"),
            ("core/x.py", f'"""{"word " * 26}."""', "a sentence of 26 words"),
            ("core/x.py", 'class A:\n """See the module.\n\n Args: x"""', "says only 'See the module.'"),
        ),
    ),
)
