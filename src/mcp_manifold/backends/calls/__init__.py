"""The calls of one backend: executor, waiting calls, breaker, deadlines, retry policy."""
