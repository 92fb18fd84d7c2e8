"""An MCP server that converts units and times. It has a table of units, no state and no files.

It uses the SDK's `MCPServer`: a function's signature becomes the input schema, its return type the output schema.
Amounts are exact fractions, so 0.1 km is 100 m and not 100.00000000000001.

    python examples/convert.py               # stdio
    python examples/convert.py --http 8801   # Streamable HTTP on http://127.0.0.1:8801/mcp
"""

import argparse
import difflib
import logging
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError
from mcp_types import Completion, CompletionArgument, CompletionContext, PromptReference, ToolAnnotations
from mcp_types import ResourceTemplateReference as TemplateReference
from pydantic import BaseModel, Field, WithJsonSchema

logger = logging.getLogger("convert")

Kind = Literal["length", "mass", "temperature", "volume", "speed", "data"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DIGITS = 28  # significant digits of an infinite decimal
MAX_DIGITS = 60  # limit for amounts and results
MAX_COMPLETIONS = 100  # limit of the protocol

READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit: `(amount + offset) * scale` is the amount in the base unit of its kind."""

    kind: Kind
    name: str
    symbol: str
    scale: Fraction
    offset: Fraction = Fraction(0)


def unit_table() -> dict[str, Unit]:
    """Every unit by name; the scales are the legal definitions."""
    rows: dict[Kind, str] = {
        "length": "metre m 1, kilometre km 1000, centimetre cm 0.01, millimetre mm 0.001, micrometre µm 1e-6, "
        "inch in 0.0254, foot ft 0.3048, yard yd 0.9144, mile mi 1609.344, nautical_mile nmi 1852",
        "mass": "kilogram kg 1, gram g 0.001, milligram mg 1e-6, tonne t 1000, pound lb 0.45359237, "
        "ounce oz 0.028349523125, stone st 6.35029318",
        "temperature": "kelvin K 1, celsius °C 1 273.15, fahrenheit °F 5/9 459.67, rankine °R 5/9",
        "volume": "litre L 1, millilitre mL 0.001, cubic_metre m³ 1000, us_gallon gal 3.785411784, "
        "us_quart qt 0.946352946, us_pint pt 0.473176473, us_cup cup 0.2365882365, us_fluid_ounce fl_oz "
        "0.0295735295625, tablespoon tbsp 0.01478676478125, teaspoon tsp 0.00492892159375, "
        "imperial_gallon imp_gal 4.54609, imperial_pint imp_pt 0.56826125",
        "speed": "metre_per_second m/s 1, kilometre_per_hour km/h 5/18, mile_per_hour mph 0.44704, knot kn 463/900, "
        "foot_per_second ft/s 0.3048",
        "data": "byte B 1, bit bit 1/8, kilobyte kB 1e3, megabyte MB 1e6, gigabyte GB 1e9, terabyte TB 1e12, "
        "kibibyte KiB 1024, mebibyte MiB 1048576, gibibyte GiB 1073741824, tebibyte TiB 1099511627776",
    }
    cells = [(kind, row.split()) for kind, line in rows.items() for row in line.split(",")]
    units = [Unit(kind, name, symbol, *map(Fraction, numbers)) for kind, (name, symbol, *numbers) in cells]
    return {unit.name: unit for unit in units}


UNITS: Mapping[str, Unit] = MappingProxyType(unit_table())

# Amounts may be numbers or strings, because a client may lose digits of a JSON number.
Amount = Annotated[Decimal, WithJsonSchema({"type": ["number", "string"], "examples": [12.5, "0.1"]})]
UnitName = Annotated[str, Field(max_length=64, description="A name or symbol from list_units; plurals are understood.")]
Zone = Annotated[str, Field(max_length=64, description="An IANA time zone, such as Europe/Paris.")]


class Converted(BaseModel):
    """Result of convert_units."""

    amount: str = Field(description="The result as a decimal.")
    unit: str
    exact: bool = Field(description=f"Whether the decimal is exact, else it is rounded to {DIGITS} digits.")
    sentence: str


class UnitInfo(BaseModel):
    """One unit, as listed."""

    name: str
    symbol: str
    kind: Kind


class UnitList(BaseModel):
    """Result of list_units."""

    units: list[UnitInfo]


class Moment(BaseModel):
    """A time in a zone."""

    zone: str
    time: str = Field(description="ISO 8601, with the offset from UTC.")
    weekday: str
    daylight_saving: bool


class ConvertedTime(BaseModel):
    """Result of convert_time."""

    source: Moment
    target: Moment
    ambiguous: bool = Field(description="Whether the source's clocks show this time twice that day.")


class Difference(BaseModel):
    """Result of date_difference; every value is negative if the end is before the start."""

    days: int
    weeks: int
    days_beyond_weeks: int
    working_days: int = Field(description="Mondays to Fridays, the start counted and the end not.")


def find_unit(text: str) -> Unit:
    """The unit with this name, plural or symbol. Symbols are case-sensitive, because mg is not Mg."""
    by_symbol = {unit.symbol: unit for unit in UNITS.values()}
    name = text.strip().casefold().replace(" ", "_").replace("meter", "metre").replace("liter", "litre")
    plurals = {"feet": "foot", "inches": "inch"}
    unit = by_symbol.get(text.strip()) or UNITS.get(plurals.get(name, name)) or UNITS.get(name.removesuffix("s"))
    if unit is None:
        near = difflib.get_close_matches(name, UNITS, n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else " See list_units."
        raise ToolError(f"There is no unit '{text}'.{hint}")
    return unit


def decimal_of(amount: Fraction) -> tuple[str, bool]:
    """The fraction as a decimal, and whether the decimal is exact."""
    precise = Context(prec=MAX_DIGITS)
    result = precise.divide(Decimal(amount.numerator), Decimal(amount.denominator))
    exact = Fraction(result) == amount
    if not exact:
        result = Context(prec=DIGITS).plus(result)
    text = f"{result:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text), exact


def zone_of(name: str) -> ZoneInfo:
    """The time zone with this name in the database."""
    zones = available_timezones()
    if name not in zones:
        near = difflib.get_close_matches(name, zones, n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ToolError(f"There is no time zone '{name}'.{hint}")
    return ZoneInfo(name)


def moment_of(time: datetime, zone: ZoneInfo) -> Moment:
    """An aware time, shown in a zone."""
    there = time.astimezone(zone)
    return Moment(
        zone=zone.key,
        time=there.isoformat(timespec="seconds"),
        weekday=there.strftime("%A"),
        daylight_saving=bool(there.dst()),
    )


def working_days(start: date, days: int) -> int:
    """The number of Mondays to Fridays in a period."""
    weeks, rest = divmod(days, 7)
    return weeks * 5 + sum((start.weekday() + offset) % 7 < 5 for offset in range(rest))


def unit_rows(kind: str) -> str:
    """A Markdown table of the units of one kind, or of all."""
    chosen = [unit for unit in UNITS.values() if kind in ("all", unit.kind)]
    rows = [f"| {unit.name} | {unit.symbol} | {unit.kind} |" for unit in chosen]
    return "\n".join(["| unit | symbol | kind |", "|---|---|---|", *rows, ""])


server = MCPServer(
    "convert",
    title="Unit and time converter",
    version="1.0.0",
    instructions="Converts units exactly, and times between zones. Use it instead of mental arithmetic.",
)


@server.tool(title="Convert units", annotations=READ_ONLY)
def convert_units(amount: Amount, unit: UnitName, target: UnitName) -> Converted:
    """Convert an amount from one unit to another of the same kind, exactly where a decimal can be."""
    source, wanted = find_unit(unit), find_unit(target)
    if source.kind != wanted.kind:
        raise ToolError(f"{source.name} is a unit of {source.kind}, {wanted.name} one of {wanted.kind}.")
    if abs(amount.adjusted()) > MAX_DIGITS or len(amount.as_tuple().digits) > MAX_DIGITS:
        raise ToolError(f"The amount has more than {MAX_DIGITS} digits.")
    base = (Fraction(amount) + source.offset) * source.scale
    if source.kind == "temperature" and base < 0:
        raise ToolError("That is below absolute zero.")
    text, exact = decimal_of(base / wanted.scale - wanted.offset)
    sentence = f"{amount:f} {source.symbol} {'=' if exact else '≈'} {text} {wanted.symbol}"
    return Converted(amount=text, unit=wanted.name, exact=exact, sentence=sentence)


@server.tool(title="List units", annotations=READ_ONLY)
def list_units(kind: Kind | None = None) -> UnitList:
    """List the units there are, of one kind or of all."""
    chosen = [unit for unit in UNITS.values() if kind in (None, unit.kind)]
    return UnitList(units=[UnitInfo(name=unit.name, symbol=unit.symbol, kind=unit.kind) for unit in chosen])


@server.tool(title="Time now", annotations=READ_ONLY)
def now(zone: Zone = "UTC") -> Moment:
    """Tell the time in a zone."""
    return moment_of(datetime.now(UTC), zone_of(zone))


@server.tool(title="Convert a time", annotations=READ_ONLY)
def convert_time(time: datetime, source_zone: Zone, target_zone: Zone) -> ConvertedTime:
    """Convert a local time of one zone to another, such as 2026-03-29T14:30 from Europe/Paris to Asia/Tokyo."""
    source, target = zone_of(source_zone), zone_of(target_zone)
    if time.tzinfo is not None:
        raise ToolError("The time must not have an offset: the source zone says what it is.")
    if not date.min + timedelta(days=2) <= time.date() <= date.max - timedelta(days=2):
        raise ToolError("The time is too far away.")
    first, second = (time.replace(tzinfo=source, fold=fold) for fold in (0, 1))
    if first.astimezone(UTC).astimezone(source).replace(tzinfo=None) != time:
        raise ToolError(f"{time.isoformat()} does not exist in {source.key}: the clocks are put forward over it.")
    ambiguous = first.utcoffset() != second.utcoffset()
    return ConvertedTime(source=moment_of(first, source), target=moment_of(first, target), ambiguous=ambiguous)


@server.tool(title="Days between dates", annotations=READ_ONLY)
def date_difference(start: date, end: date) -> Difference:
    """Count the days, weeks and working days from one date to another."""
    days = abs((end - start).days)
    sign = -1 if end < start else 1
    working = working_days(min(start, end), days)
    return Difference(
        days=sign * days, weeks=sign * (days // 7), days_beyond_weeks=sign * (days % 7), working_days=sign * working
    )


@server.resource("units://all", name="all_units", title="All units", mime_type="text/markdown")
def all_units() -> str:
    """The table of all units."""
    return unit_rows("all")


@server.resource("units://{kind}", name="units_of_kind", title="Units of one kind", mime_type="text/markdown")
def units_of_kind(kind: str) -> str:
    """The table of the units of one kind."""
    if kind not in KINDS:
        raise ResourceNotFoundError(f"There are no units of '{kind}', only of {', '.join(KINDS)}.")
    return unit_rows(kind)


@server.prompt(title="Convert and explain")
def explain_conversion(amount: str, unit: str, target: str) -> str:
    """Ask for a conversion with an everyday comparison."""
    return f"Convert {amount} {unit} to {target} with convert_units, then compare the result to something familiar."


@server.completion()  # type: ignore[no-untyped-call, untyped-decorator]  # the SDK's decorator has no annotations
async def complete(
    ref: PromptReference | TemplateReference, argument: CompletionArgument, context: CompletionContext | None
) -> Completion:
    """Complete kinds in the template, and units in the prompt; a target has the kind of the given unit."""
    known: list[str] = []
    if isinstance(ref, TemplateReference) and argument.name == "kind":
        known = list(KINDS)
    elif isinstance(ref, PromptReference) and argument.name in ("unit", "target"):
        given = (context.arguments if context else None) or {}
        source = UNITS.get(given.get("unit", "")) if argument.name == "target" else None
        known = [unit.name for unit in UNITS.values() if source is None or unit.kind == source.kind]
    fit = sorted(value for value in known if value.startswith(argument.value.casefold()))
    return Completion(values=fit[:MAX_COMPLETIONS], total=len(fit), has_more=len(fit) > MAX_COMPLETIONS)


def port_number(text: str) -> int:
    """Parse a TCP port of the command line."""
    port = int(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is between 1 and 65535")
    return port


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(description="An MCP server that converts units, times and dates.")
    parser.add_argument(
        "--http", type=port_number, metavar="PORT", help="serve Streamable HTTP on 127.0.0.1:PORT/mcp, not stdio"
    )
    port: int | None = parser.parse_args().http
    # To stderr, since stdout is the protocol's; forced, since MCPServer has set up a format of its own.
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", force=True)
    logger.info("%d units, over %s", len(UNITS), "stdio" if port is None else "HTTP")
    if port is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # or Ctrl-C would wait for one more line of input
        server.run("stdio")
    else:
        app = server.streamable_http_app(host="127.0.0.1")  # at /mcp, and only for this machine's own pages
        uvicorn.run(app, host="127.0.0.1", port=port, access_log=False)


if __name__ == "__main__":
    main()
