"""Measurements as tables and pictures: networks, collectives, and whatever else a probe measured.

What a measurement is, is told by its metric and parameters alone; a new probe whose measurements are of neither
known form is shown all the same, in a table of statistics.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cwai_bench.model import Measurement, Report, Scalar, Stats, stats_of
from cwai_bench.render import chart, labels, matrices, multipath, units
from cwai_bench.render.nodeset import natural
from cwai_bench.render.table import Cell, Column, Figure, Row, Section, Table
from cwai_bench.text import Text, plain

HEATMAP_LIMIT = matrices.CELLS_LIMIT
"""Nodes (or NICs) up to which the picture of all pairs is drawn; beyond, the table says it."""
ROWS_OPEN = 12
"""Rows up to which a table is shown open, where a format can fold."""
RANGES_LIMIT = 40
"""Rows up to which the picture of all pairs' spread is drawn."""


def sections(report: Report) -> list[Section]:
    """The sections that have something to show."""
    collective = [m for m in report.measurements if "operation" in m.parameters]
    collective = [m for m in collective if not m.metric.endswith((".arrival", ".device"))]
    gpus = [m for m in report.measurements if m.metric.startswith("gpu.")]
    own = ("gpu.", "multipath.")
    rest = [m for m in report.measurements if "operation" not in m.parameters and not m.metric.startswith(own)]
    bandwidth = [m for m in rest if m.unit == "B/s"]
    latency = [m for m in rest if m.unit == "s" and "bytes" in m.parameters]
    other = [m for m in rest if m not in bandwidth and m not in latency]
    found = [
        _network(bandwidth, latency, report),
        multipath.section(report),
        _collectives(collective),
        _gpus(gpus),
        _other(other),
    ]
    return [section for section in found if section is not None]


def parameters(given: Mapping[str, Scalar]) -> str:
    """Parameters in a line: ``bytes=1 MiB, streams=4, verify=true``; those left empty say nothing."""
    return ", ".join(f"{name}={shown(name, value)}" for name, value in given.items() if value != "")


