"""Bandwidth and latency between the RoCE ports of NPUs, by the vendor's own test: ``hccn_tool -i N -roce_test``.

Such a port belongs to its NPU, and libibverbs does not see it. The tool has the NPU run perftest: the server waits on
one node, the client on another names the server's address. Only when asked for (``--transport npu``): it takes the
port from whoever uses it, and a node's ports come one after the other, since two calls of the tool get in each
other's way. A test that was left over is reset before and after: ending the tool does not end what the NPU runs.

Command lines and limits: the tool's published source (driver, network/hccn: cmd.c, tool.h, 2026). Times are those
of full round trips, as everywhere here: perftest tells half of one of write and send.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from cwai_bench.discover import command
from cwai_bench.discover.script import run_command
from cwai_bench.errors import UsageError
from cwai_bench.model import LeftOut, Measurement, ProbeSpec, Reading, Scalar, Subject, stats_of
from cwai_bench.probes import Context, Options, World, probe
from cwai_bench.probes.counters import moved
from cwai_bench.probes.pairs import Round, all_pairs, ring
from cwai_bench.probes.transport import Kind, info_of
from cwai_bench.readers import Unreadable, ascend
from cwai_bench.readers.roce_test import Report, report
from cwai_bench.sources import Command
from cwai_bench.text import Text, plain

DEVICES = Path("/dev")
TOOL = "hccn_tool"
VERBS = ("write", "read", "send")
SIZE, LATENCY_SIZE = 1 << 20, 2
ITERATIONS: dict[Kind, int] = {"bandwidth": 5000, "latency": 1000}
"""perftest's own, of ib_write_bw and of ib_write_lat."""
FEWEST, MOST = 5, 20_000
"""Iterations that the tool takes."""
LARGEST = 874_736_000
"""Bytes of a message that the tool takes, by its manual."""
ASK_TIMEOUT = 10.0
START_SECONDS = 4.0
"""Seconds until a server is there to be called: the tool says nothing of it before the end, and asks the NPU once a
second itself."""
FINISH_SECONDS = 5.0
"""Seconds in which the server tells its end once the client has told its own."""
LIMIT = 60.0
"""Seconds after which an end is given up."""
PAIR_SECONDS = START_SECONDS + 6.0
PORTS_EXPECTED, PORTS_MOST = 8, 16
"""Ports of a node: nobody has looked when the plan is made. Atlas 800 has 8, Atlas 900 A3 has 16."""
AGAIN, TRIES = ("is busy, please try again", "Couldn't connect"), 5
"""What the tool says that was called beside another call of it, and perftest that found no server yet; how often it is
then called, a second apart."""

_SUGGESTION = Text(
    "see ascend.roce.*: link, optics, errors, MTU; compare with other NPUs of the same number",
    "见 ascend.roce.*：链路、光模块、错误计数与 MTU；与其他节点同编号的 NPU 比较",
)
BANDWIDTH = info_of(
    "npu",
    "bandwidth",
    Text("RoCE bandwidth between NPUs", "NPU 间 RoCE 带宽"),
    Text(
        "hccn_tool -i N -roce_test ib_(write|read|send)_bw between NPUs of the same number; the client counts",
        "在编号相同的 NPU 之间执行 hccn_tool -i N -roce_test ib_(write|read|send)_bw；由客户端计数",
    ),
    _SUGGESTION,
    [TOOL, "root"],
)
LATENCY = info_of(
    "npu",
    "latency",
    Text("RoCE round trip between NPUs", "NPU 间 RoCE 往返时延"),
    Text(
        "hccn_tool -i N -roce_test ib_(write|read|send)_lat; the median, of write and send twice what it tells",
        "hccn_tool -i N -roce_test ib_(write|read|send)_lat 的中位数；write 与 send 取其两倍",
    ),
    _SUGGESTION,
    [TOOL, "root"],
)


# ---------------------------------------------------------------------------------------------- plan

_UNASKED = Text(
    "the RoCE ports of the NPUs are measured by --transport npu, while nobody uses them",
    "NPU 的 RoCE 网口需以 --transport npu 测量，且须在空闲时进行",
)


