# Serves /config/mcp.json over HTTP on port 8808:
#
#   docker build -t mcp-manifold .
#   docker run --init -p 127.0.0.1:8808:8808 -v "$PWD/mcp.json:/config/mcp.json:ro" -e MCP_MANIFOLD_TOKENS mcp-manifold
#
# It listens on all of the container's addresses, so it wants MCP_MANIFOLD_TOKENS (clients then send
# "Authorization: Bearer <token>"), or `serve --host 0.0.0.0 --insecure` where the published port is private anyway.
#
# --init (compose: `init: true`) puts a small init at PID 1. mcp-manifold stops on SIGTERM and ends every server it
# started, the server's own children included, without it; but whoever loses its parent is handed to PID 1, which has to
# reap it, and that is an init's work.
#
# The image has python and uvx, so servers started with `uvx` or `python -m` work as they are. For `npx`, build on it:
#
#   FROM mcp-manifold
#   USER root
#   RUN apt-get update && apt-get install -y --no-install-recommends nodejs npm && rm -rf /var/lib/apt/lists/*
#   USER manifold

FROM python:3.13-slim AS build
RUN pip install --no-cache-dir uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/mcp-manifold
WORKDIR /build
# the dependencies first: they change less often than the source
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --no-install-project
COPY README.md LICENSE ./
COPY src src
RUN uv sync --frozen --no-dev --no-editable

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 manifold
COPY --from=build /usr/local/bin/uv /usr/local/bin/uvx /usr/local/bin/
COPY --from=build /opt/mcp-manifold /opt/mcp-manifold
ENV PATH=/opt/mcp-manifold/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MCP_MANIFOLD_CONFIG=/config/mcp.json
USER manifold
WORKDIR /home/manifold
EXPOSE 8808
# With another port or a base path, give the check of your own.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8808/_healthz', timeout=3)"]
ENTRYPOINT ["mcp-manifold"]
CMD ["serve", "--host", "0.0.0.0"]
