"""Scripted, byte-exact MCP peers for tests: backends that misbehave on request, clients that hide nothing.

Imports nothing, so that a scripted child process starts quickly.
"""