def _plan(kind: Kind) -> Callable[[World, Options], list[ProbeSpec | LeftOut]]:
    info = BANDWIDTH if kind == "bandwidth" else LATENCY

    def plan(world: World, options: Options) -> list[ProbeSpec | LeftOut]:
        if options.transport == "auto" and kind == "bandwidth" and any(DEVICES.glob("davinci[0-9]*")):
            return [LeftOut("npu", "not_selected", _UNASKED)]
        if options.transport != "npu" or options.kind not in (kind, "both"):
            return []
        iterations = options.iterations or ITERATIONS[kind]
        sizes = options.sizes or (SIZE if kind == "bandwidth" else LATENCY_SIZE,)
        _refuse_impossible(world, options, iterations, sizes)
        found: list[ProbeSpec | LeftOut] = []
        for verb in VERBS:
            for size in sizes:
                parameters: dict[str, Scalar] = {
                    "transport": "npu",
                    "verb": verb,
                    "direction": "one-way" if kind == "bandwidth" else "round-trip",
                    "bytes": size,
                    "streams": 1,
                    "iterations": iterations,
                    "pairs": options.pairs,
                }
                rounds = len(_rounds(len(world.nodes), parameters))
                found.append(
                    ProbeSpec(
                        f"{info.id}#{len(found)}",
                        info.id,
                        info,
                        parameters,
                        PORTS_EXPECTED * rounds * PAIR_SECONDS,
                        options.item_timeout or PORTS_MOST * rounds * LIMIT,
                    )
                )
        return found

    return plan


def _refuse_impossible(world: World, options: Options, iterations: int, sizes: tuple[int, ...]) -> None:
    if len(world.nodes) < 2:
        raise UsageError(
            Text("--transport npu measures between nodes", "--transport npu 在节点之间测量"),
            Text("start it on two nodes or more, one rank each", "请在两个或更多节点上启动，每节点一个 rank"),
        )
    if options.direction == "two-way" or (options.streams or 1) > 1:
        raise UsageError(
            Text("--transport npu measures one way, over one queue pair", "--transport npu 仅支持单向、单队列对"),
            Text("leave --direction and --streams out", "请去掉 --direction 与 --streams"),
        )
    if not FEWEST <= iterations <= MOST:
        raise UsageError(
            Text("--iterations: hccn_tool takes {a} to {b}", "--iterations：hccn_tool 仅接受 {a} 到 {b}").fill(
                a=FEWEST, b=MOST
            )
        )
    if not all(1 <= size <= LARGEST for size in sizes):
        raise UsageError(
            Text("--sizes: hccn_tool takes 1 to {b} bytes", "--sizes：hccn_tool 仅接受 1 到 {b} 字节").fill(b=LARGEST)
        )


def _rounds(nodes: int, given: Mapping[str, Scalar]) -> list[Round]:
    return all_pairs(nodes) if given["pairs"] == "all" else ring(nodes, directed=True)


# ------------------------------------------------------------------------------------------- measure


class Port(msgspec.Struct, frozen=True):
    """The RoCE port of an NPU: its address, and its speed in bytes per second (0: unknown); or why it has none."""

    address: str = ""
    speed: float = 0.0
    trouble: Text | None = None


class _End(NamedTuple):
    rank: int
    node: str
    number: int
    port: Port

    @property
    def name(self) -> str:
        return f"{self.node}/npu{self.number}"


class _Said(msgspec.Struct, frozen=True):
    """How it went at one end. ``text``: what its tool printed, ``trouble``: why that is no report."""

    text: str = ""
    trouble: Text | None = None
    timed_out: bool = False
    counters: dict[str, int | None] = {}


def ports() -> dict[int, Port]:
    """The NPUs of this node by number, each with its port."""
    numbers = [int(n) for path in DEVICES.glob("davinci[0-9]*") if (n := path.name.removeprefix("davinci")).isdecimal()]
    return {number: _port(number) for number in sorted(numbers)}


def _port(number: int) -> Port:
    asked = _ask(number, "-ip", "-g")
    try:
        net = ascend.network(asked.text)
    except Unreadable:
        return Port(trouble=plain(f"{TOOL} -i {number} -ip -g: {_first_words(asked)}"))
    if net is None:
        return Port(trouble=Text("its port has no address", "其网口未配置地址"))
    try:
        speed = ascend.speed(_ask(number, "-speed", "-g").text)
    except Unreadable:
        speed = None
    return Port(str(net.ip), (speed or 0.0) / 8)


def _ask(number: int, *words: str) -> Reading:
    return command.run(Command(TOOL, "-i", str(number), *words), ASK_TIMEOUT)


def _counters(number: int) -> dict[str, int]:
    try:
        return {f"npu/{name}": value for name, value in ascend.statistics(_ask(number, "-stat", "-g").text).items()}
    except Unreadable:
        return {}


