"""Packages that are imported without what their `__init__` brings along, until somebody asks for it. Knows no package.

`mcp.client.session` needs a third of the SDK, but whoever imports it gets all of it, the server side with its web
framework included, since `mcp/__init__.py` imports everything. Half of the time and of the memory that takes is saved
by leaving that file unread. Nobody can tell the difference: the first name that is asked of the package reads it.
"""

import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


class _Unopened(ModuleType):
    """A package in which modules can be found already, and whose `__init__` runs when a name of it is wanted."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]  # from here on it is like any other
        if self.__spec__ is not None and self.__spec__.loader is not None:
            self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def leave_unopened(*packages: str) -> None:
    """Leave these packages unopened, outer ones first, as far as nobody has imported them yet."""
    for name in packages:
        if name in sys.modules:
            continue
        spec = find_spec(name)
        if spec is None:
            continue
        made = module_from_spec(spec)
        made.__class__ = _Unopened
        sys.modules[name] = made
        outer, _, inner = name.rpartition(".")
        if outer:
            setattr(sys.modules[outer], inner, made)
