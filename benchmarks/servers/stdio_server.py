"""A stdio server: a loop over lines.

    python stdio_server.py --tools 5 [--silent] [--cpus 1]

`--silent` never answers `initialize`. It runs by its path, because its parent may not have our packages.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import orjson

from benchmarks.servers.allocator import keep_large_blocks
from benchmarks.servers.answering import Answers


def _option(name: str, default: str) -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def main() -> None:
    if cpus := _option("--cpus", ""):
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    keep_large_blocks()
    answers, is_silent = Answers(int(_option("--tools", "5"))), "--silent" in sys.argv
    for line in sys.stdin.buffer:
        message = orjson.loads(line)
        if "id" not in message or "method" not in message or (is_silent and message["method"] == "initialize"):
            continue
        result, id_ = answers.result(message), orjson.dumps(message["id"])
        if result is None:
            key, result = b"error", b'{"code":-32601,"message":"method not found"}'
        else:
            key = b"result"
        _write(b"".join((b'{"jsonrpc":"2.0","id":', id_, b',"', key, b'":', result, b"}\n")))


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(0)
