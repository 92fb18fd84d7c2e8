"""Configuration errors: place and reason, for all problems of a file at once."""

import pytest

from mcp_manifold.config import load, load_dict
from mcp_manifold.errors import ConfigError
from tests.unit.config.conftest import Home

DURATION = 'expected a duration above zero: a number of milliseconds, or "500ms", "30s", "2m", "1h"'
NO_PATH = "it is part of an address"


def cases(text: str) -> list[tuple[str, str]]:
    """Pairs of a wrong text and its error, from lines with an arrow between them."""
    joined = text.strip().replace("\n    ", " ").replace("<duration>", DURATION)
    return [(wrong, error) for wrong, _, error in (line.partition(" -> ") for line in joined.splitlines())]


SERVER_KEYS = r"""
"tiemout": 3 -> 1:39: mcpServers.a.tiemout: unknown key "tiemout"; did you mean "timeout"?
"Command": "y" -> 1:39: mcpServers.a.Command: contradicts "command"
"transprotType": "sse" -> 1:39: mcpServers.a.transprotType: unknown key "transprotType"; did you mean "transportType"?
"timeout": "soon" -> 1:50: mcpServers.a.timeout: <duration>, got "soon"
"timeout": 0 -> 1:50: mcpServers.a.timeout: <duration>, got 0
"sseReadTimeout": -1 -> 1:57: mcpServers.a.sseReadTimeout: <duration>, got -1
"sse_read_timeout": true -> 1:59: mcpServers.a.sse_read_timeout: <duration>, got true
"timeout": [] -> 1:50: mcpServers.a.timeout: <duration>, got a list
"args": "-v" -> 1:47: mcpServers.a.args: expected a list in [ ]
"args": ["a", {}] -> 1:53: mcpServers.a.args[1]: expected text in quotes
"env": [] -> 1:46: mcpServers.a.env: expected an object in { }
"env": {"A": null} -> 1:52: mcpServers.a.env.A: expected text in quotes
"env": {"A=B": "c"} -> 1:47: mcpServers.a.env["A=B"]: expected the name of an environment variable, without "="
"disabled": 3 -> 1:39: mcpServers.a.disabled: expected true or false
"enabled": "${ON}" -> 1:39: mcpServers.a.enabled: expected true or false
"enabled": true, "disabled": true -> 1:56: mcpServers.a.disabled: contradicts "enabled"
"type": "carrier-pigeon" -> 1:47: mcpServers.a.type: expected "stdio", "http", "sse" or "auto", got "carrier-pigeon"
"type": "http" -> 1:39: mcpServers.a.type: transport "http" needs "url", but the server has "command"
"type": "stdio", "transport": "sse" -> 1:56: mcpServers.a.transport: contradicts "type"
"url": "http://x" ->
    1:39: mcpServers.a.url: expected either "command" (a program to start) or "url" (an address), not both
"tools": {"alow": []} -> 1:49: mcpServers.a.tools.alow: unknown key "alow"; did you mean "allow"?
"tools": {"qqq": 1} -> 1:49: mcpServers.a.tools.qqq: unknown key "qqq"; known are allow, block
"disabledTools": "a" -> 1:56: mcpServers.a.disabledTools: expected a list in [ ]
"tools": {"block": 3}, "disabledTools": ["a"] -> 1:58: mcpServers.a.tools.block: expected a list in [ ], got 3
"tools": 3, "disabledTools": ["a"] -> 1:48: mcpServers.a.tools: expected an object in { }, got 3
"type": 3 -> 1:47: mcpServers.a.type: expected "stdio", "http", "sse" or "auto", got 3
"cwd": "\0" -> 1:46: mcpServers.a.cwd: expected text without NUL characters
"env": {"A": "\0"} -> 1:52: mcpServers.a.env.A: expected text without NUL characters
"prefix": 3 -> 1:49: mcpServers.a.prefix: expected text in quotes, got 3
"era": "ancient" -> 1:46: mcpServers.a.era: expected "auto", "handshake" or "modern", got "ancient"
"isolation": [] -> 1:52: mcpServers.a.isolation: expected "auto", "shared" or "client", got a list
"uris": {} -> 1:47: mcpServers.a.uris: expected "auto", "prefix" or "verbatim", got an object
"overrides": {"tools": {"t": {}}} ->
    1:63: mcpServers.a.overrides.tools.t: expected at least one of "name", "title", "description",
    "timeout" and "maxTimeout"
"overrides": {"tools": {"t": {"nam": "x"}}} ->
    1:69: mcpServers.a.overrides.tools.t.nam: unknown key "nam"; did you mean "name"?
"overrides": {"tool": {}} -> 1:53: mcpServers.a.overrides.tool: unknown key "tool"; did you mean "tools"?
"""


