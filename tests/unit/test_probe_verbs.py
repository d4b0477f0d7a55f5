"""The verbs probes with a stand-in for the native engine: what is planned, who meets whom, who tells what."""

from __future__ import annotations

import inspect
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from cwai_bench import native
from cwai_bench.errors import DeviceError, UsageError
from cwai_bench.group import SoloGroup
from cwai_bench.model import Measurement
from cwai_bench.probes import PROBES, Rails, World, hca, pairwise, verbs
from cwai_bench.probes.nic import Place
from cwai_bench.probes.transport import patience
from cwai_bench.text import Text
from tests.unit.ranks import ALONE, context, measured, planned

TWO_RAILS = Rails(("mlx5_0", "mlx5_1"))
PAIR = World(2, ("a", "b"), True, (TWO_RAILS, TWO_RAILS))
SHORT: dict[str, Any] = {"sizes": (4096,), "streams": 1, "transport": "verbs"}


def port(name: str, **more: Any) -> hca.Port:
    about = {"speed": 50e9, "pcie_speed": "32.0 GT/s PCIe", "pcie_width": 16, **more}
    return hca.Port(name, name.partition(":")[0], int(name.partition(":")[2] or 1), **about)


# ---------------------------------------------------------------------------------------------- plan


def chosen(probe: str, world: World = PAIR, **options: Any) -> list[tuple[Any, ...]]:
    keys = ("verb", "direction", "bytes", "streams")
    return [tuple(s.parameters[k] for k in keys) for s in planned(probe, world, **options)[0]]


def test_the_default_plan_is_all_verbs_and_most_of_write() -> None:
    assert chosen("verbs.bandwidth") == [
        ("write", "one-way", 65536, 1),
        ("write", "one-way", 65536, 4),
        ("write", "one-way", 1048576, 1),
        ("write", "one-way", 1048576, 4),
        ("write", "two-way", 1048576, 1),
        ("read", "one-way", 65536, 1),
        ("read", "one-way", 1048576, 4),
        ("send", "one-way", 65536, 1),
        ("send", "one-way", 1048576, 4),
    ]
    assert chosen("verbs.latency") == [(verb, "round-trip", 2, 1) for verb in ("write", "read", "send")]


def test_given_verbs_and_sizes_are_measured_in_every_combination() -> None:
    found = chosen("verbs.bandwidth", verb=("read",), sizes=(2, 4), streams=128, direction="both")
    assert found == [("read", way, size, 128) for way in ("one-way", "two-way") for size in (2, 4)]
    assert chosen("verbs.latency", verb=("send",), sizes=(64,)) == [("send", "round-trip", 64, 1)]


def test_with_rdma_on_every_node_there_is_no_tcp_and_it_says_so() -> None:
    assert len(planned("verbs.bandwidth", PAIR)[0]) == 9
    for probe in ("tcp.bandwidth", "tcp.latency"):
        specs, left_out = planned(probe, PAIR)
        assert specs == []
        assert [(item.what, item.reason_code) for item in left_out] == [(probe, "not_selected")]
        assert "--transport tcp" in left_out[0].reason.en


def test_one_node_without_rdma_is_enough_for_tcp() -> None:
    why = Text("this user may not open /dev/infiniband/uverbs0 of mlx5_0", "当前用户无权打开")
    world = replace(PAIR, rails=(TWO_RAILS, Rails(why_none=why)))
    assert planned("verbs.bandwidth", world) == ([], [])
    specs, left_out = planned("tcp.bandwidth", world)
    assert len(specs) == 5
    assert [item.reason.en for item in left_out] == [f"no RDMA on b: {why.en}; TCP is measured instead"]
    assert len(planned("verbs.bandwidth", world, transport="verbs")[0]) == 9


