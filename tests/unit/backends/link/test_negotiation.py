"""Packages imported lazily: their modules are there, and their names as soon as one is used."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from mcp_manifold.backends.link.negotiation import import_lazily


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose `__init__` fails unless it may run, with another one inside."""
    inner = tmp_path / "whole_thing" / "inner"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").write_text("from whole_thing.inner.part import value\ntwice = 2 * value\n")
    (inner / "__init__.py").write_text("name = 'inner'\n")
    (inner / "part.py").write_text("value = 21\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield "whole_thing"
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_is_imported_and_its_packages_are_not_opened(package: str) -> None:
    import_lazily(package, f"{package}.inner")
    assert import_module(f"{package}.inner.part").value == 21
    assert not {"twice", "value"} & vars(sys.modules[package]).keys()


def test_a_name_that_is_asked_for_opens_the_package(package: str) -> None:
    import_lazily(package, f"{package}.inner")
    part = import_module(f"{package}.inner.part")
    whole = import_module(package)
    assert (whole.twice, whole.inner.part, whole.inner.name) == (42, part, "inner")
    with pytest.raises(AttributeError):
        _ = whole.nothing


def test_what_was_imported_before_and_what_is_not_there_stays_as_it_is(package: str) -> None:
    whole = import_module(package)
    import_lazily(package, "no_such_package")
    assert sys.modules[package] is whole
    assert "no_such_package" not in sys.modules


def test_our_side_of_the_sdk_does_without_most_of_it() -> None:
    code = (
        "import sys\n"
        "from mcp_manifold.backends.link.negotiation import import_lazily\n"
        "import_lazily('mcp', 'mcp.client')\n"
        "from mcp_manifold.backends.link import sdk\n"
        "print(*{'mcp.server', 'starlette', 'cryptography'} & set(sys.modules))\n"
        "from mcp import ClientSession\n"
        "print(ClientSession is sdk.ClientSession, 'mcp.server' in sys.modules)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout == "\nTrue True\n"