def shown(name: str, value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return units.size(value) if isinstance(value, int) and name.endswith(("bytes", "size")) else str(value)


def _stats(m: Measurement) -> Stats | None:
    return m.stats if m.stats is not None else stats_of(m.samples)


def _number(m: Measurement, name: str) -> int | None:
    value = m.parameters.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _word(m: Measurement, name: str) -> str:
    value = m.parameters.get(name)
    return "" if value is None else str(value)


def _size(m: Measurement) -> str:
    count = _number(m, "bytes")
    return "" if count is None else units.size(count)


def _outcome(m: Measurement) -> Cell:
    """Whether the data was right, and what disturbed the measurement; else what became of it."""
    if m.correct is False:
        return Cell(labels.DATA_WRONG if m.reason is None else m.reason, bad=True)
    if m.status != "ok":
        return Cell(m.reason or labels.MEASURE_STATUS[m.status], bad=m.status != "skip")
    data = labels.DATA_NOT_CHECKED if m.correct is None else labels.DATA_RIGHT
    return Cell(labels.DATA_NOISY.fill(data=data, why=m.reason) if m.reason is not None else data)


def _noisy(m: Measurement) -> bool:
    return m.status == "ok" and m.reason is not None


def _figures(m: Measurement, show: Callable[[float], str], picks: Sequence[Callable[[Stats], float]]) -> list[Cell]:
    stats = _stats(m)
    return [Cell("–" if stats is None else show(pick(stats))) for pick in picks]


# -------------------------------------------------------------------------------------------- network

_DIRECTION = {
    "one-way": labels.ONE_WAY,
    "two-way": labels.TWO_WAY,
    "round-trip": labels.ROUND_TRIP,
}


def _ends(m: Measurement) -> tuple[str, str]:
    """Sender and receiver, each ``node`` or ``node/NIC``; within one node both are it."""
    client, _, server = m.subject.id.partition("→")

    def end(name: str, nic: str) -> str:
        return f"{name}/{nic}" if nic and "/" not in name else name

    return end(client, _word(m, "client_nic")), end(server or client, _word(m, "server_nic"))


def _network(bandwidth: list[Measurement], latency: list[Measurement], report: Report) -> Section | None:
    if not bandwidth and not latency and not report.matrices:
        return None
    tables, figures = matrices.named(report), matrices.drawn(report.matrices)
    headlines = matrices.headlines(report)
    told = {matrix.metric for matrix in report.matrices}
    if bandwidth:
        tables.append(_bandwidth_table(bandwidth))
        figures += _bandwidth_figures(bandwidth, told)
        headlines += _headlines(bandwidth, labels.HIGHEST_BANDWIDTH, units.gigabits, "Gb/s", highest=True)
    if latency:
        tables.append(_latency_table(latency))
        figures += _latency_figures(latency, told)
        headlines += _headlines(latency, labels.LOWEST_LATENCY, units.microseconds, "us", highest=False)
    return Section("network", labels.NETWORK, tables, figures, labels.NETWORK_NOTE, headlines)


def _pair_columns() -> list[Column]:
    return [
        Column(labels.CLIENT, words=True),
        Column(labels.SERVER, words=True),
        Column(labels.TRANSPORT),
        Column(labels.DIRECTION),
        Column(labels.TEST),
        Column(labels.SIZE, numeric=True),
        Column(labels.STREAMS, numeric=True),
    ]


def _pair_cells(m: Measurement) -> list[Cell]:
    client, server = _ends(m)
    streams = _number(m, "streams")
    return [
        Cell(client),
        Cell(server),
        Cell(_word(m, "transport") or m.metric.partition(".")[0]),
        Cell(_DIRECTION.get(_word(m, "direction"), plain(_word(m, "direction") or "–"))),
        Cell(m.metric),
        Cell(_size(m)),
        Cell("–" if streams is None else str(streams)),
    ]


def _bandwidth_table(ms: list[Measurement]) -> Table:
    columns = [
        *_pair_columns(),
        Column(labels.AVERAGE_GBPS, numeric=True),
        Column(labels.PEAK_GBPS, numeric=True),
        Column(labels.LOWEST_GBPS, numeric=True),
        Column(labels.LINK_GBPS, numeric=True),
        Column(labels.SAMPLES, numeric=True),
        Column(labels.DATA, words=True),
    ]
    picks = (lambda s: s.mean, lambda s: s.max, lambda s: s.min)
    rows = [
        Row(
            [*_pair_cells(m), *_figures(m, units.gigabits, picks), _link_speed(m), _count(m), _outcome(m)],
            bad=_broken(m),
        )
        for m in _in_order(ms)
    ]
    return Table(labels.BANDWIDTH, columns, rows, folded=len(rows) > ROWS_OPEN)


def _link_speed(m: Measurement) -> Cell:
    """What the slower of the two NICs is rated at, where its driver says so."""
    speed = _number(m, "link_speed")
    return Cell("–" if speed is None else units.short(speed * 8 / 1e9))


def _latency_table(ms: list[Measurement]) -> Table:
    columns = [
        *_pair_columns(),
        Column(plain("p50 (us)"), numeric=True),
        Column(plain("p90 (us)"), numeric=True),
        Column(plain("p99 (us)"), numeric=True),
        Column(plain("p99.9 (us)"), numeric=True),
        Column(labels.MAX_US, numeric=True),
        Column(labels.MEAN_US, numeric=True),
        Column(labels.SAMPLES, numeric=True),
        Column(labels.DATA, words=True),
    ]
    picks = (lambda s: s.p50, lambda s: s.p90, lambda s: s.p99, lambda s: s.p999, lambda s: s.max, lambda s: s.mean)
    rows = [
        Row(
            [*_pair_cells(m), *(_told_times(m) or _figures(m, units.microseconds, picks)), _count(m), _outcome(m)],
            bad=_broken(m),
        )
        for m in _in_order(ms)
    ]
    return Table(labels.LATENCY, columns, rows, folded=len(rows) > ROWS_OPEN)


def _told_times(m: Measurement) -> list[Cell]:
    """Of a tool that gives its median and other figures, but no samples: what it told, in the columns of the table."""
    stats = _stats(m)
    if stats is None or "told_iterations" not in m.parameters:
        return []
    told = [m.parameters.get(f"told_{name}") for name in ("p90", "p99", "p999", "max", "mean")]
    cells = [Cell(units.microseconds(t) if isinstance(t, int | float) else "–") for t in told]
    return [Cell(units.microseconds(stats.p50)), *cells]


def _count(m: Measurement) -> Cell:
    stats = _stats(m)
    if stats is not None and (told := _number(m, "told_iterations")) is not None:
        return Cell(str(told))
    return Cell("0" if stats is None else str(stats.count))


def _broken(m: Measurement) -> bool:
    return m.correct is False or m.status not in ("ok", "skip")


def _in_order(ms: Iterable[Measurement]) -> list[Measurement]:
    """What went wrong first."""
    return sorted(
        ms,
        key=lambda m: (not _broken(m), m.metric, natural(m.subject.id), _number(m, "bytes") or 0, _word(m, "streams")),
    )


def _headlines(
    ms: list[Measurement], what: Text, show: Callable[[float], str], unit: str, *, highest: bool
) -> list[tuple[Text, Text]]:
    """The best average (bandwidth) or median (latency) of each metric, and where it was."""
    best: dict[tuple[str, str], tuple[float, Measurement]] = {}
    for m in ms:
        stats = _stats(m)
        if stats is None or _broken(m):
            continue
        value = stats.mean if highest else stats.p50
        key = (m.metric, _word(m, "direction"))
        known = best.get(key)
        if known is None or (value > known[0] if highest else value < known[0]):
            best[key] = (value, m)
    lines = []
    for (metric, direction), (value, m) in sorted(best.items()):
        client, server = _ends(m)
        way = client if client == server else f"{client} → {server}"
        at = ", ".join(filter(None, [_size(m), f"×{_word(m, 'streams')}" if _word(m, "streams") else "", way]))
        test = labels.TEST_DIRECTION.fill(metric=metric, direction=_DIRECTION.get(direction, plain(direction)))
        much = plain(f"{show(value)} {unit} ({at})")
        lines.append(
            (
                what.fill(metric=test if direction == "two-way" else metric),
                labels.NOISY.fill(figure=much) if _noisy(m) else much,
            )
        )
    return lines


def _bandwidth_figures(ms: list[Measurement], told: Collection[str]) -> list[Figure]:
    return _pair_figures(
        ms, told, units.gigabits, lambda s: s.mean, labels.GBPS, labels.BANDWIDTH_BY_SIZE, labels.SPREAD
    )


def _latency_figures(ms: list[Measurement], told: Collection[str]) -> list[Figure]:
    return _pair_figures(
        ms, told, units.microseconds, lambda s: s.p50, labels.US, labels.LATENCY_BY_SIZE, labels.LATENCY_SPREAD
    )


def _pair_figures(
    ms: list[Measurement],
    told: Collection[str],
    show: Callable[[float], str],
    pick: Callable[[Stats], float],
    unit: Text,
    by_size: Text,
    spread: Text,
) -> list[Figure]:
    """For each metric: its value over the size, its spread for each pair, and, of more than two nodes, all pairs.

    Those ``told`` by a matrix are drawn by that; a report of format 1 has none."""
    figures = []
    by_metric: dict[str, list[tuple[Measurement, Stats]]] = defaultdict(list)
    for m in _in_order(ms):
        stats = _stats(m)
        if stats is not None and not _broken(m):
            by_metric[m.metric].append((m, stats))
    for metric, good in by_metric.items():
        sizes = sorted({_number(m, "bytes") or 0 for m, _ in good})
        if len(sizes) > 2:
            figures.append(_over_size(metric, good, pick, unit, by_size))
        largest = [(m, s) for m, s in good if (_number(m, "bytes") or 0) == sizes[-1]]
        at = units.size(sizes[-1])
        if 2 < len(largest) <= RANGES_LIMIT:
            rows = [chart.Range(_row_label(m), s.min, pick(s), s.p99 if m.unit == "s" else s.max) for m, s in largest]
            svg = chart.ranges(rows, unit, show)
            figures.append(Figure(spread.fill(metric=metric, size=at), svg))
        if metric not in told:
            figures += _heatmap(metric, largest, show, pick, unit, at)
    return figures


def _row_label(m: Measurement) -> str:
    client, server = _ends(m)
    way = client if client == server else f"{client} → {server}"
    both_ways = "⇄" if _word(m, "direction") == "two-way" else ""
    return " ".join(filter(None, [way, f"×{_word(m, 'streams')}" if _word(m, "streams") else "", both_ways]))


def _over_size(
    metric: str,
    good: list[tuple[Measurement, Stats]],
    pick: Callable[[Stats], float],
    unit: Text,
    caption: Text,
) -> Figure:
    """One line for each number of streams: the median pair, within the band from the worst pair to the best."""
    scale = 8e-9 if unit is labels.GBPS else 1e6  # B/s to Gb/s, or s to us: decades are those of the unit shown
    by_streams: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for m, s in good:
        by_streams[_word(m, "streams")][_number(m, "bytes") or 0].append(pick(s) * scale)
    lines = []
    for streams, by_size in sorted(by_streams.items()):
        points = [(float(size), sorted(values)[(len(values) - 1) // 2]) for size, values in sorted(by_size.items())]
        low = [min(by_size[int(size)]) for size, _ in points]
        high = [max(by_size[int(size)]) for size, _ in points]
        lines.append(chart.Line(f"×{streams}" if streams else metric, points, low, high))
    svg = chart.log_log(lines, labels.SIZE, unit, lambda v: units.size(int(v)), units.short)
    if len(lines) > 1:
        svg += chart.legend([line.name for line in lines])
    return Figure(caption.fill(metric=metric), svg)


def _heatmap(
    metric: str,
    good: list[tuple[Measurement, Stats]],
    show: Callable[[float], str],
    pick: Callable[[Stats], float],
    unit: Text,
    at: str,
) -> list[Figure]:
    pairs = {_ends(m): pick(s) for m, s in good if "→" in m.subject.id}
    clients = sorted({client for client, _ in pairs}, key=natural)
    servers = sorted({server for _, server in pairs}, key=natural)
    most = max(len(clients), len(servers), 0)
    if len({*clients, *servers}) <= 2 or most > HEATMAP_LIMIT or len(pairs) <= most:  # a ring is better told by rows
        return []
    values = {(clients.index(client), servers.index(server)): value for (client, server), value in pairs.items()}
    caption = labels.ALL_PAIRS.fill(metric=metric, unit=unit, size=at)
    return [Figure(caption, chart.heatmap(clients, servers, values, show), wide=True)]


# ----------------------------------------------------------------------------------------- collectives


@dataclass(frozen=True)
class _Point:
    """One operation at one size: ``ranks`` are the measurements of each rank, ``time`` what stands for all of them."""

    size: int
    ranks: list[Measurement]
    time: Stats | None
    factor: float | None
    outcome: Cell
    noisy: bool

    @property
    def pipelined(self) -> float | None:
        """Seconds of one operation of many posted one after another, the mean over the ranks, as nccl-tests has it."""
        told = [float(v) for m in self.ranks if isinstance(v := m.parameters.get("pipelined"), int | float) and v > 0]
        return sum(told) / len(told) if told else None

    @property
    def algorithm(self) -> float | None:
        """Bytes per second: size over the mean time, as nccl-tests has it (doc/PERFORMANCE.md)."""
        each = self.pipelined or (self.time.mean if self.time is not None else 0.0)
        return None if each <= 0 or self.size == 0 else self.size / each

    @property
    def bus(self) -> float | None:
        return None if self.algorithm is None or self.factor is None else self.algorithm * self.factor


def _collectives(ms: list[Measurement]) -> Section | None:
    if not ms:
        return None
    by_operation: dict[Text, dict[int, list[Measurement]]] = defaultdict(lambda: defaultdict(list))
    several = len({m.metric.partition(".")[0] for m in ms}) > 1
    for m in ms:
        by_operation[_variant(m, several)][_number(m, "bytes") or 0].append(m)
    tables, figures, headlines = [], [], []
    for operation, by_size in by_operation.items():
        points = [_point(size, found) for size, found in sorted(by_size.items())]
        tables.append(_operation_table(operation, points))
        figures += _operation_figures(operation, points)
        headlines += _operation_headline(operation, points)
        tables += _rank_table(operation, points)
    return Section("collectives", labels.COLLECTIVES, tables, figures, labels.COLLECTIVES_NOTE, headlines)


def _variant(m: Measurement, several: bool) -> Text:
    """What is a table of its own: the operation, with its library where there are several, its type and reduction where
    they are not the usual ones, and its placement."""
    library = m.metric.partition(".")[0] if several else ""
    dtype = _word(m, "dtype")
    unusual = [dtype if dtype != "float32" else "", _word(m, "reduction")]
    name = plain(" ".join(filter(None, [library, _word(m, "operation"), *unusual])))
    return labels.IN_PLACE.fill(operation=name) if m.parameters.get("in_place") is True else name


def _point(size: int, found: list[Measurement]) -> _Point:
    ranks = sorted((m for m in found if m.subject.kind == "rank"), key=lambda m: m.rank)
    whole = [m for m in found if m.subject.kind != "rank"] or ranks
    stats = [s for s in map(_stats, whole) if s is not None]
    factors = {float(v) for m in found if isinstance(v := m.parameters.get("bus_factor"), int | float)}
    return _Point(
        size,
        ranks,
        _over_ranks(stats),
        factors.pop() if factors else None,
        _outcome_of_all(found, ranks),
        any(map(_noisy, found)),
    )


def _outcome_of_all(found: list[Measurement], ranks: list[Measurement]) -> Cell:
    """Of the worst rank; ranks that delivered nothing (they died, or ran out of time) are worse than any."""
    world = max((_number(m, "ranks") or 0 for m in found), default=0)
    if ranks and len(ranks) < world:
        return Cell(labels.RANKS_MISSING.fill(n=len(ranks), m=world), bad=True)
    bad = [m for m in found if _broken(m)] or [m for m in found if _noisy(m)]
    return _outcome((bad or found)[0])


def _over_ranks(stats: list[Stats]) -> Stats | None:
    """Of several ranks: the mean of their means (what nccl-tests prints), and of all else the worst."""
    if not stats:
        return None
    return Stats(
        count=min(s.count for s in stats),
        mean=sum(s.mean for s in stats) / len(stats),
        stdev=max(s.stdev for s in stats),
        min=min(s.min for s in stats),
        p50=max(s.p50 for s in stats),
        p90=max(s.p90 for s in stats),
        p95=max(s.p95 for s in stats),
        p99=max(s.p99 for s in stats),
        p999=max(s.p999 for s in stats),
        max=max(s.max for s in stats),
    )


def _operation_table(operation: Text, points: list[_Point]) -> Table:
    pipelined = any(point.pipelined is not None for point in points)
    columns = [
        Column(labels.DATA_SIZE, numeric=True),
        Column(labels.BYTES, numeric=True),
        Column(labels.AVERAGE_TIME, numeric=True),
        *(Column(plain(f"{p} (us)"), numeric=True) for p in ("p50", "p95", "p99")),
        Column(labels.MAX_US, numeric=True),
        *([Column(labels.PIPELINED_TIME, numeric=True)] if pipelined else []),
        Column(labels.ALGORITHM_BANDWIDTH, numeric=True),
        Column(labels.BUS_BANDWIDTH, numeric=True),
        Column(labels.LONGEST, numeric=True),
        Column(labels.SHORTEST, numeric=True),
        Column(labels.CHECK_RESULT, words=True),
    ]
    rows = []
    for point in points:
        t = point.time
        times = ["–"] * 5 if t is None else [units.microseconds(x) for x in (t.mean, t.p50, t.p95, t.p99, t.max)]
        if pipelined:
            times.append("–" if point.pipelined is None else units.microseconds(point.pipelined))
        longest, shortest = _extremes(point)
        cells = [units.size(point.size), str(point.size), *times, _rate(point.algorithm), _rate(point.bus)]
        rows.append(Row([*map(Cell, cells), Cell(longest), Cell(shortest), point.outcome], bad=point.outcome.bad))
    return Table(_operation_title(operation, points), columns, rows, folded=len(rows) > ROWS_OPEN)


def _operation_title(operation: Text, points: list[_Point]) -> Text:
    ms = [m for point in points for m in point.ranks]
    counts = sorted({point.time.count for point in points if point.time is not None})
    warmups = sorted({m.warmup for m in ms})
    return labels.OPERATION.fill(
        operation=operation,
        library=", ".join(sorted({word for m in ms for word in (_word(m, "library"), _word(m, "dtype")) if word}))
        or "–",
        ranks=labels.counted(len({m.rank for m in ms}), *labels.RANK_COUNT),
        nodes=labels.counted(len({m.node for m in ms}), *labels.NODE_COUNT),
        smallest=units.size(points[0].size),
        largest=units.size(points[-1].size),
        iterations=_span(counts),
        warmups=_span(warmups),
    )


def _span(numbers: list[int]) -> str:
    if not numbers:
        return "0"
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}"


def _extremes(point: _Point) -> tuple[str, str]:
    """The ranks whose median time is longest and shortest, each with that time."""
    timed = [(s.p50, m.rank) for m in point.ranks if (s := _stats(m)) is not None]
    if len(timed) < 2:
        return "–", "–"
    return tuple(f"{rank}: {units.microseconds(time)}" for time, rank in (max(timed), min(timed)))  # type: ignore[return-value]


def _rate(bytes_per_second: float | None) -> str:
    return "–" if bytes_per_second is None else units.gigabytes(bytes_per_second)


def _operation_figures(operation: Text, points: list[_Point]) -> list[Figure]:
    line = [(float(p.size), p.bus / 1e9) for p in points if p.bus is not None]
    if len(line) < 2:
        return []
    svg = chart.log_log(
        [chart.Line(operation.en, line)], labels.DATA_SIZE, labels.GBYTES, lambda v: units.size(int(v)), units.short
    )
    return [Figure(labels.BUS_BY_SIZE.fill(operation=operation), svg)]


def _operation_headline(operation: Text, points: list[_Point]) -> list[tuple[Text, Text]]:
    timed = [p for p in points if p.time is not None and not p.outcome.bad]
    if not timed:
        return []
    best = max(timed, key=lambda p: p.algorithm or 0.0)
    first = timed[0]
    assert first.time is not None
    how = labels.OPERATION_FIGURES.fill(
        algorithm=_rate(best.algorithm),
        bus=_rate(best.bus),
        large=units.size(best.size),
        time=units.microseconds(first.time.p50),
        small=units.size(first.size),
    )
    return [(operation, labels.NOISY.fill(figure=how) if best.noisy or first.noisy else how)]


def _rank_table(operation: Text, points: list[_Point]) -> list[Table]:
    """The time of each rank at the largest size that all came to."""
    point = next((p for p in reversed(points) if len(p.ranks) > 1 and p.time is not None), None)
    if point is None:
        return []
    columns = [
        Column(labels.RANK, numeric=True),
        Column(labels.NODE),
        *(Column(plain(f"{p} (us)"), numeric=True) for p in ("p50", "p95", "p99")),
        Column(labels.MAX_US, numeric=True),
        Column(labels.SAMPLES, numeric=True),
        Column(labels.CHECK_RESULT, words=True),
    ]
    picks = (lambda s: s.p50, lambda s: s.p95, lambda s: s.p99, lambda s: s.max)
    rows = [
        Row(
            [Cell(str(m.rank)), Cell(m.node), *_figures(m, units.microseconds, picks), _count(m), _outcome(m)],
            bad=_broken(m),
        )
        for m in point.ranks
    ]
    title = labels.BY_RANK.fill(operation=operation, size=units.size(point.size))
    return [Table(title, columns, rows, folded=True)]


# ------------------------------------------------------------------------------------------------ GPUs

_TOLD_ELSEWHERE = ("card", "pci")
_SCALES = {"B/s": ("GB/s", 1e9), "FLOP/s": ("TFLOP/s", 1e12)}


def _gpus(ms: list[Measurement]) -> Section | None:
    if not ms:
        return None
    columns = [
        Column(labels.TEST),
        Column(labels.WHERE, words=True),
        Column(labels.CARD, words=True),
        Column(labels.PARAMETERS, words=True),
        *(Column(plain(name), numeric=True) for name in ("p50", "min", "max")),
        Column(labels.UNIT),
        Column(labels.SAMPLES, numeric=True),
        Column(labels.DATA, words=True),
    ]
    rows = [Row(_gpu_cells(m), bad=_broken(m)) for m in _in_order(ms)]
    table = Table(None, columns, rows, folded=len(rows) > ROWS_OPEN)
    return Section("gpus", labels.GPUS, [table], note=labels.GPUS_NOTE)


def _gpu_cells(m: Measurement) -> list[Cell]:
    unit, scale = _SCALES.get(m.unit, (m.unit, 1.0))
    picks = (lambda s: s.p50, lambda s: s.min, lambda s: s.max)
    return [
        Cell(m.metric),
        Cell(m.subject.id),
        Cell(_word(m, "card") or "–"),
        Cell(parameters({k: v for k, v in m.parameters.items() if k not in _TOLD_ELSEWHERE})),
        *_figures(m, lambda value: units.number(value / scale), picks),
        Cell(unit),
        _count(m),
        _outcome(m),
    ]


# ----------------------------------------------------------------------------------------------- other


def _other(ms: list[Measurement]) -> Section | None:
    if not ms:
        return None
    columns = [
        Column(labels.TEST),
        Column(labels.WHERE, words=True),
        Column(labels.PARAMETERS, words=True),
        Column(labels.UNIT),
        *(Column(plain(name), numeric=True) for name in ("p50", "p99", "min", "max")),
        Column(labels.SAMPLES, numeric=True),
        Column(labels.DATA, words=True),
    ]
    picks = (lambda s: s.p50, lambda s: s.p99, lambda s: s.min, lambda s: s.max)
    rows = [
        Row(
            [
                Cell(m.metric),
                Cell(m.subject.id),
                Cell(parameters(m.parameters)),
                Cell(m.unit),
                *_figures(m, units.number, picks),
                _count(m),
                _outcome(m),
            ],
            bad=_broken(m),
        )
        for m in _in_order(ms)
    ]
    return Section("measurements", labels.OTHER, [Table(None, columns, rows)])
