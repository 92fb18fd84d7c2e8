"""The load: clients that cost little themselves, check every answer, and run in a process of their own."""
