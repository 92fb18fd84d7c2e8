"""HTTP to backends: a connection pool for one origin, and the transports on it (Streamable HTTP, HTTP+SSE)."""
