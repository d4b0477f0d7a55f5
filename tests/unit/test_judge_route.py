"""Over which NIC wrong data came: what the library logged, what is near the card, or that nobody knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from cwai_bench.checks import NotKnown
from cwai_bench.checks.topology import nearest_nics
from cwai_bench.judge import judge
from cwai_bench.judge.route import SOURCE
from cwai_bench.model import Facts, Measurement, NodeRecord, Plan, Reading, Scalar, Status, Subject
from cwai_bench.text import Text
from tests.unit.conftest import Planted
from tests.unit.test_judge_run import info, run, spec, verdict_of

SWEEP = msgspec.structs.replace(
    spec("nccl.all_reduce"), info=msgspec.structs.replace(info("nccl.all_reduce"), scope="nccl")
)
CARD = "0000:49:00.0"


def log(*ways: str, nics: int = 4) -> str:
    listed = " ".join(f"[{i}]mlx5_{i}:1/IB" for i in range(nics))
    said = [f"NET/IB : Using {listed} [RO]; OOB eth0:192.0.2.11<0>", "NET/Socket : Using [0]eth0:192.0.2.11<0>"]
    said += [f"Channel 00/0 : 0[0] -> 1[1] [send] via {way}" for way in ways]
    return "".join(f"n:1:1 [0] NCCL INFO {line}\n" for line in said)


@dataclass
class Group:
    """Four ranks on each node, of which rank 2 received wrong data. ``logs``: of each process of node1."""

    facts: Facts | None = None
    logs: dict[int, str] = field(default_factory=dict)
    nodes: int = 2
    card: str = CARD

    def detail(self) -> Text:
        names = [f"node{i + 1}" for i in range(self.nodes)]
        ms = [self._measurement(rank, names[rank // 4]) for rank in range(4 * self.nodes)]
        said = [Reading(f"{SOURCE}{SWEEP.id}:{rank}", "ok", text) for rank, text in self.logs.items()]
        readings = {reading.source: reading for reading in said}
        known = self.facts or Facts("node1", 0.0, True, False, {})
        facts = [msgspec.structs.replace(known, node="node1", readings=known.readings | readings)]
        whole = run(
            world_size=len(ms),
            plan=Plan([], [SWEEP], [], 1.0),
            nodes=[NodeRecord(name, [*range(4 * i, 4 * i + 4)], True, True) for i, name in enumerate(names)],
            facts=facts if self.facts or readings else [],
            measurements=ms,
        )
        verdict = verdict_of(judge(whole), "nccl.all_reduce")
        assert (verdict.status, verdict.nodes, verdict.reason_code) == (Status.FAIL, ["node1"], "wrong_data")
        assert verdict.detail is not None
        return verdict.detail

    def _measurement(self, rank: int, node: str) -> Measurement:
        given: dict[str, Scalar] = {"bytes": 1024, "ranks": 4 * self.nodes, "bus_factor": 1.75}
        if rank == 2:
            given |= {"bad_count": 3, "first_bad_index": 17} | ({"card": self.card} if self.card else {})
        place, subject = "nccl.all_reduce.time", Subject("rank", f"{node}/rank{rank}")
        return Measurement(
            place, "s", subject, [1e-3] * 5, given, 0.0, 1.0, node, rank, spec=SWEEP.id, correct=rank != 2
        )


def test_host_card_and_the_nic_that_the_library_logged_are_named(good_facts: Facts) -> None:
    logs = {rank: log("P2P/CUMEM/read", f"NET/IB/{3 - rank}/GDRDMA") for rank in range(4)}
    told = Group(good_facts, logs).detail()
    assert told.en.startswith("rank 2 on node1: ")
    assert f"card {CARD}" in told.en
    assert told.en.endswith("NIC mlx5_1:1/IB, by the library's log")
    assert told.zh.endswith("网卡 mlx5_1:1/IB（据通信库日志）")


def test_of_a_process_with_several_cards_its_own_log_counts() -> None:
    """Two processes of two cards each: rank 2 is the second one's."""
    logs = {0: log("NET/IB/0/GDRDMA"), 1: log("NET/IB/2/GDRDMA", "NET/IB/3/GDRDMA")}
    assert Group(logs=logs).detail().en.endswith("NIC mlx5_2:1/IB, mlx5_3:1/IB, by the library's log")


def test_sockets_are_named_by_their_interface() -> None:
    assert Group(logs={0: log("NET/Socket/0")}).detail().en.endswith("NIC eth0, by the library's log")


def test_where_the_log_does_not_tell_the_nearest_is_named_as_that(good_facts: Facts) -> None:
    for logs in ({}, {0: log("P2P/CUMEM/read")}, {r: log("NET/IB/0") for r in range(3)}):
        told = Group(good_facts, logs).detail()
        assert f"NIC nearest to {CARD}: mlx5_3 (the library's log does not tell" in told.en
        assert f"距 {CARD} 最近的网卡：mlx5_3" in told.zh


def test_what_is_not_known_is_not_guessed(good_facts: Facts) -> None:
    assert "its NIC is not known: nothing was read on this node" in Group().detail().en
    assert "网卡未知：未读取该节点的数据" in Group().detail().zh
    elsewhere = Group(good_facts, card="0000:01:02.3").detail().en
    assert "its NIC is not known: 0000:01:02.3 is not among the PCI devices read" in elsewhere
    assert "its NIC is not known: the library does not tell" in Group(good_facts, card="").detail().en
    silent = Facts("node1", 0.0, True, False, {})
    assert "its NIC is not known: " in Group(silent).detail().en


def test_within_a_node_no_nic_is_accused(good_facts: Facts) -> None:
    assert Group(good_facts, nodes=1).detail().en.endswith("all ranks are on one node: no NIC is needed")
    assert Group(nodes=1, logs={0: log("NET/Socket/0")}).detail().en.endswith("NIC eth0, by the library's log")


def test_the_nearest_shares_the_lowest_bridge_else_the_numa_node(planted: Planted) -> None:
    facts = planted.facts()
    assert [nearest_nics(facts, f"0000:{bus}:00.0") for bus in ("19", "c9")] == [["mlx5_0"], ["mlx5_7"]]
    apart = planted.rows("pci", "devices", {"address": "0000:18:01.0"}, behind="").facts()
    assert nearest_nics(apart, "0000:19:00.0") == ["mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3"], "by NUMA node"
    lone = planted.rows("pci", "devices", {"address": "0000:19:00.0"}, behind="", numa_node=-1).facts()
    with pytest.raises(NotKnown, match="no rail is near 0000:19:00.0"):
        nearest_nics(lone, "0000:19:00.0")


def test_a_vm_shows_a_tree_that_is_made_up(planted: Planted) -> None:
    with pytest.raises(NotKnown, match="a VM"):
        nearest_nics(planted.call("container", vm="kvm").facts(), CARD)


def test_an_npu_has_a_port_of_its_own(tmp_path: Path) -> None:
    planted = Planted(tmp_path / "npus", "ascend_910b")
    facts = planted.facts()
    assert nearest_nics(facts, "NPU 3") == ["port 3"]
    with pytest.raises(NotKnown, match="npu-smi does not list NPU 31"):
        nearest_nics(facts, "NPU 31")
    with pytest.raises(NotKnown, match="a container numbers its NPUs anew"):
        nearest_nics(planted.call("container", kind="docker").facts(), "NPU 3")