@pytest.mark.parametrize(("entry", "message"), cases(SERVER_KEYS))
def test_an_error_in_a_server_is_reported_at_its_place(home: Home, entry: str, message: str) -> None:
    text = f'{{"mcpServers": {{"a": {{"command": "x", {entry}}}}}}}'
    assert home.error(text, environ={"ON": "maybe"}) == f"manifold.json:{message}"


SERVERS = r"""
{"a": {}} -> 1:17: mcpServers.a: expected either "command" (a program to start) or "url" (an address)
{"a": []} -> 1:22: mcpServers.a: expected an object in { }
[] -> 1:16: mcpServers: expected an object with a server per key
{"mcp": {"command": "x"}} -> 1:17: mcpServers.mcp: "mcp" cannot name a server: /mcp is an endpoint of its own
{"": {"command": "x"}} -> 1:17: mcpServers[""]: expected a name of 1 to 64 characters
{"a/b": {}} -> 1:17: mcpServers["a/b"]: a name must not have "/" or "+": it is part of an address
{"a+b": {}} -> 1:17: mcpServers["a+b"]: a name must not have "/" or "+": it is part of an address
{"..": {}} -> 1:17: mcpServers[".."]: a name must not be "." or ".."
{"a": {"command": "x"}, "a": {"command": "y"}} -> 1:40: the key "a" is given twice, first in line 1
{"git": {"command": "x"}, "Git": {"command": "y"}} ->
    1:42: mcpServers.Git: "Git" differs from server "git" by case only: in the URI git+... they are the same
{"a": {"url": "ftp://x"}} -> 1:30: mcpServers.a.url: expected an address beginning with http:// or https://
{"a": {"url": "http://[x"}} -> 1:30: mcpServers.a.url: expected an address beginning with http:// or https://
{"a": {"url": "http://x", "headers": {"A": "b\r\nC: d"}}} ->
    1:59: mcpServers.a.headers.A: expected text on one line, without control characters
{"a": {"url": "http://"}} -> 1:30: mcpServers.a.url: expected an address beginning with http:// or https://
{"a": {"url": "http://x", "type": "stdio"}} ->
    1:42: mcpServers.a.type: transport "stdio" needs "command", but the server has "url"
{"a": {"url": "http://x", "headers": {"A b": "c"}}} ->
    1:54: mcpServers.a.headers["A b"]: expected the name of an HTTP header
{"a": {"url": "http://x", "headers": {"A": "b", "a": "c"}}} ->
    1:64: mcpServers.a.headers.a: the header is given twice (upper and lower case are the same)
{"a": {"url": "http://x", "serverUrl": "http://y"}} -> 1:42: mcpServers.a.serverUrl: contradicts "url"
"""


@pytest.mark.parametrize(("servers", "message"), cases(SERVERS))
def test_an_invalid_server_is_reported_at_its_place(home: Home, servers: str, message: str) -> None:
    assert home.error(f'{{"mcpServers": {servers}}}') == f"manifold.json:{message}"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("mcp", "sse", "messages", "health", "groups", "metrics", "_healthz", "_readyz"), "cannot name a server"),
        (("a\tb", "a\u0007", "x" * 65), "name"),
    ],
)
def test_the_paths_of_our_endpoints_and_unusual_texts_cannot_name_a_server(names: tuple[str, ...], reason: str) -> None:
    for name in names:
        with pytest.raises(ConfigError, match=reason):
            load_dict({"mcpServers": {name: {"command": "x"}}})


