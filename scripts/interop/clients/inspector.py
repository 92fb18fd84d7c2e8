"""The MCP inspector's command line as an interop client: one command per request, so only the brief steps are done.

It reads the same job and prints the same report as the others; the command that starts the inspector follows the
job's name on the command line.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import job as program

LISTS = {"tools": "tools", "resources": "resources", "templates": "resourceTemplates", "prompts": "prompts"}
METHODS = {"templates": "resources/templates/list"}

Outcome = dict[str, Any]


def target_arguments(target: Outcome, file: Path) -> list[str]:
    """How the inspector is told where the server is: a command by file, or it would take its options for its own."""
    if target["kind"] != "stdio":
        return ["--transport", target["kind"], "--server-url", target["url"]]
    command, *args = target["command"]
    server = {"type": "stdio", "command": command, "args": args, "env": target["env"]}
    file.write_text(json.dumps({"mcpServers": {"target": server}}), encoding="utf-8")
    return ["--config", str(file), "--server", "target"]


def request_arguments(step: Outcome, part: Outcome) -> list[str]:
    """How the inspector is told what to ask."""
    match step["do"]:
        case "call":
            arguments = json.dumps(step["arguments"])
            tool = part["prefix"] + step["tool"]
            return ["--method", "tools/call", "--tool-name", tool, "--tool-args-json", arguments]
        case "read":
            return ["--method", "resources/read", "--uri", part["uri_prefix"] + step["uri"]]
        case _:
            pairs = [f"{name}={value}" for name, value in step["arguments"].items()]
            name = part["prefix"] + step["prompt"]
            return ["--method", "prompts/get", "--prompt-name", name, *(["--prompt-args", *pairs] if pairs else [])]


class Inspector:
    """Runs the inspector; holds how, and against what."""

    def __init__(self, command: list[str], job: Outcome, file: Path) -> None:
        era = {"handshake": "legacy"}.get(job["era"], job["era"])
        self._command = [*command, "--cli", "--format", "json", "--quiet", "--protocol-era", era]
        self._target = target_arguments(job["target"], file)
        self._deadline: float = job["deadline"]

    def ask(self, *request: str) -> Outcome:
        """One request, one process."""
        line = [*self._command, *self._target, *request]
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=self._deadline, check=False)
        except subprocess.TimeoutExpired:
            return {"failed": "Timeout", "message": f"nothing within {self._deadline} s"}
        try:
            answer = json.loads(done.stdout)
            return {"result": answer.get("result", answer)}
        except ValueError:
            return {"failed": f"exit {done.returncode}", "message": (done.stderr or done.stdout).strip()[-400:]}

    def listed(self, kind: str) -> Any:
        """One list; nothing where the server has no such thing."""
        outcome = self.ask("--method", METHODS.get(kind, f"{kind}/list"))
        return outcome["result"].get(LISTS[kind], outcome) if "result" in outcome else outcome


def main() -> None:
    """Read the job named on the command line, do it, print the report."""
    job: Outcome = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    inspector = Inspector(sys.argv[2:], job, Path(sys.argv[1]).with_suffix(".servers.json"))
    report: Outcome = {kind: inspector.listed(kind) for kind in program.KINDS}
    report["parts"] = {
        part["backend"]: {
            step["id"]: inspector.ask(*request_arguments(step, part)) for step in part["steps"] if step.get("brief")
        }
        for part in job["parts"]
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
