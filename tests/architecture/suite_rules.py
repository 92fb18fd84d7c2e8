"""Rules on tests: no patches of our modules, no waiting for the clock, no unexplained skip."""

import ast
from collections.abc import Iterator
from typing import Final

from tests.architecture.source import PACKAGE, Complaint, Module, Rule, dotted

SLEEPS: Final = {
    "contract/stand.py:until_well": "nothing announces to a client that a server is back",
    "faults/invariants.py:_call": "the pace of repeated calls",
    "faults/invariants.py:_until_as_before": "nothing announces what ends in another process",
    "faults/test_processes.py:test_r21_without_descriptors_connections_are_shed_and_it_rec": "measures idle CPU time",
    "faults/test_unlisted.py:test_a_manifold_that_was_stopped_for_a_while_goes_on_as_if_n": "a stop takes real time",
    "faults/invariants.py:rests": "nothing may happen meanwhile, so there is no event",
    "peers/processes.py:await_port": "nothing announces that another process listens",
    "peers/processes.py:until": "nothing announces what another process did",
    "peers/program.py:rests": "nothing may happen meanwhile, so there is no event",
    "slow_jobs.py:run": "the example's work",
}
"""Functions that sleep, as `file:function` (60 characters of it), and why there is no event to wait for."""


SLEEPING: Final = ("time.sleep", "asyncio.sleep", "anyio.sleep", "sleep")


def unpatched(modules: list[Module]) -> Iterator[Complaint]:
    """Tests do not patch our own modules, classes or objects: they pass in what differs."""
    for module in modules:
        names = {PACKAGE} | {
            item.asname or item.name.rpartition(".")[2]
            for node, _ in module.nodes
            if isinstance(node, ast.Import | ast.ImportFrom)
            for item in node.names
            if f"{getattr(node, 'module', '') or ''}.{item.name}".lstrip(".").startswith(PACKAGE)
        }
        for node, _ in module.nodes:
            if isinstance(node, ast.Call) and dotted(node.func).endswith(("patch.setattr", "patch.delattr")):
                first = node.args[0] if node.args else None
                text = str(first.value) if isinstance(first, ast.Constant) else dotted(first)
                if text.partition(".")[0] in names:
                    yield Complaint(f"{module.path}:{node.lineno}", f"patches {text}: pass it in")


def awake(modules: list[Module]) -> Iterator[Complaint]:
    """Tests wait for events, or advance a fake clock."""
    for module in modules:
        for node, inside in module.nodes:
            if not isinstance(node, ast.Call) or dotted(node.func) not in SLEEPING:
                continue
            if not (node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0):
                text = f"sleeps in {inside}(): wait for an event, or advance a FakeClock"
                yield Complaint(f"{module.path}:{node.lineno}", text, f"{module.path}:{inside[:60]}")


def explained(modules: list[Module]) -> Iterator[Complaint]:
    """A skip or an expected failure gives its reason."""
    for module in modules:
        for node, _ in module.nodes:
            if (
                isinstance(node, ast.Attribute)
                and node.attr in ("skip", "skipif", "xfail")
                and "pytest" in dotted(node)
            ):
                call = next((n for n, _ in module.nodes if isinstance(n, ast.Call) and n.func is node), None)
                reasons = [] if call is None else [k for k in call.keywords if k.arg == "reason"]
                if not reasons and not (call is not None and node.attr != "skipif" and call.args):
                    yield Complaint(f"{module.path}:{node.lineno}", f"{node.attr} without a reason")


RULES: Final = (
    Rule(
        unpatched,
        (
            (
                "unit/x.py",
                f"from {PACKAGE}.core import hub\nmonkeypatch.setattr(hub, 'A', 1)",
                "patches hub: pass it in",
            ),
            ("unit/x.py", f"monkeypatch.setattr('{PACKAGE}.core.hub.A', 1)", f"patches {PACKAGE}.core.hub.A"),
            ("unit/x.py", f"import {PACKAGE}.core.hub as h\nmonkeypatch.setattr(h, 'A', 1)", "patches h"),
        ),
    ),
    Rule(
        awake,
        (
            ("unit/x.py", "def f(): time.sleep(0.1)", "sleeps in f()"),
            ("unit/x.py", "async def f(): await asyncio.sleep(PACE)", "sleeps in f()"),
        ),
        SLEEPS,
    ),
    Rule(
        explained,
        (
            ("unit/x.py", "@pytest.mark.skip\ndef f(): pass", "skip without a reason"),
            ("unit/x.py", "@pytest.mark.skipif(True)\ndef f(): pass", "skipif without a reason"),
        ),
    ),
)