def _first_words(reading: Reading) -> str:
    said = reading.text.strip().split("\n")[-1][:150] or reading.detail[:150]
    return said or f"{reading.status}, exit code {reading.exit_code}"


def _measure(kind: Kind) -> Callable[[Context], None]:
    def measure(ctx: Context) -> None:
        group = ctx.group
        mine = ports() if group.rank in group.leaders else {}
        told = group.allgather({str(number): msgspec.to_builtins(port) for number, port in mine.items()})
        here = [{int(n): msgspec.convert(p, Port) for n, p in told[rank].items()} for rank in group.leaders]
        rounds = _rounds(len(group.leaders), ctx.spec.parameters)
        numbers = sorted({number for found in here for number in found})
        if not numbers and group.rank == 0:
            _emit_nothing(ctx, kind)
        for count, (number, together) in enumerate([(n, r) for n in numbers for r in rounds]):
            ctx.beat({"item": ctx.spec.id, "phase": "round", "round": count + 1, "rounds": len(numbers) * len(rounds)})
            absent = Port(trouble=Text("there is no such NPU", "没有该 NPU"))
            ends = [
                _End(rank, group.nodes[rank], number, found.get(number, absent))
                for rank, found in zip(group.leaders, here, strict=True)
            ]
            _round(ctx, kind, [(ends[c], ends[s]) for c, s in together])

    return measure


def _emit_nothing(ctx: Context, kind: Kind) -> None:
    nowhere = _End(ctx.group.rank, ctx.node, 0, Port())
    said = _Said(trouble=Text("no node has an NPU (/dev/davinci*)", "没有节点具有 NPU（/dev/davinci*）"))
    _emit(ctx, kind, (nowhere, nowhere), said, {}, time.time())


def _round(ctx: Context, kind: Kind, pairs: list[tuple[_End, _End]]) -> None:
    """One NPU of each node. Three exchanges, which every rank comes to: all is reset, the clients are done, all is."""
    group, started = ctx.group, time.time()
    pair = next(((c, s) for c, s in pairs if group.rank in (c.rank, s.rank)), None)
    if pair is not None and any(end.port.trouble is not None for end in pair):
        said = _Said(trouble=_troubles(pair))
        if pair[0].rank == group.rank:
            _emit(ctx, kind, pair, said, {}, started)
        pair = None
    own = None if pair is None else next(end for end in pair if end.rank == group.rank)
    before: dict[str, int] = {}
    if own is not None:
        _reset(own.number)
        before = _counters(own.number)
    group.allgather(None)

    limit = min(LIMIT, max(1.0, ctx.deadline - time.monotonic()))
    said = _Said()
    server: _Server | None = None
    if pair is not None and own is not None:
        words = _words(ctx.spec.parameters, kind)
        if own is pair[1]:
            server = _Server(own.number, words, limit)
        else:
            time.sleep(min(START_SECONDS, limit))
            said = _run(own.number, (*words, "address", pair[1].port.address), limit)
    group.allgather(None)

    if own is not None:
        if server is not None:
            said = server.end()
        _reset(own.number)
        said = msgspec.structs.replace(said, counters=moved(before, _counters(own.number)))
    told = group.allgather(msgspec.to_builtins(said))
    if pair is not None and pair[0].rank == group.rank:
        other = msgspec.convert(told[pair[1].rank], _Said)
        counters = {pair[0].name: said.counters, pair[1].name: other.counters}
        if said.trouble is not None and other.trouble is not None:
            said = msgspec.structs.replace(
                said,
                trouble=Text("{a}; {n}: {b}", "{a}；{n}：{b}").fill(a=said.trouble, n=pair[1].name, b=other.trouble),
            )
        _emit(ctx, kind, pair, said, counters, started)


def _troubles(pair: tuple[_End, _End]) -> Text:
    told = [(end.name, end.port.trouble) for end in pair if end.port.trouble is not None]
    return Text("; ".join(f"{n}: {t.en}" for n, t in told), "；".join(f"{n}：{t.zh}" for n, t in told))


def _words(given: Mapping[str, Scalar], kind: Kind) -> tuple[str, ...]:
    test = f"ib_{given['verb']}_{'bw' if kind == 'bandwidth' else 'lat'}"
    return ("-roce_test", test, "-s", str(given["bytes"]), "-n", str(given["iterations"]), "-tcp")


def _reset(number: int) -> None:
    """End whatever test the NPU runs. What it says of it matters to nobody: the next test tells."""
    _ask(number, "-roce_test", "reset")


