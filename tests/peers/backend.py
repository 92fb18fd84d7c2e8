"""Scripted backends: the names that tests import. Everything lives in the modules beside this one."""

from tests.peers.http_backend import HttpBackend
from tests.peers.listener import HTML, Fault
from tests.peers.recorder import Received
from tests.peers.script import Act, Offer, Script, named, prompt, resource, template, tool
from tests.peers.sse_backend import SseBackend
from tests.peers.stdio_backend import ROOT, StdioBackend
from tests.peers.turn import Turn

__all__ = [
    "HTML",
    "ROOT",
    "Act",
    "Fault",
    "HttpBackend",
    "Offer",
    "Received",
    "Script",
    "SseBackend",
    "StdioBackend",
    "Turn",
    "named",
    "prompt",
    "resource",
    "template",
    "tool",
]
