"""The fronts: Streamable HTTP for both eras, legacy HTTP+SSE, and stdio. They know the Gateway, and no backend."""
