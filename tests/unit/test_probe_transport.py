"""The TCP and loopback probes: what they plan, and what ranks that meet in one process measure."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from cwai_bench import native
from cwai_bench.errors import DeviceError, UsageError
from cwai_bench.group import SoloGroup
from cwai_bench.model import LeftOut, Measurement
from cwai_bench.probes import PROBES, Options, Rails, World, pairwise, tcp, transport
from cwai_bench.probes.nic import Place
from cwai_bench.text import Text
from tests.unit.ranks import ALONE, Meeting, Rank, context, measured, planned

FOUR = World(4, ("a", "b", "c", "d"), True)


# ---------------------------------------------------------------------------------------------- plan


def test_the_default_plan_is_short() -> None:
    specs, left_out = planned("tcp.bandwidth")
    chosen = [(s.parameters["direction"], s.parameters["bytes"], s.parameters["streams"]) for s in specs]
    assert chosen == [
        ("one-way", 65536, 1),
        ("one-way", 65536, 4),
        ("one-way", 1048576, 1),
        ("one-way", 1048576, 4),
        ("two-way", 1048576, 1),
    ]
    assert [s.id for s in specs] == [f"tcp.bandwidth#{i}" for i in range(5)]
    assert [item.what for item in left_out] == ["verbs"]
    total = sum(
        s.expected
        for p in ("tcp.bandwidth", "tcp.latency", "loopback.bandwidth", "loopback.latency")
        for s in planned(p)[0]
    )
    assert total < 12
    assert all(s.deadline >= max(10, 2 * s.expected) for s in specs)


def test_given_sizes_are_measured_in_every_combination() -> None:
    specs, _ = planned("tcp.bandwidth", sizes=(1, 2), streams=3, direction="both")
    assert [(s.parameters["direction"], s.parameters["bytes"], s.parameters["streams"]) for s in specs] == [
        ("one-way", 1, 3),
        ("one-way", 2, 3),
        ("two-way", 1, 3),
        ("two-way", 2, 3),
    ]
    assert {s.parameters["direction"] for s in planned("tcp.bandwidth", direction="two-way")[0]} == {"two-way"}
    assert {s.parameters["direction"] for s in planned("tcp.bandwidth", direction="one-way")[0]} == {"one-way"}


@pytest.mark.parametrize(("kind", "expected"), [("bandwidth", (5, 0)), ("latency", (0, 1)), ("both", (5, 1))])
def test_kind_chooses_the_probe(kind: str, expected: tuple[int, int]) -> None:
    found = tuple(len(planned(p, kind=kind)[0]) for p in ("tcp.bandwidth", "tcp.latency"))
    assert found == expected


@pytest.mark.parametrize("kind", ["bandwidth", "latency", "both"])
def test_the_fallback_from_verbs_is_told_once(kind: str) -> None:
    told = [item for p in PROBES for item in PROBES[p].plan(ALONE, Options(kind=kind)) if isinstance(item, LeftOut)]  # type: ignore[arg-type]
    assert [item.what for item in told].count("verbs") == 1


@pytest.mark.parametrize("probe", ["tcp.bandwidth", "tcp.latency", "loopback.bandwidth", "loopback.latency"])
def test_with_verbs_asked_for_nothing_else_is_planned(probe: str) -> None:
    assert planned(probe, transport="verbs") == ([], [])


def test_each_transport_plans_its_own() -> None:
    assert planned("tcp.bandwidth", transport="loopback") == ([], [])
    assert planned("loopback.bandwidth", transport="tcp") == ([], [])
    assert len(planned("loopback.bandwidth", transport="loopback")[0]) == 5
    assert len(planned("loopback.bandwidth", transport="auto")[0]) == 1
    assert planned("tcp.bandwidth", transport="tcp")[1] == []


def test_why_no_verbs_names_the_first_node_without() -> None:
    none = Rails(why_none=Text("it has no active RDMA port", "没有处于活动状态的 RDMA 端口"))
    rails = (Rails(("mlx5_0",)), none, none, Rails(("mlx5_0",)))
    world = replace(FOUR, rails=rails)
    for why in (transport.why_no_verbs(world), *planned("tcp.bandwidth", world)[1]):
        assert (why.what, why.reason_code) == ("verbs", "absent")
        assert why.reason.en == "no RDMA on b: it has no active RDMA port (and 1 more); TCP is measured instead"
        assert "b 无法使用 RDMA：没有处于活动状态的 RDMA 端口（另有 1 个节点）" in why.reason.zh
    assert planned("verbs.bandwidth", world) == ([], [])


@pytest.mark.parametrize(
    "options", [{"sizes": (0,)}, {"sizes": (2 << 30,)}, {"streams": 65}, {"streams": 0}, {"duration": -1.0}]
)
def test_impossible_choices_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        planned("tcp.bandwidth", transport="tcp", **options)


def test_more_rounds_take_longer() -> None:
    ring, pairs = planned("tcp.bandwidth", FOUR)[0][0], planned("tcp.bandwidth", FOUR, pairs="all")[0][0]
    assert ring.expected < pairs.expected  # two rounds, three rounds
    assert pairs.deadline > ring.deadline
    assert planned("tcp.bandwidth", FOUR, item_timeout=7.0)[0][0].deadline == 7.0


# ------------------------------------------------------------------------------------------- measure


SECOND_TRIES = pairwise.second_tries


@pytest.fixture(autouse=True)
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of a few milliseconds differ by chance: what makes a pair suspect has tests of its own."""
    monkeypatch.setattr(pairwise, "second_tries", lambda *_: [])


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rank is a thread of this process; the n-th that asks is node n with an address 127.0.1.n of its own."""
    lock, count = threading.Lock(), iter(range(1, 100))

    def own(_interface: str | None) -> list[Place]:
        with lock:
            return [Place("lo", f"127.0.1.{next(count)}", 24, 0.0)]

    monkeypatch.setattr(tcp, "places", own)
    monkeypatch.setattr(tcp, "busy", lambda _nics: {})


SHORT: dict[str, Any] = {"duration": 0.2, "sizes": (4096,), "streams": 1, "transport": "tcp"}


def test_alone_both_ends_are_threads() -> None:
    spec = planned("tcp.bandwidth", direction="two-way", **SHORT)[0][0]
    emitted: list[Measurement] = []
    PROBES["tcp.bandwidth"].measure(context(SoloGroup("laptop"), spec, emitted))
    assert [(m.parameters["from_rank"], m.parameters["to_rank"], m.status) for m in emitted] == [(0, 0, "ok")] * 2
    for m in emitted:
        assert (m.metric, m.unit, m.subject.kind, m.subject.id) == ("tcp.bandwidth", "B/s", "node", "laptop")
        assert m.samples
        assert m.correct is True
        assert m.stats is not None
        assert m.stats.count == len(m.samples)
        assert m.parameters["direction"] == "two-way"
        assert int(m.parameters["port"]) >= 18515


def test_two_ranks_of_one_node_measure_once() -> None:
    spec = planned("tcp.latency", transport="tcp", iterations=40)[0][0]
    emitted = measured("tcp.latency", ("a", "a", "a"), spec)
    assert [(m.rank, m.unit, len(m.samples), m.correct, m.subject.id) for m in emitted] == [(0, "s", 40, True, "a")]
    assert emitted[0].warmup == 100
    assert emitted[0].parameters["server_address"] == "127.0.0.1"


@pytest.mark.usefixtures("addresses")
def test_a_ring_of_nodes_is_measured_by_the_receivers() -> None:
    spec = planned("tcp.bandwidth", direction="one-way", **SHORT)[0][0]
    emitted = measured("tcp.bandwidth", ("a", "b", "c"), spec)
    assert [(m.subject.id, m.node) for m in emitted] == [("a→b", "b"), ("b→c", "c"), ("c→a", "a")]
    assert all(m.status == "ok" and m.samples and m.correct for m in emitted)


@pytest.mark.usefixtures("addresses")
def test_all_pairs_of_nodes_are_measured_both_ways() -> None:
    spec = planned("tcp.bandwidth", direction="two-way", pairs="all", **SHORT)[0][0]
    emitted = measured("tcp.bandwidth", ("a", "b", "c"), spec)
    first = [m.subject.id for m in emitted if "again" not in m.parameters]  # on a busy machine some are suspect
    assert first == ["a→b", "a→c", "b→a", "b→c", "c→a", "c→b"]
    assert all(m.subject.id.endswith(m.node) and m.samples for m in emitted)


@pytest.mark.usefixtures("addresses")
def test_a_pair_that_fails_says_why_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Node b cannot listen once: of the ring a→b→c→a only a→b is lost, and tried again."""
    listen, calls = native.listen, []

    def refuse(*, address: str, port: int) -> native.Listener:
        calls.append(address)
        if len(calls) == 1:  # the first round is a→b
            raise DeviceError(Text("cannot listen: too many open files", "无法监听：打开的文件过多"), errno=24)
        return listen(address=address, port=port)

    monkeypatch.setattr(native, "listen", refuse)
    monkeypatch.setattr(pairwise, "second_tries", SECOND_TRIES)
    spec = planned("tcp.bandwidth", direction="one-way", **SHORT)[0][0]
    everything = measured("tcp.bandwidth", ("a", "b", "c"), spec)
    emitted = [m for m in everything if not m.parameters.get("again")]
    assert [(m.subject.id, m.status) for m in emitted] == [("a→b", "error"), ("b→c", "ok"), ("c→a", "ok")]
    assert [m.status for m in everything if m.parameters.get("again") and m.subject.id == "a→b"] == ["ok"]
    assert emitted[0].reason is not None
    assert "too many open files" in emitted[0].reason.en
    assert "打开的文件过多" in emitted[0].reason.zh
    assert emitted[0].samples == []
    assert emitted[0].correct is None


