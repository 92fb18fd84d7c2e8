"""Scripted, byte-exact MCP peers: servers that misbehave on request, raw clients, and the processes around them.

Imports nothing of its own, so that a scripted child process starts quickly.
"""

BOUND = 60.0
"""Seconds that any wait for an event may take. Only a failure takes this long, however busy the machine is."""
