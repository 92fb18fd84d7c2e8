"""Backends as child processes: the stdio transport, and what keeps a process from outliving us."""
