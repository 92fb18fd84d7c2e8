"""Calls to one backend: queueing, concurrency, deadlines, retries and the circuit breaker."""