def test_verbs_asked_for_where_no_node_has_them_is_refused() -> None:
    none = Rails(why_none=Text("it has no active RDMA port", "没有处于活动状态的 RDMA 端口"))
    with pytest.raises(UsageError, match="no RDMA on a: it has no active RDMA port") as caught:
        planned("verbs.bandwidth", replace(PAIR, rails=(none, none)), transport="verbs")
    assert caught.value.next_step is not None
    assert planned("verbs.bandwidth", ALONE, transport="verbs")[0], "as long as nobody has looked, it may be"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"streams": 129}, "--streams: 129 is not between 1 and 128"),
        ({"mtu": 1500}, "--mtu: 1500 is none of 256, 512, 1024, 2048, 4096"),
        ({"service_level": 16}, "--service-level: 16 is not between 0 and 15"),
        ({"qp_timeout": 32}, "--qp-timeout: 32"),
        ({"retries": 8}, "--retries: 8"),
        ({"from_ends": ("a", "b", "a"), "to_ends": ("b", "a")}, "--from names 3 ends and --to 2"),
        ({"from_ends": ("c/mlx5_0",)}, "--from: there is no 'c/mlx5_0'"),
        ({"to_ends": ("b/mlx5_7",)}, "--to: there is no 'b/mlx5_7'"),
        ({"from_ends": ("a/mlx5_0",), "to_ends": ("a/mlx5_0",)}, "no two of the NICs that are chosen could meet"),
        ({"device": ("mlx5_9",)}, "--device: no node has an RDMA NIC 'mlx5_9'"),
        ({"as_node": ("mlx5_9=x",)}, "--as-node: no node has an RDMA NIC 'mlx5_9'"),
        ({"as_node": ("mlx5_0=x", "mlx5_1=y")}, "--as-node is for trying out on one machine"),
    ],
)
def test_impossible_choices_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned("verbs.bandwidth", PAIR, transport="verbs", **options)
    assert named in caught.value.message.en
    assert caught.value.message.zh != caught.value.message.en


def test_more_queue_pairs_than_tcp_has_streams_leave_the_rest_of_the_plan_alone() -> None:
    assert planned("verbs.bandwidth", PAIR, streams=128)[0][0].parameters["streams"] == 128
    assert planned("loopback.bandwidth", PAIR, streams=128)[0][0].parameters["streams"] == 64
    assert planned("tcp.bandwidth", ALONE, streams=128)[0], "refused only once there is no RDMA"


def test_as_long_as_nobody_has_looked_both_may_come() -> None:
    assert len(planned("verbs.bandwidth", ALONE)[0]) == 9
    assert len(planned("tcp.bandwidth", ALONE)[0]) == 5
    assert planned("verbs.bandwidth", ALONE, transport="tcp") == ([], [])


@pytest.mark.parametrize(("pairs", "rounds"), [("ring", 2), ("all", 15), ("sample:4", 4), ("full", 30)])
def test_the_plan_tells_rounds_and_time(pairs: str, rounds: int) -> None:
    nodes = tuple(f"n{i}" for i in range(16))
    spec = planned("verbs.bandwidth", World(16, nodes, True, (TWO_RAILS,) * 16), pairs=pairs)[0][0]
    assert spec.parameters["rounds"] == rounds
    assert spec.expected == pytest.approx(0.2 + rounds * 1.0, rel=0.1)


def test_a_pair_is_not_given_up_before_its_queue_pairs_are() -> None:
    given = planned("verbs.bandwidth", PAIR, qp_timeout=20, retries=7)[0][0].parameters
    assert patience(given, "bandwidth") > 4.096e-6 * 2**20 * 8


def test_devices_are_chosen_by_name_port_and_pattern() -> None:
    names = ["mlx5_0", "mlx5_1", "mlx5_10", "mlx4_0:1", "mlx4_0:2"]
    assert verbs.selected(names, "") == names
    assert verbs.selected(names, "mlx5_1") == ["mlx5_1"]
    assert verbs.selected(names, "mlx5_1:1,mlx4_0:2") == ["mlx5_1", "mlx4_0:2"]
    assert verbs.selected(names, "mlx4_0") == ["mlx4_0:1", "mlx4_0:2"]
    assert verbs.selected(names, "mlx5_1*") == ["mlx5_1", "mlx5_10"]
    assert verbs.selected(names, "^mlx5_0,mlx4_*") == ["mlx5_1", "mlx5_10"]


