"""HTTP/1.1 heads, for the connections to backends and from clients alike. Pure: no socket, no parser state."""
