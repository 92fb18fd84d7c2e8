"""HTTP fronts: Streamable HTTP in both eras, HTTP+SSE, and the checks every HTTP request passes."""
