"""Composition root: settings in; fleet, hub, stages, router and fronts, put together, out. The embeddable `Manifold`.

The only place that knows all parts. Nothing here decides about a message.
"""

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version as version_of
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import msgspec

from mcp_manifold import wire
from mcp_manifold.backends.backend import Surroundings
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.greeting import Greeting, Identity
from mcp_manifold.backends.lifecycle import State
from mcp_manifold.backends.link import Link
from mcp_manifold.call import Call, Handler, Session, Stage, compose
from mcp_manifold.catalogue import Kind
from mcp_manifold.config import FilterSettings, ManifoldSettings, Settings, load, load_dict
from mcp_manifold.errors import ConfigError
from mcp_manifold.fronts.site import Site, asgi_app
from mcp_manifold.hub import MERGED, Hub
from mcp_manifold.policy import ANONYMOUS, Filter, Filters, Policy
from mcp_manifold.router import Router
from mcp_manifold.stages.calllog import call_log
from mcp_manifold.wire import LATEST_HANDSHAKE, Era, Payload
from mcp_manifold.wire.mirror import ParameterHeaders

logger = logging.getLogger(__name__)

STAGES: Final[tuple[Stage, ...]] = (call_log,)
"""What every call runs through, outside in. To follow a call, read this list and then `router`."""

VERSION: Final = version_of("mcp-manifold")
STOP_WAIT: Final = 12.0
"""Seconds stopping the fleet may take in all; longer than closing one backend, since all close at once."""