@pytest.mark.parametrize(
    ("ports", "loadable", "found"),
    [
        ([], True, "no active RDMA port"),
        ([port("mlx5_0", trouble=Text("may not open", "无权打开"))], True, "may not open"),
        ([port("mlx5_0")], False, "libibverbs.so.1 cannot be loaded"),
        ([port("mlx5_10"), port("mlx5_2"), port("mlx5_3", trouble=Text("no", "否"))], True, ("mlx5_2", "mlx5_10")),
    ],
)
def test_a_node_knows_its_rails_or_why_it_has_none(
    monkeypatch: pytest.MonkeyPatch, ports: list[hca.Port], loadable: bool, found: str | tuple[str, ...]
) -> None:
    why = Text("libibverbs.so.1 cannot be loaded: no such file", "无法加载")
    monkeypatch.setattr(hca, "ports", lambda: ports)
    monkeypatch.setattr(native, "backends", lambda: [native.Backend("verbs", True, loadable, True, why)])
    rails = hca.look()
    if isinstance(found, tuple):
        assert rails == Rails(found)
    else:
        assert rails.names == ()
        assert rails.why_none is not None
        assert found in rails.why_none.en


# ------------------------------------------------------------------------------------------- measure


SIGNATURES = {
    "queue_pairs": inspect.signature(native.queue_pairs),
    "bandwidth": inspect.signature(native.QueuePairs.bandwidth),
    "latency": inspect.signature(native.QueuePairs.latency),
}


@dataclass
class Engine:
    """What stands in for the native engine: both ends have to come over the control connection; it keeps what it was
    told."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    threads: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    refuse: dict[str, str] = field(default_factory=dict)
    """Devices that cannot be used, and why."""
    wrong: dict[str, int] = field(default_factory=dict)
    """Wrong bytes that a device finds."""
    speed: float = 10e9

    def queue_pairs(self, control: native.Connection, **arguments: Any) -> Ends:
        SIGNATURES["queue_pairs"].bind(control, **arguments)
        assert control.lanes == 1
        device = str(arguments["device"])
        self.threads[device].add(threading.get_ident())
        if device in self.refuse:
            raise DeviceError(Text(self.refuse[device], "设备不可用"))
        # Both ends must come, as they do for real; who is left alone learns of it.
        control.latency(size=8, initiates=":" in str(control.local) and control.local < control.remote, iterations=1)
        return Ends(self, arguments)


@dataclass
class Ends:
    engine: Engine
    made: dict[str, Any]
    gid_index: int = 3
    gid: str = "::ffff:10.0.0.1"
    mtu: int = 4096
    link_layer: str = "Ethernet"
    roce: str = "v2"

    def __enter__(self) -> Ends:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def bandwidth(self, **told: Any) -> native.Bandwidth:
        SIGNATURES["bandwidth"].bind(self, **told)
        self.engine.calls.append({**self.made, **told})
        counts = told["initiates"]
        samples = np.array([self.engine.speed] * 4 if counts else [])
        wrong = self.engine.wrong.get(self.made["device"], 0)
        memory = "dma-buf" if self.made["gpu"] else "host"
        return native.Bandwidth(samples, 0, 0, 1.0, 0, wrong, 5 if wrong else -1, 0, 0.0, memory)

    def latency(self, **told: Any) -> native.Latency:
        SIGNATURES["latency"].bind(self, **told)
        self.engine.calls.append({**self.made, **told})
        wrong = self.engine.wrong.get(self.made["device"], 0)
        return native.Latency(np.array([4e-6] * 3 if told["initiates"] else []), wrong, 1 if wrong else -1)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Each node is a thread of its name, and has two NICs and an address."""
    engine = Engine()
    monkeypatch.setattr(native, "queue_pairs", engine.queue_pairs)
    cluster(monkeypatch, {})
    return engine


def cluster(monkeypatch: pytest.MonkeyPatch, ports: dict[str, list[hca.Port]]) -> None:
    """``ports`` are those of nodes that are not as all others."""

    def here() -> list[hca.Port]:
        return ports.get(threading.current_thread().name, [port("mlx5_0"), port("mlx5_1")])

    def places(_interface: str | None) -> list[Place]:
        return [Place("lo", f"127.0.1.{ord(threading.current_thread().name[0]) - 96}", 24, 0.0)]

    monkeypatch.setattr(hca, "ports", here)
    monkeypatch.setattr(hca, "busy", lambda _ports: {})
    monkeypatch.setattr(verbs, "places", places)