class _Server:
    """The end that waits, in a thread of its own."""

    def __init__(self, number: int, words: tuple[str, ...], limit: float) -> None:
        self._number = number
        self._said = _Said()
        self._thread = threading.Thread(target=self._serve, args=(words, limit), daemon=True)
        self._thread.start()

    def _serve(self, words: tuple[str, ...], limit: float) -> None:
        self._said = _run(self._number, words, limit)

    def end(self) -> _Said:
        """What it said, once the client is done; one that still waits was not called, and is ended by a reset."""
        self._thread.join(FINISH_SECONDS)
        if self._thread.is_alive():
            _reset(self._number)
            self._thread.join()
        return self._said


def _run(number: int, words: tuple[str, ...], limit: float) -> _Said:
    """One end of a test."""
    for attempt in range(TRIES):
        time.sleep(min(attempt, 1))
        reading = run_command(Command(TOOL, "-i", str(number), *words, timeout=limit))
        if not any(said in reading.text for said in AGAIN):
            break
    if reading.status == "timeout":
        return _Said(trouble=Text("no end within {s:g} s", "{s:g} 秒内未结束").fill(s=limit), timed_out=True)
    try:
        report(reading.text)
    except Unreadable as e:
        why = reading.detail if reading.status != "ok" else str(e)
        return _Said(trouble=plain(f"{TOOL} {' '.join(words[:2])}: {why}"))
    return _Said(text=reading.text)


def _emit(
    ctx: Context,
    kind: Kind,
    pair: tuple[_End, _End],
    said: _Said,
    counters: dict[str, dict[str, int | None]],
    started: float,
) -> None:
    """The subject reads in the direction of the bytes: those of a read come from the server."""
    given = ctx.spec.parameters
    source, target = (pair[1], pair[0]) if given["verb"] == "read" else pair
    parameters: dict[str, Scalar] = {
        **{key: given[key] for key in ("transport", "verb", "direction", "bytes", "streams", "iterations")},
        "from_rank": source.rank,
        "to_rank": target.rank,
        "client_nic": f"npu{source.number}",
        "server_nic": f"npu{target.number}",
        "client_address": source.port.address,
        "server_address": target.port.address,
    }
    if source.port.speed and target.port.speed:
        parameters["link_speed"] = min(source.port.speed, target.port.speed)
    samples: list[float] = []
    if said.trouble is None:
        samples, more = _figures(report(said.text), kind)
        parameters |= more
    ctx.emit(
        Measurement(
            metric=f"npu.{given['verb']}.{kind}",
            unit="B/s" if kind == "bandwidth" else "s",
            subject=Subject("node", source.node)
            if source is target
            else Subject("link", f"{source.name}→{target.name}"),
            samples=samples,
            parameters=parameters,
            started=started,
            duration=time.time() - started,
            node=ctx.node,
            rank=ctx.group.rank,
            spec=ctx.spec.id,
            status="timeout" if said.timed_out else "error" if said.trouble else "ok",
            reason_code="timeout" if said.timed_out else "error" if said.trouble else "",
            reason=said.trouble,
            stats=stats_of(samples),
            counters=counters,
        )
    )


def _figures(told: Report, kind: Kind) -> tuple[list[float], dict[str, Scalar]]:
    """The one figure that the tool gives, and what else it tells of it (``told_…``, in the same unit)."""
    # The port of an NPU speaks RoCE v2: its traffic class is told as one of IP (-tclass), which v1 has none of.
    more: dict[str, Scalar | None] = {"link_layer": "Ethernet", "roce": "v2", "mtu": told.mtu, "gid": told.gid}
    samples: list[float] = []
    if kind == "bandwidth" and told.bandwidth:
        row = told.bandwidth[0]
        samples = [row.mean]
        more |= {"told_peak": row.peak, "told_iterations": row.iterations}
    if kind == "latency" and told.latency:
        trips = told.latency[0]
        whole = 1.0 if told.verb == "read" else 2.0
        samples = [trips.median * whole]
        seconds = {"min": trips.least, "mean": trips.mean, "stdev": trips.stdev}
        seconds |= {"p99": trips.p99, "p999": trips.p999, "max": trips.most}
        more |= {f"told_{name}": value * whole for name, value in seconds.items() if value is not None}
        more["told_iterations"] = trips.iterations
    return samples, {name: value for name, value in more.items() if value is not None}


for _kind, _info in (("bandwidth", BANDWIDTH), ("latency", LATENCY)):
    probe(_info, commands=("rdma",), plan=_plan(_kind))(_measure(_kind))  # type: ignore[arg-type]