@pytest.mark.usefixtures("addresses")
def test_a_peer_that_never_calls_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> native.Connection:
        raise DeviceError(Text("no route to host", "没有到主机的路由"), errno=113)

    monkeypatch.setattr(native, "connect", refuse)
    spec = planned("tcp.latency", transport="tcp", iterations=5)[0][0]
    start = time.monotonic()
    emitted = measured("tcp.latency", ("a", "b"), spec, patience=1.0)
    assert time.monotonic() - start < 5
    assert [(m.subject.id, m.status, m.node) for m in emitted] == [("a→b", "error", "a")]
    assert emitted[0].reason is not None
    assert "a: no route to host; b: time ran out" in emitted[0].reason.en


@pytest.mark.usefixtures("addresses")
def test_a_busy_nic_skips_the_pairs_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(nics: Any) -> dict[str, float]:
        asked.extend(nics)
        return {"lo": 5e7} if threading.current_thread().name == "busy" else {}

    monkeypatch.setattr(tcp, "busy", load)
    spec = planned("tcp.bandwidth", direction="one-way", **SHORT)[0][0]
    meeting, emitted = Meeting(("a", "b", "c")), []  # type: Meeting, list[Measurement]
    names = ["quiet", "quiet", "busy"]
    threads = [
        threading.Thread(
            name=names[r], target=lambda r=r: PROBES["tcp.bandwidth"].measure(context(Rank(meeting, r), spec, emitted))
        )
        for r in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {m.subject.id: (m.status, m.reason_code) for m in emitted}
    assert found == {"a→b": ("ok", ""), "b→c": ("skip", "busy"), "c→a": ("skip", "busy")}
    reason = next(m.reason for m in emitted if m.status == "skip")
    assert reason is not None
    assert "lo of c carries other traffic (50.0 MB/s)" in reason.en
    assert asked


def test_an_interface_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = planned("tcp.bandwidth", direction="one-way", interface="ib7", **SHORT)[0][0]
    emitted = measured("tcp.bandwidth", ("a", "b"), spec)
    assert {(m.subject.id, m.status) for m in emitted} == {("a→b", "error"), ("b→a", "error")}
    assert all(m.reason is not None and "ib7" in m.reason.en and "ib7" in m.reason.zh for m in emitted)


def test_wrong_bytes_are_reported_with_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    original = native.Connection.bandwidth

    def other_seed(self: native.Connection, **arguments: Any) -> native.Bandwidth:
        return original(self, **{**arguments, "seed": 1 if arguments["sends"] else 2})

    monkeypatch.setattr(native.Connection, "bandwidth", other_seed)
    spec = planned("tcp.bandwidth", direction="one-way", **SHORT)[0][0]
    emitted: list[Measurement] = []
    PROBES["tcp.bandwidth"].measure(context(SoloGroup("a"), spec, emitted))
    assert emitted[0].correct is False
    assert emitted[0].reason_code == "wrong_data"
    assert int(emitted[0].parameters["bad_count"]) > 3900
    assert int(emitted[0].parameters["first_bad_index"]) < 10


def test_stop_leaves_no_rank_behind() -> None:
    spec = planned("tcp.bandwidth", direction="one-way", duration=20.0, sizes=(4096,), streams=1, transport="tcp")[0][0]
    stopper = threading.Timer(0.5, native.stop)
    stopper.start()
    start = time.monotonic()
    try:
        emitted = measured("tcp.bandwidth", ("a", "a"), spec, patience=60)
    finally:
        stopper.join()
        native.clear_stop()
    assert time.monotonic() - start < 5
    assert [(m.status, m.reason_code) for m in emitted] == [("aborted", "aborted")]


@pytest.mark.parametrize("direction", ["one-way", "two-way"])
def test_loopback_bandwidth_of_each_node(direction: str) -> None:
    spec = planned("loopback.bandwidth", **{**SHORT, "transport": "loopback", "direction": direction})[0][0]
    emitted = measured("loopback.bandwidth", ("a", "a", "b"), spec)
    per_node = 2 if direction == "two-way" else 1
    assert [m.node for m in emitted] == ["a"] * per_node + ["b"] * per_node
    assert all(m.samples and m.correct and m.status == "ok" and m.unit == "B/s" for m in emitted)


def test_loopback_latency_is_a_full_round_trip() -> None:
    spec = planned("loopback.latency", transport="loopback", iterations=30)[0][0]
    emitted = measured("loopback.latency", ("a",), spec)
    assert [(m.metric, m.unit, len(m.samples), m.correct) for m in emitted] == [("loopback.latency", "s", 30, True)]


@pytest.mark.usefixtures("addresses")
def test_named_nics_meet_over_tcp() -> None:
    world = World(3, ("a", "b", "c"), True)
    ends: dict[str, Any] = {"from_ends": ("a/lo", "c"), "to_ends": ("b/lo", "b")}
    spec = planned("tcp.bandwidth", world, direction="one-way", **SHORT, **ends)[0][0]
    assert spec.parameters["rounds"] == 2  # b may meet c by the NIC that is named
    emitted = measured("tcp.bandwidth", ("a", "b", "c"), spec)
    assert [(m.subject.id, m.status) for m in emitted] == [("a/lo→b/lo", "ok"), ("c→b", "ok")]


@pytest.mark.usefixtures("addresses")
def test_a_named_nic_without_an_address_is_told() -> None:
    ends: dict[str, Any] = {"from_ends": ("a/eth7",), "to_ends": ("b",)}
    spec = planned("tcp.bandwidth", World(2, ("a", "b"), True), direction="one-way", **SHORT, **ends)[0][0]
    (told,) = measured("tcp.bandwidth", ("a", "b"), spec)
    assert (told.subject.id, told.status) == ("a/eth7→b", "error")
    assert told.reason is not None
    assert "no address of a/eth7 is up" in told.reason.en