def world_of(nodes: str, *names: str) -> World:
    return World(len(nodes), tuple(nodes), True, (Rails(names or ("mlx5_0", "mlx5_1")),) * len(nodes))


def one_spec(kind: str = "bandwidth", nodes: str = "ab", **options: Any) -> Any:
    options = {**SHORT, "direction": "one-way", "verb": ("write",), **options}
    return planned(f"verbs.{kind}", world_of(nodes), **options)[0][0]


def test_all_rails_of_two_nodes_are_measured_both_ways(engine: Engine) -> None:
    emitted = measured("verbs.bandwidth", ("a", "b"), one_spec())
    assert [(m.subject.id, m.node, m.status, m.correct) for m in emitted] == [
        (f"{a}/{nic}→{b}/{nic}", a, "ok", True) for a, b in (("a", "b"), ("b", "a")) for nic in ("mlx5_0", "mlx5_1")
    ]
    for m in emitted:
        assert (m.metric, m.unit, m.subject.kind, m.samples) == ("verbs.write.bandwidth", "B/s", "link", [10e9] * 4)
        told = m.parameters
        assert (told["verb"], told["direction"], told["bytes"], told["streams"]) == ("write", "one-way", 4096, 1)
        assert (told["gid_index"], told["mtu"], told["link_layer"], told["roce"]) == (3, 4096, "Ethernet", "v2")
        assert told["gid"] == "::ffff:10.0.0.1"
        assert (told["client_nic"], told["link_speed"]) == (told["server_nic"], 50e9)
        assert (told["client_pcie_speed"], told["server_pcie_width"]) == ("32.0 GT/s PCIe", 16)
        assert told["client_address"] != told["server_address"]
        assert "again" not in told
    assert all(len(threads) >= 2 for threads in engine.threads.values())


def test_what_was_chosen_reaches_the_queue_pairs(engine: Engine) -> None:
    chosen: dict[str, Any] = {
        "streams": 7,
        "gid_index": 5,
        "mtu": 1024,
        "service_level": 2,
        "traffic_class": 104,
        "qp_timeout": 20,
        "retries": 3,
        "depth": 64,
        "post_list": 16,
        "inline": 0,
        "relaxed_ordering": True,
        "huge_pages": True,
        "cold": True,
    }
    emitted = measured("verbs.bandwidth", ("a", "b"), one_spec(**chosen))
    names = {"streams": "count", "qp_timeout": "timeout_exponent"}
    for call in engine.calls:
        assert {key: call[names.get(key, key)] for key in chosen} == chosen
    assert {(m.parameters["traffic_class"], m.parameters["service_level"]) for m in emitted} == {(104, 2)}


def test_of_a_read_the_bytes_come_from_the_target(engine: Engine) -> None:
    emitted = measured("verbs.bandwidth", ("a", "b"), one_spec(verb=("read",), pairs="all"))
    assert {m.subject.id for m in emitted} == {"b/mlx5_0→a/mlx5_0", "b/mlx5_1→a/mlx5_1"}
    assert {(m.node, m.metric) for m in emitted} == {("a", "verbs.read.bandwidth")}, "the initiator counts"
    assert sorted((c["device"], c["initiates"]) for c in engine.calls) == [
        (nic, initiates) for nic in ("mlx5_0", "mlx5_1") for initiates in (False, True)
    ]


@pytest.mark.parametrize("verb", ["write", "read"])
def test_both_ways_each_end_tells_of_what_it_began(engine: Engine, verb: str) -> None:
    spec = one_spec(verb=(verb,), direction="two-way", from_ends=("a/mlx5_0",), to_ends=("b/mlx5_0",))
    emitted = measured("verbs.bandwidth", ("a", "b"), spec)
    assert all(call["initiates"] and call["two_way"] for call in engine.calls)
    there, back = "a/mlx5_0→b/mlx5_0", "b/mlx5_0→a/mlx5_0"
    assert {m.node: m.subject.id for m in emitted} == (
        {"a": there, "b": back} if verb == "write" else {"a": back, "b": there}
    )


