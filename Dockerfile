# Serves /config/mcp.json over HTTP on port 8808:
#
#   docker build -t mcp-manifold .
#   docker run --init -p 127.0.0.1:8808:8808 -v "$PWD/mcp.json:/config/mcp.json:ro" -e MCP_MANIFOLD_TOKENS mcp-manifold
#
# The server listens on all addresses of the container, so it requires MCP_MANIFOLD_TOKENS. Clients then send
# "Authorization: Bearer <token>". If the published port is private, run `serve --host 0.0.0.0 --insecure` instead.
#
# --init (compose: `init: true`) runs a small init as PID 1, which reaps orphaned processes. mcp-manifold itself stops on
# SIGTERM and ends every server that it started, with the server's children.
#
# The image contains python and uvx, for servers started with `uvx` or `python -m`. For `npx`, extend it:
#
#   FROM mcp-manifold
#   USER root
#   RUN apt-get update && apt-get install -y --no-install-recommends nodejs npm && rm -rf /var/lib/apt/lists/*
#   USER manifold

FROM python:3.13-slim AS build
RUN pip install --no-cache-dir uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/mcp-manifold
WORKDIR /build
# The dependencies come first, because they change less often than the source.
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
# Replace this check if you change the port or the base path.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8808/_healthz', timeout=3)"]
ENTRYPOINT ["mcp-manifold"]
CMD ["serve", "--host", "0.0.0.0"]
