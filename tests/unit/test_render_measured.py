"""Figures in the report: the arithmetic behind the tables, and the pictures."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as Xml

import msgspec
import pytest

from cwai_bench import render
from cwai_bench.model import Gate, Measurement, NodeRecord, Plan, Report, Scalar, Status, Subject
from cwai_bench.render import chart, labels, units
from cwai_bench.render.measured import sections
from cwai_bench.render.table import Section, Table
from cwai_bench.text import Text, plain


def report(measurements: list[Measurement]) -> Report:
    return Report(
        run_id="r",
        run_type="run",
        status="complete",
        command=[],
        version="0.1.0",
        started=0.0,
        finished=1.0,
        utc_offset=0,
        world_size=2,
        nodes=[NodeRecord("node1", [0], True, True), NodeRecord("node2", [1], True, True)],
        baseline=None,
        environment={},
        settings={},
        plan=Plan([], [], [], 1.0),
        checks=[],
        verdicts=[],
        measurements=measurements,
        events=[],
        counts={},
        gate=Gate(Status.PASS, 0, [], []),
        notes=[],
    )


def measured(
    metric: str, unit: str, samples: list[float], parameters: dict[str, Scalar], subject: Subject, **more: Any
) -> Measurement:
    made = Measurement(metric, unit, subject, samples, parameters, 0.0, 1.0, "node1", 0)
    return msgspec.structs.replace(made, **more)


def link(client: str, server: str) -> Subject:
    return Subject("link", f"{client}→{server}")


def bandwidth(client: str, server: str, samples: list[float], size: int = 1 << 20, **more: Any) -> Measurement:
    parameters: dict[str, Scalar] = {
        "transport": "tcp",
        "direction": "one-way",
        "bytes": size,
        "streams": 4,
        "client_nic": "eth0",
        "server_nic": "eth1",
        "link_speed": 3.125e9,
    }
    return measured("tcp.bandwidth", "B/s", samples, parameters, link(client, server), **more)


def collective(
    operation: str, size: int, times: list[list[float]], factor: float | None = 1.0, **more: Any
) -> list[Measurement]:
    parameters: dict[str, Scalar] = {"operation": operation, "bytes": size, "ranks": len(times), "library": "MPI"}
    if factor is not None:
        parameters["bus_factor"] = factor
    return [
        measured(
            f"mpi.{operation}.time",
            "s",
            samples,
            parameters,
            Subject("rank", f"node{rank + 1}/rank{rank}"),
            **({"rank": rank, "node": f"node{rank + 1}", "warmup": 5, "correct": True} | more),
        )
        for rank, samples in enumerate(times)
    ]


def table(section: Section, title: str) -> list[dict[str, str]]:
    found: list[Table] = [t for t in section.tables if t.title is not None and t.title.en.startswith(title)]
    heads = [column.label.en for column in found[0].columns]
    return [
        dict(zip(heads, (c.value if isinstance(c.value, str) else c.value.en for c in row.cells), strict=True))
        for row in found[0].rows
    ]


def test_bandwidth_is_told_in_gigabits_with_both_ends() -> None:
    (section,) = sections(report([bandwidth("node1", "node2", [1.0e9, 1.25e9, 1.5e9], correct=True)]))
    assert table(section, "Bandwidth") == [
        {
            "Client": "node1/eth0",
            "Server": "node2/eth1",
            "Network": "tcp",
            "Direction": "one-way",
            "Test": "tcp.bandwidth",
            "Message size": "1 MiB",
            "Streams": "4",
            "Average (Gb/s)": "10.00",
            "Peak (Gb/s)": "12.00",
            "Lowest (Gb/s)": "8.000",
            "Link speed (Gb/s)": "25",
            "Samples": "3",
            "Data check": "right",
        }
    ]
    assert section.headlines == [
        (
            Text("tcp.bandwidth: highest average", "tcp.bandwidth：最高平均带宽"),
            plain("10.00 Gb/s (1 MiB, ×4, node1/eth0 → node2/eth1)"),
        )
    ]


def test_latency_is_told_in_microseconds_by_percentile() -> None:
    samples = [i * 1e-6 for i in range(1, 1001)]
    m = measured("tcp.latency", "s", samples, {"bytes": 64}, link("node1", "node2"))
    (section,) = sections(report([m]))
    (row,) = table(section, "Latency")
    wanted = ("p50 (us)", "p90 (us)", "p99 (us)", "p99.9 (us)", "Max (us)", "Mean (us)")
    assert [row[name] for name in wanted] == ["500.0", "900.0", "990.0", "999.0", "1000", "500.5"]
    assert row["Data check"] == "not checked"


def test_of_a_tool_that_gives_no_samples_only_what_it_told_is_shown() -> None:
    """One median is no distribution: what it does not tell is not made up of it."""
    told: dict[str, Scalar] = {"told_p99": 10.84e-6, "told_max": 26.2e-6, "told_iterations": 1000}
    parameters: dict[str, Scalar] = {"transport": "npu", "direction": "round-trip", "bytes": 2, **told}
    m = measured("npu.write.latency", "s", [9.24e-6], parameters, link("node1/npu0", "node2/npu0"))
    (section,) = sections(report([m]))
    (row,) = table(section, "Latency")
    assert [row[c] for c in ("p50 (us)", "p90 (us)", "p99 (us)", "p99.9 (us)")] == ["9.240", "–", "10.84", "–"]
    assert row["Samples"] == "1000"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"correct": False}, "wrong data"),
        ({"status": "timeout", "samples": []}, "timed out"),
        ({"status": "error", "samples": [], "reason": plain("connection refused")}, "connection refused"),
    ],
)
def test_what_went_wrong_comes_first_is_marked_and_makes_no_headline(change: dict[str, Any], told: str) -> None:
    good = bandwidth("node1", "node2", [1e9], correct=True)
    bad = msgspec.structs.replace(bandwidth("node2", "node1", [9e9]), **change)
    (section,) = sections(report([good, bad]))
    (found,) = section.tables
    assert [row.bad for row in found.rows] == [True, False]
    assert table(section, "Bandwidth")[0]["Data check"] == told
    assert [much.en.split(" (")[0] for _, much in section.headlines] == ["8.000 Gb/s"]


def test_algorithm_and_bus_bandwidth_are_those_of_nccl_tests() -> None:
    """all_reduce on 4 ranks, 1 GB in 10 ms on average: 100 GB/s, and 2 (n - 1) / n = 1.5 times as much on the bus."""
    times = [[0.009, 0.009], [0.010, 0.010], [0.010, 0.010], [0.010, 0.012]]
    (section,) = sections(report(collective("all_reduce", 10**9, times, factor=1.5)))
    (row,) = table(section, "all_reduce (MPI): 4 ranks on 4 nodes")
    assert row["Average (us)"] == "10000"
    assert row["Algorithm (GB/s)"] == "100.0"
    assert row["Bus (GB/s)"] == "150.0"
    assert row["Max (us)"] == "12000"
    assert (row["Longest rank"], row["Shortest rank"]) == ("3: 10000", "0: 9000")
    assert row["Check result"] == "right"
    (how,) = [much.en for what, much in section.headlines if what.en == "all_reduce"]
    assert how.startswith("algorithm 100.0 GB/s, bus 150.0 GB/s at 953.7 MiB")


def test_without_a_factor_there_is_no_bus_bandwidth() -> None:
    (section,) = sections(report(collective("all_reduce", 1024, [[1e-3], [1e-3]], factor=None)))
    assert table(section, "all_reduce")[0]["Bus (GB/s)"] == "–"
    assert section.figures == []


def test_sizes_and_iterations_stand_above_the_table() -> None:
    ms = collective("broadcast", 8, [[1e-6] * 200] * 2) + collective("broadcast", 4096, [[2e-6] * 20] * 2)
    (section,) = sections(report(ms))
    title = section.tables[0].title
    assert title is not None
    assert title.en == "broadcast (MPI): 2 ranks on 2 nodes, 8 B to 4 KiB, 20–200 iterations, 5 warm-ups"


def test_one_rank_with_wrong_data_makes_the_size_wrong() -> None:
    ms = collective("reduce", 8, [[1e-6], [1e-6]])
    ms[1] = msgspec.structs.replace(ms[1], correct=False, reason=plain("element 3 of rank 1"))
    (section,) = sections(report(ms))
    assert table(section, "reduce (MPI)")[0]["Check result"] == "element 3 of rank 1"
    assert section.tables[0].rows[0].bad
    assert [row["Check result"] for row in table(section, "reduce at 8 B")] == ["right", "element 3 of rank 1"]


def test_a_rank_that_is_missing_at_a_size_is_missed() -> None:
    ms = collective("reduce", 8, [[1e-6], [1e-6]]) + collective("reduce", 16, [[1e-6], [1e-6]])[:1]
    (section,) = sections(report(ms))
    assert [row["Check result"] for row in table(section, "reduce (MPI)")] == [
        "right",
        "only 1 of 2 ranks came to the end of it",
    ]
    assert [row.bad for row in section.tables[0].rows] == [False, True]


def test_a_measurement_of_an_unknown_kind_is_shown_all_the_same() -> None:
    m = measured("disk.iops", "1", [5.0, 7.0], {"path": "/data", "depth": 4}, Subject("node", "node1"))
    (section,) = sections(report([m]))
    (row,) = section.tables[0].rows
    cells = [c.value if isinstance(c.value, str) else c.value.en for c in row.cells]
    assert cells[:6] == ["disk.iops", "node1", "path=/data, depth=4", "1", "5.000", "7.000"]
    for format in ("html", "markdown"):
        assert "disk.iops" in render.render(report([m]), format, "en")


def test_every_measurement_is_in_exactly_one_table() -> None:
    ms = [
        bandwidth("node1", "node2", [1e9]),
        measured("tcp.latency", "s", [1e-6], {"bytes": 64}, link("node1", "node2")),
        *collective("reduce", 8, [[1e-6]]),
        measured("x.y", "s", [1e-6], {}, Subject("card", "node1/0")),
    ]
    found = sections(report(ms))
    assert [s.id for s in found] == ["network", "collectives", "measurements"]
    assert sum(len(t.rows) for s in found for t in s.tables) == len(ms)
    assert sections(report([])) == []


def test_of_all_pairs_there_is_a_heatmap_and_of_a_ring_there_is_none() -> None:
    nodes = ["node1", "node2", "node10"]
    pairs = [(a, b) for a in nodes for b in nodes if a != b]
    (section,) = sections(report([bandwidth(a, b, [1e9 * (1 + len(a))]) for a, b in pairs]))
    wide = [f for f in section.figures if f.wide]
    assert len(wide) == 1
    assert wide[0].svg.count('class="heat"') == 6
    (section,) = sections(report([bandwidth(a, b, [1e9]) for a, b in (("a", "b"), ("b", "c"), ("c", "a"))]))
    assert not [f for f in section.figures if f.wide]


def test_over_three_sizes_there_is_a_line_for_each_number_of_streams() -> None:
    ms = []
    for streams in (1, 4):
        for size in (1024, 65536, 1 << 20):
            m = bandwidth("node1", "node2", [size * 1e3], size)
            ms.append(msgspec.structs.replace(m, parameters=m.parameters | {"streams": streams}))
    (section,) = sections(report(ms))
    (figure,) = [f for f in section.figures if "polyline" in f.svg]
    assert figure.svg.count("<polyline") == 2
    assert "×1" in figure.svg
    assert "×4" in figure.svg


# ------------------------------------------------------------------------------------------------ chart

HOSTILE = '"><script>alert(1)</script>&'


def drawn(svg: str) -> Xml.Element:
    root = Xml.fromstring(svg)
    left, top, width, height = (float(x) for x in root.get("viewBox", "").split())
    assert (left, top) == (0.0, 0.0)
    for element in root.iter():
        for name, limit in (("x", width), ("cx", width), ("x1", width), ("x2", width), ("y", height), ("cy", height)):
            value = element.get(name)
            assert value is None or -0.5 <= float(value) <= limit + 0.5, (element.tag, name, value)
        assert element.tag not in ("script", "image", "foreignObject", "a", "use")
        assert "style" not in element.attrib  # the page's policy forbids it
    return root


def test_a_chart_puts_decades_at_even_steps() -> None:
    line = chart.Line("a", [(1.0, 1.0), (10.0, 10.0), (100.0, 100.0)])
    root = drawn(chart.log_log([line], plain("x"), plain("y"), units.short, units.short))
    (polyline,) = root.findall("polyline")
    points = [tuple(map(float, p.split(","))) for p in polyline.get("points", "").split()]
    (x1, y1), (x2, y2), (x3, y3) = points
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    assert [t.text for t in root.iter("title")] == ["1: 1", "10: 10", "100: 100"]


def test_a_chart_leaves_out_what_has_no_logarithm() -> None:
    line = chart.Line("a", [(0.0, 1.0), (8.0, 0.0), (8.0, 2.0)])
    root = drawn(chart.log_log([line], plain("x"), plain("y"), units.short, units.short))
    assert len(root.findall("g")) == 1
    assert chart.log_log([chart.Line("a", [(1.0, 0.0)])], plain("x"), plain("y"), units.short, units.short) == ""


def test_pictures_hold_hostile_labels_as_text() -> None:
    pictures = [
        chart.heatmap([HOSTILE, "b"], [HOSTILE, "b"], {(0, 1): 1.0, (1, 0): 2.0}, units.number),
        chart.ranges([chart.Range(HOSTILE, 1.0, 2.0, 3.0)], plain("x"), units.number),
        chart.timeline([(HOSTILE, [chart.Event(1.0, plain(HOSTILE), True)])], 2.0, plain("x"), units.number),
        chart.log_log([chart.Line(HOSTILE, [(1.0, 1.0)])], plain(HOSTILE), plain("y"), units.short, units.short),
        chart.legend([HOSTILE, "b"]),
    ]
    for svg in pictures:
        root = drawn(svg)
        assert "alert(1)" in "".join(root.itertext())


def test_a_heatmap_is_darkest_where_the_value_is_largest() -> None:
    values = {(0, 1): 5.0, (1, 0): 10.0, (1, 2): 7.5}
    root = drawn(chart.heatmap(["a", "b", "c"], ["a", "b", "c"], values, units.number))
    depth = {}
    for group in root.findall("g"):
        title, rect = group.find("title"), group.find("rect")
        assert title is not None
        assert rect is not None
        depth[title.text] = float(rect.get("fill-opacity", ""))
    assert depth == {"a → b: 5.000": 0.12, "b → c: 7.500": 0.48, "b → a: 10.00": 0.85}


@pytest.mark.parametrize("count", [1, 2, 32])
def test_equal_values_draw_without_a_range(count: int) -> None:
    names = [f"n{i}" for i in range(count)]
    drawn(chart.heatmap(names, names, {(i, i): 3.0 for i in range(count)}, units.number))
    drawn(chart.ranges([chart.Range(n, 0.0, 0.0, 0.0) for n in names], plain("x"), units.number))
    drawn(chart.timeline([(n, []) for n in names], 0.0, plain("x"), units.number))


def test_labels_of_a_picture_are_in_both_languages() -> None:
    svg = chart.log_log([chart.Line("a", [(1.0, 1.0)])], labels.SIZE, plain("y"), units.short, units.short)
    assert set(re.findall(r'lang="(\w+)"', svg)) == {"en", "zh"}
    assert labels.SIZE.zh in svg


def test_a_disturbed_figure_says_so_beside_itself() -> None:
    why = Text("noisy: waited for a CPU 6 % of the time", "受干扰：6 % 的时间在等待 CPU")
    calm = bandwidth("node1", "node2", [1e9] * 5, correct=True)
    noisy = msgspec.structs.replace(calm, reason=why, reason_code="busy")
    for made, said, much in ((calm, labels.DATA_RIGHT.en, ""), (noisy, f"{labels.DATA_RIGHT.en}; {why.en}", "; noisy")):
        (section,) = sections(report([made]))
        (row,) = section.tables[0].rows
        cell = row.cells[-1].value
        assert (cell if isinstance(cell, str) else cell.en) == said
        assert not row.bad
        assert section.headlines[0][1].en.endswith(f"node1/eth0 → node2/eth1){much}")