@pytest.mark.parametrize("verb", ["write", "read", "send"])
def test_wrong_bytes_are_counted_once(engine: Engine, verb: str) -> None:
    """Either end of the engine tells what both have found."""
    engine.wrong["mlx5_1"] = 3
    emitted = measured("verbs.bandwidth", ("a", "b"), one_spec(verb=(verb,), pairs="all"))
    found = {m.parameters["client_nic"]: (m.correct, m.reason_code, m.parameters.get("bad_count")) for m in emitted}
    assert found == {"mlx5_0": (True, "", None), "mlx5_1": (False, "wrong_data", 3)}


def test_messages_of_the_gpu_nearest_to_each_nic(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    near = [port("mlx5_0", gpu="0000:1b:00.0"), port("mlx5_1", gpu="0000:43:00.0")]
    cluster(monkeypatch, {"a": near, "b": near})
    emitted = measured("verbs.bandwidth", ("a", "b"), one_spec(memory="gpu"))
    assert {(m.parameters["client_nic"], m.parameters["memory"]) for m in emitted} == {
        ("mlx5_0", "GPU 0000:1b:00.0 dma-buf"),
        ("mlx5_1", "GPU 0000:43:00.0 dma-buf"),
    }
    assert {(call["device"], call["gpu"]) for call in engine.calls} == {(p.device, p.gpu) for p in near}


def test_memory_of_a_gpu_that_is_not_there_is_no_hosts(engine: Engine) -> None:
    emitted = measured("verbs.bandwidth", ("a", "b"), one_spec(memory="gpu"))
    assert {m.status for m in emitted} == {"error"}
    assert all(m.reason is not None and "no NVIDIA GPU here" in m.reason.en for m in emitted)
    assert not engine.calls


def test_memory_of_gpus_is_for_bandwidth_over_rdma() -> None:
    specs, left_out = planned("verbs.latency", PAIR, memory="gpu")
    assert (specs, [item.what for item in left_out]) == ([], ["verbs.latency"])
    assert planned("tcp.bandwidth", PAIR, memory="gpu")[0] == []
    with pytest.raises(UsageError, match="--memory gpu: tcp has no such thing"):
        planned("verbs.bandwidth", PAIR, memory="gpu", transport="tcp")


def test_latency_is_told_by_the_end_that_asks(engine: Engine) -> None:
    emitted = measured("verbs.latency", ("a", "b"), one_spec("latency", sizes=None))
    assert [(m.metric, m.unit, m.subject.id, m.samples) for m in emitted] == [
        ("verbs.write.latency", "s", f"a/{nic}→b/{nic}", [4e-6] * 3) for nic in ("mlx5_0", "mlx5_1")
    ]
    assert all(call["size"] == 2 for call in engine.calls)


def test_a_nic_that_cannot_be_used_costs_its_own_pairs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, {"b": [port("mlx5_0"), port("bad")]})
    engine.refuse["bad"] = "the RDMA device bad cannot be used: Input/output error"
    emitted = measured("verbs.bandwidth", ("a", "b", "c"), one_spec(nodes="abc"))
    found = {m.subject.id: m.status for m in emitted}
    assert len(found) == 6
    assert {subject for subject, status in found.items() if status != "ok"} == {"a/mlx5_1→b/bad", "b/bad→c/mlx5_1"}
    reasons = [m.reason.en for m in emitted if m.reason is not None]
    assert all("b: the RDMA device bad cannot be used: Input/output error" in reason for reason in reasons)


def test_a_node_without_rdma_is_told_by_name(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, {"b": []})
    emitted = measured("verbs.bandwidth", ("a", "b", "c"), one_spec(nodes="abc"))
    found = {m.subject.id: (m.status, m.reason_code) for m in emitted}
    assert found == {
        "a/mlx5_0→b": ("error", "absent"),
        "b→c/mlx5_0": ("error", "absent"),
        "c/mlx5_0→a/mlx5_0": ("ok", ""),
        "c/mlx5_1→a/mlx5_1": ("ok", ""),
    }
    reason = next(m.reason for m in emitted if m.subject.id == "a/mlx5_0→b")
    assert reason is not None
    assert reason.en == "b: it has no active RDMA port"


