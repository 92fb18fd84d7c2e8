"""Random mutations of modules that decide: comparisons, conditions, numbers, loops; by the operators of cosmic-ray."""

import ast
import random
from functools import cache
from typing import Final

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from trial import PACKAGE, ROOT, Change

SEED: Final = 20261201
TESTS: Final = {
    "model/policy.py": ("tests/unit/model/test_policy.py", "tests/properties/test_policy.py"),
    "model/names.py": ("tests/unit/model/test_names.py", "tests/properties/test_names.py"),
    "model/lifecycle.py": ("tests/unit/model/test_lifecycle.py",),
    "model/subscriptions.py": ("tests/unit/model/test_subscriptions.py", "tests/properties/test_subscriptions.py"),
    "model/catalogue/cursors.py": ("tests/unit/model/test_cursors.py",),
    "core/plan.py": ("tests/unit/core/test_plan.py", "tests/unit/core/test_dispatcher.py"),
    "core/dispatcher.py": (
        "tests/unit/core/test_dispatcher.py",
        "tests/unit/core/test_call_notes.py",
        "tests/unit/core/test_repeated_calls.py",
    ),
    "backends/calls/breaker.py": ("tests/unit/backends/calls/test_breaker.py",),
    "fronts/http/admission.py": (
        "tests/unit/fronts/test_admission.py",
        "tests/unit/fronts/test_http_guards.py",
        "tests/unit/fronts/test_http_handshake.py",
    ),
    "fronts/http/guard.py": (
        "tests/unit/fronts/test_admission.py",
        "tests/unit/fronts/test_http_guards.py",
        "tests/unit/fronts/test_http_handshake.py",
    ),
    "fronts/sessions.py": (
        "tests/unit/fronts/test_sessions.py",
        "tests/unit/fronts/test_admission.py",
        "tests/unit/fronts/test_http_handshake.py",
        "tests/unit/fronts/test_resumption.py",
        "tests/unit/fronts/test_reply.py",
        "tests/unit/fronts/test_legacy_sse.py",
    ),
    "fronts/http/routes.py": ("tests/unit/fronts/test_http_guards.py", "tests/unit/fronts/test_http_modern.py"),
}
"""Modules, and the tests that must notice a mutation."""
STRICT: Final = (
    "model/policy.py", "core/dispatcher.py", "fronts/sessions.py", "fronts/http/admission.py", "fronts/http/guard.py",
)  # fmt: skip
"""Modules in which no mutation may survive."""
OPERATORS: Final = (
    *(
        f"ReplaceComparisonOperator_{one}"
        for one in ("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is", "Lt_LtE", "LtE_Lt")
    ),
    *(f"ReplaceComparisonOperator_{one}" for one in ("Gt_GtE", "GtE_Gt", "Lt_GtE", "Gt_LtE", "LtE_Gt", "GtE_Lt")),
    *(f"ReplaceBinaryOperator_{one}" for one in ("Add_Sub", "Sub_Add", "Mul_Add", "Div_Mul", "Mod_FloorDiv")),
    *("AddNot", "ReplaceUnaryOperator_Delete_Not", "ReplaceAndWithOr", "ReplaceOrWithAnd", "NumberReplacer"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
    "ZeroIterationForLoop",
)
"""Mutations that a mistake would make; others of the library only break the import, or change nothing."""


EQUIVALENT: Final = {
    "self.has_mirrors = False": "assigned again before anything reads it",
    "self.is_modern = False": "the same",
    "self.named = False": "the same",
    "self.speaks_handshake = False": "the same",
    'self._task = task = dispatcher.spawn(_awaited(wait), name=f"call {self.call.method[:40]}: {wait.why}")': (
        "the name of a task, which only a debugger shows"
    ),
    "return Principal(name, key.hex()[:16], digest.hex()[:16])": "a key one digit shorter still tells principals apart",
    "self.session = Session(self.digest[:32], principal, scope, _OLDEST, reach=self)": "the same of sessions",
    "self.journals = Journals(self.digest[:8], self.session.version, self._gateway.budget, self._clock)": "the same",
    'extra={"session": opened.digest[:12], "principal": principal.name, "scope": scope},': "a field of a log record",
    'logger.info("session expired", extra={"session": opened.digest[:12]})': "a field of a log record",
}
"""Lines of STRICT modules in which a mutation changes nothing that anybody can observe, and why."""


def mutations(count: int, seed: int) -> list[Change]:
    """A sample of all mutations, as many of each file, and the same for the same file and seed."""
    each = max(1, count // len(TESTS))
    found = []
    for file in TESTS:
        places = _all_places(file)
        chosen = random.Random(f"{seed} {file}").sample(places, min(each, len(places)))
        found += [_change(file, name, number) for name, number in sorted(chosen)]
    return found


def all_mutations(part: str) -> list[Change]:
    """Every mutation of the STRICT modules with this text in their path."""
    return [_change(file, *place) for file in STRICT if part in file for place in _all_places(file)]


def stale() -> list[str]:
    """The lines of EQUIVALENT that no STRICT module has."""
    lines = {line.strip() for file in STRICT for line in _text(file).split("\n")}
    return [line for line in EQUIVALENT if line not in lines]


def may_survive(change: Change) -> bool:
    """Whether no test has to notice a mutation."""
    return change.file not in STRICT or any(f"  {line}  ->" in change.name for line in EQUIVALENT)


def _all_places(file: str) -> list[tuple[str, int]]:
    return [(name, number) for name in OPERATORS for number in _places(file, name)]


def _places(file: str, name: str) -> list[int]:
    """The occurrences of what an operator changes, in lines that decide something."""
    operator = get_operator(f"core/{name}")()
    spans = [span for node in _nodes(file) for span in operator.mutation_positions(node)]
    return [number for number, ((line, _), _) in enumerate(spans) if line not in _idle_lines(file)]


@cache
def _idle_lines(file: str) -> frozenset[int]:
    """The lines of constants, decorators and `__repr__`, whose exact text no test should know."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(_text(file))):
        is_constant = isinstance(node, ast.AnnAssign) and "Final" in ast.unparse(node.annotation)
        if is_constant or (isinstance(node, ast.FunctionDef) and node.name == "__repr__"):
            assert isinstance(node, ast.stmt)
            found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        found.update(item.lineno for item in getattr(node, "decorator_list", ()))
    return frozenset(found)


def _change(file: str, name: str, number: int) -> Change:
    text = _text(file)
    mutated = mutate_code(text, get_operator(f"core/{name}")(), number)
    before, after = text.split("\n"), mutated.split("\n")
    place = next(at for at, (one, other) in enumerate(zip(before, after, strict=False)) if one != other)
    title = f"{file}:{place + 1}  {before[place].strip()}  ->  {after[place].strip()}"
    return Change(title, file, mutated, TESTS[file])


@cache
def _nodes(file: str) -> list[object]:
    return list(ast_nodes(get_ast(_text(file))))


@cache
def _text(file: str) -> str:
    return (ROOT / PACKAGE / file).read_text("utf-8")
