"""examples/convert.py, from a client's side: exact amounts, clocks, and both transports."""

import signal
import sys
from collections.abc import Iterator
from runpy import run_path
from typing import Any

import mcp_types as types
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from tests.examples.running import ERAS, EXAMPLES, VERSIONS, Era, connected, process_of
from tests.peers import BOUND
from tests.peers.processes import free_port

pytestmark = pytest.mark.anyio
CONVERT = run_path(str(EXAMPLES / "convert.py"))

EXACT = [
    (0.1, "km", "m", "100"),
    ("1", "mile", "kilometres", "1.609344"),
    ("-40", "°F", "celsius", "-40"),
    ("100", "celsius", "fahrenheit", "212"),
    ("1", "us gallon", "fl_oz", "128"),
    ("90", "km/h", "metre_per_second", "25"),
    ("1", "GiB", "byte", "1073741824"),
    ("1.00", "stone", "pounds", "14"),
    ("0.1234567890123456789012345", "km", "m", "123.4567890123456789012345"),
    ("123456789012345678901234567890", "kg", "g", "123456789012345678901234567890000"),
]
REFUSED = [
    ({"amount": "1", "unit": "furlongs", "target": "m"}, "no unit 'furlongs'"),
    ({"amount": "1", "unit": "metr", "target": "m"}, "Did you mean metre"),
    ({"amount": "1", "unit": "kg", "target": "m"}, "unit of mass"),
    ({"amount": "-500", "unit": "celsius", "target": "kelvin"}, "absolute zero"),
    ({"amount": "1e999999", "unit": "kg", "target": "g"}, "more than 60 digits"),
    ({"amount": "NaN", "unit": "kg", "target": "g"}, "finite"),
    ({"amount": "one", "unit": "kg", "target": "g"}, "amount"),
    ({"unit": "kg", "target": "g"}, "amount"),
]


def words_of(result: types.CallToolResult) -> str:
    [block] = result.content
    assert isinstance(block, types.TextContent)
    return block.text


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, words_of(result)
    content: dict[str, Any] = result.structured_content
    return content


@pytest.mark.parametrize("era", ERAS)
async def test_amounts_are_converted_exactly_or_refused_with_a_reason(era: Era) -> None:
    async with connected(CONVERT["server"], era=era) as client:
        for amount, unit, target, expected in EXACT:
            converted = await call(client, "convert_units", amount=amount, unit=unit, target=target)
            assert (converted["amount"], converted["exact"]) == (expected, True), (amount, unit, target)
        endless = await call(client, "convert_units", amount="1", unit="foot", target="yards")
        assert (endless["amount"], endless["exact"]) == ("0." + "3" * 28, False)
        assert endless["sentence"].startswith("1 ft ≈ 0.333")
        for arguments, reason in REFUSED:
            result = await client.call_tool("convert_units", arguments)
            assert result.is_error, arguments
            assert reason in words_of(result)


async def test_times_are_converted_and_the_clocks_changes_are_known() -> None:
    async with connected(CONVERT["server"], era="legacy") as client:
        paris = {"source_zone": "Europe/Paris", "target_zone": "Asia/Tokyo"}
        summer = await call(client, "convert_time", time="2026-07-01T14:30", **paris)
        assert summer["target"] == {
            "zone": "Asia/Tokyo",
            "time": "2026-07-01T21:30:00+09:00",
            "weekday": "Wednesday",
            "daylight_saving": False,
        }
        assert summer["source"]["daylight_saving"]
        assert not summer["ambiguous"]
        twice = await call(client, "convert_time", time="2026-10-25T02:30", **paris)
        assert twice["ambiguous"]
        assert twice["target"]["time"] == "2026-10-25T09:30:00+09:00"
        for arguments, reason in [
            ({"time": "2026-03-29T02:30", **paris}, "does not exist"),
            ({"time": "2026-03-29T02:30Z", **paris}, "must not have an offset"),
            ({"time": "2026-01-01T00:00", **paris, "target_zone": "Asia/Tokio"}, "Did you mean Asia/Tokyo"),
            ({"time": "2026-01-01T00:00", **paris, "source_zone": "../../etc/passwd"}, "no time zone"),
        ]:
            result = await client.call_tool("convert_time", arguments)
            assert result.is_error
            assert reason in words_of(result)
        assert (await call(client, "now"))["time"].endswith("+00:00")
        back = await call(client, "date_difference", start="2026-03-09", end="2026-03-01")
        assert back == {"days": -8, "weeks": -1, "days_beyond_weeks": -1, "working_days": -5}


async def test_tools_are_read_only_and_units_can_be_listed_read_and_completed() -> None:
    async with connected(CONVERT["server"], era="auto") as client:
        tools = (await client.list_tools()).tools
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
        assert all(tool.title and tool.output_schema and tool.output_schema["type"] == "object" for tool in tools)
        speeds = await call(client, "list_units", kind="speed")
        assert {"name": "knot", "symbol": "kn", "kind": "speed"} in speeds["units"]

        [table] = (await client.read_resource("units://all")).contents
        [short] = (await client.read_resource("units://mass")).contents
        assert isinstance(table, types.TextResourceContents)
        assert isinstance(short, types.TextResourceContents)
        assert set(short.text.splitlines()) < set(table.text.splitlines())
        with pytest.raises(MCPError, match="no units of 'love'"):
            await client.read_resource("units://love")

        prompt = types.PromptReference(name="explain_conversion")
        template = types.ResourceTemplateReference(uri="units://{kind}")
        kind = await client.complete(template, {"name": "kind", "value": "t"})
        target = await client.complete(prompt, {"name": "target", "value": "k"}, {"unit": "gram"})
    assert kind.completion.values == ["temperature"]
    assert target.completion.values == ["kilogram"]


@pytest.fixture
def http_url() -> Iterator[str]:
    """The example over HTTP, once it listens."""
    port = free_port()
    with process_of("convert.py", "--http", str(port)) as process:
        assert process.stderr is not None
        assert any("running on" in line for line in process.stderr), "it ended before it listened"
        yield f"http://127.0.0.1:{port}/mcp"
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=BOUND)
        assert printed == ""
        assert process.returncode in (0, -signal.SIGINT)


async def test_over_http_clients_of_both_eras_are_served_and_an_interrupt_ends_it(http_url: str) -> None:
    for era in ERAS:
        async with Client(http_url, mode=era, read_timeout_seconds=BOUND) as client:
            assert client.protocol_version == VERSIONS[era]
            converted = await call(client, "convert_units", amount="1", unit="inch", target="cm")
            assert converted["sentence"] == "1 in = 2.54 cm"


def test_an_invalid_port_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["convert.py", "--http", "65536"])
    with pytest.raises(SystemExit, match="2"):
        CONVERT["main"]()
    assert "a port is between 1 and 65535" in capsys.readouterr().err
