"""A server of the soak, over stdio or HTTP: echoes, and misbehaves on request. Of the standard library, to start fast.

backend.py stdio            one JSON message a line
backend.py http PORT        Streamable HTTP with sessions, on 127.0.0.1
"""

import asyncio
import json
import os
import sys
import uuid

TOOLS = ("echo", "slow", "pid", "fault")


def answer(method: str, params: dict) -> dict | None:
    """The result of an ordinary request; None for a method that does not exist."""
    match method:
        case "initialize":
            capabilities = {"tools": {"listChanged": True}}
            version = params.get("protocolVersion", "2025-11-25")
            info = {"name": "soak", "version": "1"}
            return {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info}
        case "ping":
            return {}
        case "tools/list":
            return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}
        case "tools/call" if params["name"] == "pid":
            return text(str(os.getpid()))
        case "tools/call":
            return text(params.get("arguments", {}).get("text", ""))
    return None


def text(value: str) -> dict:
    return {"content": [{"type": "text", "text": value}]}


def response(id_: object, result: dict | None) -> bytes:
    body = {"result": result} if result is not None else {"error": {"code": -32601, "message": "Method not found"}}
    return json.dumps({"jsonrpc": "2.0", "id": id_, **body}).encode()


def arguments(message: dict) -> dict:
    return message.get("params", {}).get("arguments", {})


def tool(message: dict) -> str:
    return message.get("params", {}).get("name", "") if message.get("method") == "tools/call" else ""


# --- over stdio ------------------------------------------------------------------------------------------------------


def write(line: bytes) -> None:
    os.write(1, line + b"\n")


class Stdio:
    """Reads stdin to its end."""

    async def run(self) -> None:
        reader = asyncio.StreamReader(limit=2**26)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            message = json.loads(line)
            if "id" in message and "method" in message:
                await self._request(message)

    async def _request(self, message: dict) -> None:
        name = tool(message)
        if name == "slow":
            delay = arguments(message).get("seconds", 1)
            asyncio.get_running_loop().call_later(delay, self._reply, message)
            return
        if name == "fault":
            await self._fault(arguments(message).get("kind"))
        self._reply(message)

    def _reply(self, message: dict) -> None:
        write(response(message["id"], answer(message["method"], message.get("params", {}))))

    async def _fault(self, kind: str) -> None:
        match kind:
            case "half":
                os.write(1, b'{"jsonrpc":"2.0","id":')
                os._exit(3)
            case "exit":
                os._exit(0)
            case "close":
                os.close(1)
                await asyncio.sleep(3600)
            case "noise":
                os.write(1, b"not json\n{}\n[]\n\xff\xfe\n" * 50)
            case "stderr":
                for _ in range(200):
                    os.write(2, b"something went wrong, as it seems\n" * 100)
            case "storm":
                os.write(1, b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n' * 300)
            case "strangers":
                os.write(1, b"".join(b'{"jsonrpc":"2.0","id":%d,"result":{}}\n' % n for n in range(10**6, 10**6 + 99)))


# --- over HTTP -------------------------------------------------------------------------------------------------------


class Http:
    """One connection after the other, each request answered in JSON."""

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self.failures = 0

    async def run(self, port: int) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=2**26)
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length") or 0))
        session = headers.get("mcp-session-id", "")
        verb = head[0].split(" ")[0]
        if verb != "POST":
            if verb == "DELETE":
                self.sessions.discard(session)
            send(writer, 204 if verb == "DELETE" else 405)
            return True
        message = json.loads(body)
        if self.failures and message.get("method") == "tools/call":
            self.failures -= 1
            send(writer, 500, b"as ordered")
            return True
        if message.get("method") == "initialize":
            self.sessions.add(session := uuid.uuid4().hex)
        elif message.get("method") == "server/discover" or session not in self.sessions:
            known = message.get("method") == "server/discover"
            send(writer, 400 if known else 404)
            return True
        return await self._answered(message, session, writer)

    async def _answered(self, message: dict, session: str, writer: asyncio.StreamWriter) -> bool:
        if "id" not in message:
            send(writer, 202)
            return True
        kind = arguments(message).get("kind") if tool(message) == "fault" else ""
        if kind == "forget":
            self.sessions.clear()
        elif kind == "status":
            self.failures = 5
        elif kind == "reset":
            writer.transport.abort()
            return False
        if tool(message) == "slow":
            await asyncio.sleep(arguments(message).get("seconds", 1))
        send(writer, 200, response(message["id"], answer(message["method"], message.get("params", {}))), session)
        return True


def send(writer: asyncio.StreamWriter, status: int, body: bytes = b"", session: str = "") -> None:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Content-Type: application/json"]
    lines += [f"Mcp-Session-Id: {session}"] if session else []
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        asyncio.run(Stdio().run())
    else:
        asyncio.run(Http().run(int(sys.argv[2])))
