"""The rows: what is done to a site, and what must hold. Each starts its own, and is one function."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from client import LoadClient
from judging import SoakRow, first, judge_rest, judge_untouched, slope
from load import CallLoad, fastest, named
from manifold import Sample, Site, config_of, five, stdio
from trouble import Trouble

from tests.peers.processes import until

UNTOUCHED = ["pipe_a", "web_a"]
VICTIMS = ["pipe_b", "pipe_c", "web_b"]


async def warm(site: Site, servers: list[str]) -> Sample:
    """What it holds at rest, once everything was used."""
    await fastest(site.port, servers, seconds=2)
    await asyncio.sleep(6)  # what was kept for the next request is closed by then
    return await site.sample()


async def calm_load(site: Site, servers: list[str], rate: float, *, seconds: float) -> tuple[CallLoad, dict, float]:
    """A load while nothing is wrong: how many calls each server got by then, and the time that 99 of 100 took."""
    load = CallLoad(site.port, servers, rate=rate)
    await asyncio.sleep(seconds)
    calm = {server: len(outcome.seconds) for server, outcome in load.outcomes.items()}
    return load, calm, max(load.outcomes[server].p99() for server in UNTOUCHED)


async def r1(row: SoakRow, seconds: float, scale: float) -> None:
    """20 calls in flight at a stdio server that is killed."""
    async with five() as (site, _):
        base = await warm(site, UNTOUCHED + VICTIMS)
        worst_error = worst_next = 0.0
        for _ in range(max(2, round(5 * scale))):
            load = CallLoad(site.port, UNTOUCHED, rate=50)
            clients = [LoadClient(site.port) for _ in range(20)]
            calls = [asyncio.create_task(client.call("pipe_b__slow", seconds=60)) for client in clients]
            await asyncio.sleep(1)
            victim = await site.pid_of("pipe_b")
            os.kill(victim, signal.SIGKILL)
            began = time.monotonic()
            answers = await asyncio.gather(*calls)
            worst_error = max(worst_error, time.monotonic() - began)
            row.require(all(named(each, "pipe_b") for each in answers), f"{len(answers)} errors that name the server")
            for _ in range(500):
                if "result" in await clients[0].call("pipe_b__echo", text="next"):
                    break
                await asyncio.sleep(0.02)
            worst_next = max(worst_next, time.monotonic() - began)
            await load.end()
            judge_untouched(row, load, UNTOUCHED, 0.1, {})
            for client in clients:
                await client.close()
            await asyncio.sleep(12)  # a process that lived for less counts as one that crashes again and again
        row.figures = sorted(set(row.figures) - {each for each in row.figures if each.startswith("I1")})
        row.require(worst_error <= 1, f"all 20 errors within {worst_error:.2f} s of the kill")
        row.require(worst_next <= 2, f"the next call served within {worst_next:.2f} s of the kill")
        await judge_rest(row, site, base)


async def r16(row: SoakRow, seconds: float, scale: float) -> None:
    """0 -> 500 -> 0 clients, ten times."""
    number = max(20, round(500 * scale))
    async with five() as (site, _):
        strange: list[str] = []
        servers = UNTOUCHED

        async def visit(turn: int, who: int, there: asyncio.Barrier) -> None:
            server = servers[who % len(servers)]
            try:
                async with LoadClient(site.port) as client:
                    await client.connect()
                    for step in range(2):
                        said = f"{turn} {who} {step}"
                        answer = await client.call(f"{server}__echo", text=said)
                        if answer.get("result", {}).get("content", [{}])[0].get("text") != said:
                            strange.append(str(answer)[:200])
                        if step == 0:
                            await there.wait()  # all of them are there at the same time
                    await client.leave()
            except (OSError, EOFError, TimeoutError) as exc:
                strange.append(f"{type(exc).__name__}: {exc}")
                await there.abort()

        async def spike(turn: int) -> None:
            there = asyncio.Barrier(number)
            with contextlib.suppress(asyncio.BrokenBarrierError):
                await asyncio.gather(*(visit(turn, who, there) for who in range(number)))

        await spike(0)
        base = await warm(site, servers)
        took = []
        for turn in range(1, 11):
            began = time.monotonic()
            await spike(turn)
            took.append(time.monotonic() - began)
        row.require(not strange, f"10 spikes of {number} clients at once, {len(strange)} errors{first(strange)}")
        row.note(f"a spike took {min(took):.1f} to {max(took):.1f} s")
        await judge_rest(row, site, base)


async def r17(row: SoakRow, seconds: float, scale: float) -> None:
    """30,000 sessions opened and closed."""
    number = max(600, round(30_000 * scale))
    async with five() as (site, _):
        points: list[tuple[float, float]] = []
        wrong: Counter[str] = Counter()
        done = 0

        async def sessions(count: int) -> None:
            nonlocal done
            async with LoadClient(site.port) as client:
                for _ in range(count):
                    await client.connect()
                    status = await client.leave()
                    wrong[str(status)] += status != 204
                    done += 1

        async def batch(count: int) -> None:
            await asyncio.gather(*(sessions(count // 10) for _ in range(10)))

        await batch(number // 5)  # until memory has grown to what such a load needs
        base = await site.sample()
        began, done = time.monotonic(), 0
        for _ in range(20):
            await batch(number // 20)
            points.append((done, (await site.sample()).memory))
        took = time.monotonic() - began
        per_session = slope(points)
        first_mib, last_mib = points[0][1] / 2**20, points[-1][1] / 2**20
        row.require(
            not sum(wrong.values()), f"{done} sessions opened and closed in {took:.0f} s, {sum(wrong.values())} refused"
        )
        row.require(
            per_session < 1024, f"memory: {per_session:+.0f} bytes a session, {first_mib:.1f} to {last_mib:.1f} MiB"
        )
        now = await site.sample()
        row.require(now.sessions == 0, f"{now.sessions} sessions left")
        await judge_rest(row, site, base)


async def r27(row: SoakRow, seconds: float, scale: float) -> None:
    """Reloads at 200 calls a second: added, changed, removed, a bad file, a half-written one."""
    async with five() as (site, _):
        pids = {server: await site.pid_of(server) for server in ("pipe_a", "pipe_b")}
        base_sample = await warm(site, UNTOUCHED)
        load, calm, base = await calm_load(site, [*UNTOUCHED, "pipe_b"], 200, seconds=8)
        done: Counter[str] = Counter()
        servers, number = dict(site.servers), 0
        await site.sample()  # from which on the lag counts
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            number += 1
            await reload_once(site, servers, number, done, row)
        await load.end()
        for server, pid in pids.items():
            row.require(await site.pid_of(server) == pid, f"{server} kept its process")
        row.note(", ".join(f"{count} x {what}" for what, count in sorted(done.items())))
        row.note(f"the event loop was late by at most {(await site.sample()).lag * 1000:.0f} ms")
        judge_untouched(row, load, [*UNTOUCHED, "pipe_b"], base, calm)
        site.program.replace(config_of(site.servers))
        await judge_rest(row, site, base_sample)


async def reload_once(site: Site, servers: dict, number: int, done: Counter, row: SoakRow) -> None:
    """One change of each kind, each waited for."""
    extra = {**servers, "pipe_x": stdio()}
    changed = {**extra, "pipe_x": stdio(env={"ROUND": str(number)}), "pipe_c": stdio(env={"ROUND": str(number)})}
    bad = '{"mcpServers": {"pipe_a": {"comand": 1}}}'
    for what, words, text in (
        ("added", "reloaded: added pipe_x", config_of(extra)),
        ("changed", "reloaded: changed", config_of(changed)),
        ("bad file", "not reloaded", bad),
        ("removed", "reloaded: ", config_of(servers)),
    ):
        mark = len(site.program.said)
        if what == "removed":  # half of it first, as some editors do
            site.program.write(text[: len(text) // 2])
            await asyncio.sleep(0.2)
        site.program.write(text)
        came = await site.says(words, after=mark)
        done["half-written and removed" if what == "removed" else what] += 1
        if not came:
            row.require(False, f"{what}: never said {words!r}")


async def r36(row: SoakRow, seconds: float, scale: float) -> None:
    """A soak at about 30 % load, with random faults at three of five servers."""
    async with five() as (site, webs):
        await fastest(site.port, UNTOUCHED + VICTIMS, seconds=2)
        most = await fastest(site.port, UNTOUCHED + VICTIMS, seconds=5)
        base_sample = await warm(site, UNTOUCHED + VICTIMS)
        rate = most * 0.3
        load, calm, base = await calm_load(site, UNTOUCHED + VICTIMS, rate, seconds=max(10.0, seconds * 0.1))
        trouble = Trouble(site, webs, VICTIMS, random.Random(row.id))
        samples = await troubled(site, trouble, seconds)
        row.note(
            f"{rate:.0f} calls a second ({most:.0f} at most), {seconds:.0f} s, {sum(trouble.made.values())} faults"
        )
        row.note("faults: " + ", ".join(f"{count} x {what}" for what, count in sorted(trouble.made.items())))
        back = await recovered(site, load)
        row.require(back < 45, f"every server served again within {back:.0f} s of the last fault")
        await load.end()
        judge_untouched(row, load, UNTOUCHED, base, calm)
        for server in VICTIMS:
            outcome = load.outcomes[server]
            failed = " and ".join(f"{count} `{reason}`" for reason, count in outcome.failed.most_common())
            row.note(f"{server}: {outcome.served} served, {failed or 'none'} failed, all with its name")
        late = samples[len(samples) // 4 :]
        growth = slope([((each.at - late[0].at) / 60, each.memory / 1024) for each in late])
        row.require(growth < 512, f"memory: {growth:+.0f} KiB a minute, {late[-1].memory / 2**20:.1f} MiB at the end")
        row.note(f"the event loop was late by at most {max(each.lag for each in samples) * 1000:.0f} ms")
        await judge_rest(row, site, base_sample)


async def troubled(site: Site, trouble: Trouble, seconds: float) -> list[Sample]:
    """Samples, one a second, while one fault follows the other."""
    samples, ends = [], time.monotonic() + seconds

    async def watch() -> None:
        while time.monotonic() < ends:
            samples.append(await site.sample())
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    while time.monotonic() < ends:
        await trouble.make()
        await asyncio.sleep(1)
    await watching
    return samples


async def recovered(site: Site, load: CallLoad) -> float:
    """Seconds until each victim served again, from now on."""
    began = time.monotonic()
    before = {server: load.outcomes[server].served for server in VICTIMS}
    with contextlib.suppress(AssertionError):  # the seconds are what is judged
        await until(lambda: all(load.outcomes[name].served > before[name] + 3 for name in VICTIMS), "all servers")
    return time.monotonic() - began


ROWS: dict[str, tuple[str, Callable[[SoakRow, float, float], Awaitable[None]], float]] = {
    "R1": ("20 calls in flight, `kill -9` of their stdio server", r1, 0.0),
    "R16": ("a spike of 0 -> 500 -> 0 clients, ten times", r16, 0.0),
    "R17": ("30,000 sessions opened and closed", r17, 0.0),
    "R27": ("reloads at 200 calls a second", r27, 0.25),
    "R36": ("a soak at 30 % load with random faults", r36, 0.75),
}
"""What, how, and which part of the duration each takes; those of no part take what they need."""