MANIFOLD_KEYS = r"""
"prot": 1 -> 1:15: manifold.prot: unknown key "prot"; did you mean "port"?
"port": "many" -> 1:23: manifold.port: expected a whole number, got "many"
"port": 1.5 -> 1:23: manifold.port: expected a whole number, got 1.5
"port": true -> 1:23: manifold.port: expected a whole number, got true
"port": 65536 -> 1:23: manifold.port: expected a number of at most 65535, got 65536
"port": -1 -> 1:23: manifold.port: expected a number of at least 0, got -1
"host": "" -> 1:23: manifold.host: expected some text, got ""
"nameBudget": 15 -> 1:29: manifold.nameBudget: expected a number of at least 16, got 15
"nameBudget": 129 -> 1:29: manifold.nameBudget: expected a number of at most 128, got 129
"separator": "/" -> 1:28: manifold.separator: expected 1 to 8 letters, digits, underscores or hyphens, got "/"
"basePath": "/a b" ->
    1:27: manifold.basePath: expected a path such as "/tools", of letters, digits and . _ ~ -, got "/a b"
"basePath": "/../x" ->
    1:27: manifold.basePath: expected a path such as "/tools", of letters, digits and . _ ~ -, got "/../x"
"logLevel": "loud" -> 1:27: manifold.logLevel: expected "debug", "info", "warning" or "error", got "loud"
"insecure": "perhaps" -> 1:27: manifold.insecure: expected true or false, got "perhaps"
"drain": "0s" -> 1:24: manifold.drain: <duration>, got "0s"
"limits": 3 -> 1:25: manifold.limits: expected an object in { }, got 3
"limits": {"maxBdy": 3} -> 1:26: manifold.limits.maxBdy: unknown key "maxBdy"; did you mean "maxBody"?
"limits": {"maxBody": 0} -> 1:37: manifold.limits.maxBody: expected a number above 0, got 0
"limits": {"maxBody": 1, "max_body": 1} ->
    1:40: manifold.limits.max_body: the setting is given twice, in two spellings
"tokens": "t" -> 1:25: manifold.tokens: expected a list in [ ]
"tokens": ["a b"] -> 1:26: manifold.tokens[0]: expected a token of visible ASCII characters, without spaces
"tokens": ["a", {"name": "x"}] -> 1:31: manifold.tokens[1]: "token" is missing
"tokens": [{"token": "a", "nam": "x"}] -> 1:41: manifold.tokens[0].nam: unknown key "nam"; did you mean "name"?
"tokens": ["a", "a"] -> 1:25: manifold.tokens: tokens "token-1" and "token-2" are the same
"tokens": [{"token": "a", "name": "\u0007"}] -> 1:49: manifold.tokens[0].name: a name must not have control characters
"groups": {"a/b": []} -> 1:26: manifold.groups["a/b"]: a name must not have "/" or "+": it is part of an address
"groups": {"g": "a"} -> 1:31: manifold.groups.g: expected a list in [ ], got "a"
"groups": {"g": ["gihub"]} -> 1:32: manifold.groups.g[0]: there is no server "gihub"; did you mean "github"?
"groups": {"g": ["github", "zzz"]} -> 1:42: manifold.groups.g[1]: there is no server "zzz"
"""


@pytest.mark.parametrize(("manifold", "message"), cases(MANIFOLD_KEYS))
def test_an_error_in_manifold_is_reported_at_its_place(home: Home, manifold: str, message: str) -> None:
    text = f'{{"manifold": {{{manifold}}}, "mcpServers": {{"github": {{"command": "x"}}}}}}'
    assert home.error(text) == f"manifold.json:{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", '1:1: expected an object such as {"mcpServers": {}}'),
        ("\ufeff[]", '1:1: expected an object such as {"mcpServers": {}}'),
        ("{\n", '1:2: the file ends too early: expected "}" or a key'),
        ('{"mcpservers": {}}', '1:2: mcpservers: unknown key "mcpservers"; did you mean "mcpServers"?'),
        ('{"mcp_servers": {}}', '1:2: mcp_servers: unknown key "mcp_servers"; did you mean "mcpServers"?'),
        ('{"manifolds": {}}', '1:2: manifolds: unknown key "manifolds"; did you mean "manifold"?'),
        ('{"servers": {}, "mcpServers": {}}', '1:2: servers: expected either "mcpServers" or "servers", not both'),
        ('{"gh": {"command": "x"}}', '1:2: gh: looks like a server; servers belong inside "mcpServers"'),
        ('{"manifold": []}', "1:14: manifold: expected an object in { }"),
    ],
)
def test_a_file_of_another_shape_is_refused_with_advice(home: Home, text: str, message: str) -> None:
    assert home.error(text) == f"manifold.json:{message}"


MANY = """{"mcpServers": {
  "key": {"command": "x", "tiemout": 3},
  "type": {"command": "x", "args": "-v"},
  "duration": {"command": "x", "timeout": "soon"},
  "variable": {"command": "x", "env": {"A": "${NOPE}", "B": "${NEITHER}"}},
  "pattern": {"command": "x", "tools": {"allow": ["ok", "@destructve"]}},
  "all": {"url": "ftp://x", "headers": {"A": []}, "${NOPE}": 1, "envFile": "${GONE}", "retry": "often"},
  "git/hub": {}, "none": {}, "text": "x",
  "fine": {"command": "x", "oauth": {}}},
 "manifold": {"port": "many", "groups": {"g": ["nobody"]}, "logLevel": "${UNSET}", "max_body": 1}}"""


