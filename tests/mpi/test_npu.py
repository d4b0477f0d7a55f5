"""RoCE ports of NPUs on two nodes: both ends of the vendor's test are run, reset, and read; what fails says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cwai_bench.errors import UsageError
from cwai_bench.goodput import DEFAULTS
from cwai_bench.judge.paths import signs, standings
from cwai_bench.model import LeftOut, Measurement, ProbeSpec, Status
from cwai_bench.probes import Options, World, npu
from cwai_bench.probes.transport import Kind
from tests.mpi.conftest import AS_ROOT

MPIRUN = Path(sysconfig.get_path("scripts")) / "mpirun"
STAND_IN = Path(__file__).with_name("hccn_tool.py")
GBIT = 1e9 / 8
Found = dict[tuple[str, str], Measurement]


def planned(of: Kind, nodes: int = 2, **options: Any) -> list[ProbeSpec | LeftOut]:
    world = World(nodes, tuple(f"node{i}" for i in range(nodes)), nodes > 1)
    return npu._plan(of)(world, Options(**{"transport": "npu", **options}))


def test_each_verb_is_planned_only_when_asked_for() -> None:
    specs = [s for s in planned("bandwidth") if isinstance(s, ProbeSpec)]
    assert [(s.parameters["verb"], s.parameters["bytes"]) for s in specs] == [
        ("write", 1 << 20),
        ("read", 1 << 20),
        ("send", 1 << 20),
    ]
    assert planned("latency", kind="bandwidth") == []
    assert planned("bandwidth", transport="auto") == [], "no NPU here"
    assert planned("bandwidth", transport="tcp") == []


def test_where_there_are_npus_one_is_told_how_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "davinci0").touch()
    monkeypatch.setattr(npu, "DEVICES", tmp_path)
    (left,) = planned("bandwidth", transport="auto")
    assert isinstance(left, LeftOut)
    assert "--transport npu" in left.reason.en


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"nodes": 1}, "between nodes"),
        ({"iterations": 20_001}, "hccn_tool takes 5 to 20000"),
        ({"iterations": 4}, "hccn_tool takes 5 to 20000"),
        ({"sizes": (1 << 30,)}, "hccn_tool takes 1 to 874736000"),
        ({"direction": "two-way"}, "one way"),
        ({"streams": 4}, "one queue pair"),
    ],
)
def test_what_the_tool_does_not_take_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        planned("bandwidth", **options)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """By metric and subject, what two nodes of three NPUs measure. Of node2 the second cannot listen, and the third has
    no address. The tool is busy once; a test was left over; the client of a send never ends."""
    folder = tmp_path_factory.mktemp("npu")
    state = folder / "state"
    state.mkdir()
    for number in (1, 2):
        here = folder / f"node{number}"
        for name in ("dev/davinci0", "dev/davinci1", "dev/davinci2", "dev/davinci_manager", "first/davinci0"):
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).touch()
        told = {"number": number, "state": str(state), "bare": ["192.0.2.22"]}
        (here / "node.json").write_text(json.dumps(told))
        tool = here / "hccn_tool"
        tool.write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
        tool.chmod(0o755)
    for trouble in ("deaf-192.0.2.21", "busy-192.0.2.20", "hang-ib_send_bw"):
        (state / trouble).touch()
    (state / "listen-192.0.2.10").write_text("of a run that was killed")
    program = str(Path(__file__).with_name("npu_program.py"))
    done = subprocess.run(
        [MPIRUN, "-np", "2", "--map-by", ":OVERSUBSCRIBE", sys.executable, program, str(folder)],
        env={**os.environ, **AS_ROOT},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    every = [msgspec.convert(m, Measurement) for line in done.stdout.splitlines() for m in json.loads(line)]
    by_name = {(m.metric, m.subject.id): m for m in every}
    assert len(by_name) == len(every)
    assert not list(state.glob("listen-*")), "no test is left over"
    return by_name


WRITE, SEND = "npu.write.bandwidth", "npu.send.bandwidth"


@pytest.mark.mpi
def test_ports_of_the_same_number_are_measured_around_the_ring(found: Found) -> None:
    links = sorted(subject for metric, subject in found if metric == WRITE)
    assert links == [f"{a}/npu{n}→{b}/npu{n}" for a, b in (("node1", "node2"), ("node2", "node1")) for n in range(3)]
    m = found[WRITE, "node1/npu0→node2/npu0"]
    assert (m.status, m.reason) == ("ok", None)
    assert m.samples == [pytest.approx(23361.25 * 2**20)]
    assert m.parameters["link_speed"] == 200 * GBIT
    assert (m.parameters["client_nic"], m.parameters["server_address"]) == ("npu0", "192.0.2.20")
    assert (m.parameters["mtu"], m.parameters["gid"]) == (4096, "::ffff:192.0.2.10")
    assert m.parameters["told_peak"] == pytest.approx(23364.40 * 2**20)


@pytest.mark.mpi
def test_the_bytes_of_a_read_come_from_the_server(found: Found) -> None:
    m = found["npu.read.latency", "node2/npu0→node1/npu0"]
    assert m.status == "ok"
    assert (m.parameters["client_address"], m.node) == ("192.0.2.20", "node1")


@pytest.mark.mpi
def test_latency_is_that_of_a_whole_round_trip(found: Found) -> None:
    write = found["npu.write.latency", "node1/npu0→node2/npu0"]
    read = found["npu.read.latency", "node2/npu0→node1/npu0"]
    assert write.samples == [pytest.approx(2 * 4.62e-6)]
    assert read.samples == [pytest.approx(4.62e-6)]
    assert write.parameters["told_p99"] == pytest.approx(2 * 5.42e-6)
    assert (write.parameters["bytes"], write.parameters["told_iterations"]) == (2, 1000)


@pytest.mark.mpi
def test_a_port_without_an_address_and_one_that_cannot_listen_say_so(found: Found) -> None:
    deaf, bare = (found[WRITE, f"node1/npu{n}→node2/npu{n}"] for n in (1, 2))
    assert (bare.status, deaf.status) == ("error", "error")
    assert bare.reason is not None
    assert deaf.reason is not None
    assert bare.reason.en == "node2/npu2: its port has no address"
    assert "Couldn't connect to 192.0.2.21:18515" in deaf.reason.en
    assert "node2/npu1: hccn_tool -roce_test ib_write_bw" in deaf.reason.en
    assert "Couldn't listen" in deaf.reason.en


@pytest.mark.mpi
def test_an_end_that_hangs_is_given_up_and_the_rest_goes_on(found: Found) -> None:
    m = found[SEND, "node1/npu0→node2/npu0"]
    assert (m.status, m.samples) == ("timeout", [])
    assert m.reason is not None
    assert "no end within 4 s" in m.reason.en
    assert found["npu.write.latency", "node1/npu0→node2/npu0"].status == "ok", "measured after it"
    assert found[WRITE, "node2/npu1→node1/npu1"].status == "ok", "the other way round"


@pytest.mark.mpi
def test_the_counters_of_both_ports_and_what_is_made_of_them(found: Found) -> None:
    m = found[WRITE, "node1/npu0→node2/npu0"]
    assert m.counters == {"node1/npu0": {}, "node2/npu0": {"npu/roce_new_pkt_rty_num": 3}}
    (told,) = standings([m], DEFAULTS).values()
    assert told.status is Status.PASS
    assert told.expected.value / GBIT == pytest.approx(196.07, abs=0.01)
    assert [sign.fault for sign in signs([m])] == [True]
