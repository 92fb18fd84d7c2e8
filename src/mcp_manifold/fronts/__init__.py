"""The ways in: HTTP with both eras on one endpoint, legacy SSE, stdio. Knows the Desk and no backend."""