def test_all_problems_of_a_file_are_reported_at_once_in_its_order(home: Home) -> None:
    messages = home.error(MANY, environ={"MCP_MANIFOLD_DRAIN": "never"}).splitlines()
    assert [line.removeprefix("manifold.json:").partition("; known are")[0] for line in messages] == [
        f"MCP_MANIFOLD_DRAIN: {DURATION}",
        '2:27: mcpServers.key.tiemout: unknown key "tiemout"; did you mean "timeout"?',
        "3:36: mcpServers.type.args: expected a list in [ ]",
        f'4:43: mcpServers.duration.timeout: {DURATION}, got "soon"',
        '5:45: mcpServers.variable.env.A: the variable "NOPE" is not set',
        '5:61: mcpServers.variable.env.B: the variable "NEITHER" is not set',
        "6:57: mcpServers.pattern.tools.allow[1]: invalid pattern: expected a name, a glob or one of "
        '@readOnly, @destructive, @idempotent, @openWorld, got "@destructve"',
        "7:18: mcpServers.all.url: expected an address beginning with http:// or https://",
        "7:46: mcpServers.all.headers.A: expected text in quotes",
        '7:51: mcpServers.all["${NOPE}"]: unknown key "${NOPE}"',
        '7:76: mcpServers.all.envFile: the variable "GONE" is not set',
        '7:96: mcpServers.all.retry: expected "never", "safe" or "idempotent", got "often"',
        f'8:3: mcpServers["git/hub"]: a name must not have "/" or "+": {NO_PATH}',
        '8:18: mcpServers.none: expected either "command" (a program to start) or "url" (an address)',
        "8:38: mcpServers.text: expected an object in { }",
        '10:23: manifold.port: expected a whole number, got "many"',
        '10:48: manifold.groups.g[0]: there is no server "nobody"',
        '10:72: manifold.logLevel: the variable "UNSET" is not set',
        '10:84: manifold.max_body: unknown key "max_body"',
    ]


def test_the_error_has_each_problem_with_its_place_key_and_remedy(home: Home) -> None:
    with pytest.raises(ConfigError) as caught:
        home.load(MANY)
    error, problem = caught.value, caught.value.problems[0]
    assert (error.path, error.line, error.column, error.server) == (str(home.file), 10, 23, "")
    assert (problem.severity, problem.what, problem.remedy) == (
        "broken",
        'unknown key "tiemout"',
        'did you mean "timeout"?',
    )
    assert (problem.file, problem.line, problem.column) == (str(home.file), 2, 27)
    assert (problem.key, problem.server) == ("mcpServers.key.tiemout", "key")
    keys = {severity: [each.key for each in error.problems if each.severity == severity] for severity in ("warning",)}
    assert keys == {"warning": ["mcpServers.all.envFile", "mcpServers.fine.oauth"]}
    assert [each.server for each in error.problems if each.severity == "error"] == [""] * 4


@pytest.mark.parametrize(
    ("text", "column", "parts"),
    [
        (
            '{"mcpServers": {"a": {"comand": "x"}, "b": {"command": "${NOPE}", "timeout": "soon"}}}',
            1,
            ["mcpServers.a.comand", "mcpServers.b.command", "mcpServers.b.timeout"],
        ),
        (
            '{"mcpServers": {"a": {"comand": "C:\\Users", "a": 010, "timeout": }}}',
            0,
            ["manifold.json:1:33", "manifold.json:1:50", "manifold.json:1:66"],
        ),
    ],
    ids=["a whole server is checked once its keys are right", "a syntax error hides all but the values before it"],
)
def test_a_problem_hides_the_problems_that_follow_from_it(home: Home, text: str, column: int, parts: list[str]) -> None:
    assert [line.split(": ")[column] for line in home.error(text).splitlines()] == parts


def test_the_number_of_reported_problems_is_bounded(home: Home) -> None:
    servers = ",".join(f'"s{number}": {{"command": "x", "icon": 1, "nope": 1}}' for number in range(1000))
    messages = home.error(f'{{"mcpServers": {{{servers}}}}}').splitlines()
    assert (len(messages), messages[-1]) == (101, "and 900 more of these")
    warnings = home.load(f'{{"mcpServers": {{{servers.replace("nope", "id")}}}}}').warnings
    assert (len(warnings), warnings[-1]) == (101, "and 1900 more of these")


def test_the_error_for_an_unreadable_file_has_the_reason(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"manifold\.json: cannot be read: No such file or directory$"):
        load(home.file, environ={})
    home.file.write_bytes(b"{\xff}")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8 text"):
        load(home.file, environ={})


def test_an_error_in_a_dict_names_the_path_of_the_key() -> None:
    with pytest.raises(ConfigError) as caught:
        load_dict({"mcpServers": {"a b": {"command": "x", "args": [[]]}}})
    assert str(caught.value) == '<dict>: mcpServers["a b"].args[0]: expected text in quotes'
    with pytest.raises(ConfigError, match="expected only text as keys, got int"):
        load_dict({"mcpServers": {"a": {"command": "x", "env": {1: "x"}}}})