def test_a_rail_that_nobody_shares_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, {"a": [port("mlx5_0"), port("mlx5_1"), port("mlx5_2")]})
    emitted = measured("verbs.bandwidth", ("a", "b"), one_spec())
    (alone,) = (m for m in emitted if m.subject.kind == "node")
    assert (alone.subject.id, alone.status, alone.node) == ("a/mlx5_2", "skip", "a")
    assert len(emitted) == 5


def test_a_busy_nic_skips_its_pairs_only(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(ports: Any) -> dict[str, float]:
        names = [p.name for p in ports]
        return {"mlx5_1": 2e9} if threading.current_thread().name == "b" and "mlx5_1" in names else {}

    monkeypatch.setattr(hca, "busy", load)
    emitted = measured("verbs.bandwidth", ("a", "b"), one_spec(pairs="all"))
    assert {m.subject.id.partition("→")[0]: (m.status, m.reason_code) for m in emitted} == {
        "a/mlx5_0": ("ok", ""),
        "a/mlx5_1": ("skip", "busy"),
    }


def test_alone_each_nic_meets_itself(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hca, "ports", lambda: [port("mlx5_0"), port("mlx5_1")])
    emitted: list[Measurement] = []
    PROBES["verbs.bandwidth"].measure(context(SoloGroup("a"), one_spec(nodes="a"), emitted))
    assert sorted((m.subject.kind, m.subject.id, m.status) for m in emitted) == [
        ("node", "a/mlx5_0", "ok"),
        ("node", "a/mlx5_1", "ok"),
    ]


@pytest.mark.parametrize("ranks", [1, 2])
def test_one_machine_may_pass_for_two_nodes(engine: Engine, monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    monkeypatch.setattr(hca, "ports", lambda: [port(n) for n in ("rxea0", "rxea1", "rxeb0", "rxeb1", "rxec0")])
    world = World(ranks, ("m",), True, (Rails(("rxea0", "rxea1", "rxeb0", "rxeb1", "rxec0")),))
    pretend = ("rxea0=A", "rxea1=A", "rxeb0=B", "rxeb1=B")
    spec = planned("verbs.bandwidth", world, **SHORT, verb=("write",), direction="one-way", as_node=pretend)[0][0]
    assert spec.parameters["rounds"] == 2
    emitted = measured("verbs.bandwidth", ("m",) * ranks, spec)
    assert sorted((m.subject.id, m.rank, m.status) for m in emitted) == [
        ("A/rxea0→B/rxeb0", 0, "ok"),
        ("A/rxea1→B/rxeb1", 0, "ok"),
        ("B/rxeb0→A/rxea0", ranks - 1, "ok"),
        ("B/rxeb1→A/rxea1", ranks - 1, "ok"),
    ]
    assert {m.parameters["client_address"] for m in emitted} == {"127.0.0.1"}


def test_a_node_on_which_nothing_is_chosen_says_what_it_has(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, {"b": [port("hns_0")]})
    emitted = measured("verbs.bandwidth", ("a", "b"), one_spec(device=("mlx5_*",), pairs="all"))
    reasons = {m.reason.en for m in emitted if m.status == "error" and m.reason is not None}
    assert reasons == {"b: none of the RDMA NICs here is chosen: hns_0"}


def test_named_ends_meet_across_rails(engine: Engine) -> None:
    emitted = measured(
        "verbs.bandwidth", ("a", "b", "c"), one_spec(nodes="abc", from_ends=("a/mlx5_0",), to_ends=("*/mlx5_1",))
    )
    assert [m.subject.id for m in emitted] == ["a/mlx5_0→b/mlx5_1", "a/mlx5_0→c/mlx5_1"]


def test_a_peer_that_never_comes_is_given_up_in_time(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> native.Connection:
        raise DeviceError(Text("no route to host", "没有到主机的路由"), errno=113)

    monkeypatch.setattr(native, "connect", refuse)
    start = time.monotonic()
    emitted = measured("verbs.bandwidth", ("a", "b"), one_spec(pairs="all"), patience=1.0)
    assert time.monotonic() - start < 5
    assert [(m.status, m.node) for m in emitted] == [("error", "a")] * 2
    assert all(m.reason is not None and "a: no route to host; b: time ran out" in m.reason.en for m in emitted)


def test_a_suspect_meets_two_that_are_good_both_ways() -> None:
    ends = tuple(f"node{i}/mlx5_0" for i in range(5))
    fine: dict[tuple[int, int], float | None] = dict.fromkeys(permutations(range(5), 2), 10e9)
    assert pairwise.second_tries(ends, fine, "bandwidth") == []
    found = {pair: None if 2 in pair else rate for pair, rate in fine.items()}
    assert sorted(pairwise.second_tries(ends, found, "bandwidth")) == [(2, 3), (2, 4), (3, 2), (4, 2)]
    slow: dict[tuple[int, int], float | None] = {
        pair: 20e-6 if 2 in pair else 5e-6 for pair in fine if pair[0] < pair[1]
    }
    assert sorted(pairwise.second_tries(ends, slow, "latency")) == [(2, 3), (2, 4)]
    assert pairwise.second_tries(ends[:2], {(0, 1): None, (1, 0): None}, "bandwidth") == []


def test_suspects_are_tried_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ranks learn what all pairs found, in the direction of the bytes, and go through the same further rounds."""
    engine.refuse["mlx5_1"] = "it is broken"
    asked: list[tuple[tuple[str, ...], dict[tuple[int, int], float | None]]] = []

    def suspect(ends: tuple[str, ...], found: dict[tuple[int, int], float | None], _kind: str) -> list[Any]:
        asked.append((ends, found))
        return [(0, 4)]

    monkeypatch.setattr(pairwise, "second_tries", suspect)
    emitted = measured("verbs.bandwidth", ("a", "b", "c"), one_spec(nodes="abc"))
    assert len(asked) == 3
    assert all(one == asked[0] for one in asked)
    ends, found = asked[0]
    assert ends == tuple(f"{node}/{nic}" for node in "abc" for nic in ("mlx5_0", "mlx5_1"))
    assert found == {(0, 2): 10e9, (1, 3): None, (2, 4): 10e9, (3, 5): None, (4, 0): 10e9, (5, 1): None}
    again = [m.subject.id for m in emitted if m.parameters.get("again") == 1]
    assert again == ["a/mlx5_0→c/mlx5_0"]
    assert len(emitted) == 7


def test_a_second_look_that_does_not_fit_is_not_begun(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise, "second_tries", lambda *_: [(0, 2)])
    spec = one_spec()
    emitted = measured("verbs.bandwidth", ("a", "b"), spec, patience=patience(spec.parameters, "bandwidth") - 0.5)
    assert emitted
    assert not any("again" in m.parameters for m in emitted)


@pytest.mark.parametrize(
    ("verb", "direction", "expected"),
    [
        ("write", "one-way", {"a/mlx5_0→b/mlx5_0", "b/mlx5_0→a/mlx5_0"}),
        ("read", "one-way", {"a/mlx5_0→b/mlx5_0", "b/mlx5_0→a/mlx5_0"}),
        ("write", "two-way", {"a/mlx5_0→b/mlx5_0", "b/mlx5_0→a/mlx5_0"}),
    ],
)
def test_a_second_try_goes_the_way_of_the_bytes(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, verb: str, direction: str, expected: set[str]
) -> None:
    monkeypatch.setattr(pairwise, "second_tries", lambda *_: [(0, 2), (2, 0)])
    emitted = measured("verbs.bandwidth", ("a", "b"), one_spec(verb=(verb,), direction=direction))
    again = [m for m in emitted if m.parameters.get("again") == 1]
    assert sorted(m.subject.id for m in again) == sorted(expected)
    initiator = {m.node for m in again if m.subject.id == "a/mlx5_0→b/mlx5_0"}
    assert initiator == ({"b"} if verb == "read" else {"a"})
