"""Consistency items: against a baseline node, against a baseline file, and with none."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from cwai_bench import baseline
from cwai_bench.checks import CHECKS, ConsistencyCheck, FactView, NotKnown
from cwai_bench.checks.consistency import without_own
from cwai_bench.checks.kind import node_kind
from cwai_bench.errors import UsageError
from cwai_bench.judge import check_facts
from cwai_bench.model import Facts, Status, Verdict
from cwai_bench.sources import Call

if TYPE_CHECKING:
    from tests.unit.conftest import Planted

AWAY = ("amd", "ascend", "roce")
"""Scopes whose home is another recorded node: their items are tried in the files of their families."""
SAME = [c.info.id for c in CHECKS.values() if isinstance(c, ConsistencyCheck) and c.info.scope not in AWAY]
THP = "sys/kernel/mm/transparent_hugepage/enabled"


def fleet(good: Facts, count: int) -> list[Facts]:
    return [msgspec.structs.replace(good, node=f"node{i}") for i in range(1, count + 1)]


def by_node(verdicts: list[Verdict]) -> dict[str, Verdict]:
    return {n: v for v in verdicts for n in v.nodes}


CHANGES: dict[str, Callable[[Planted], object]] = {
    "same.kind": lambda n: n.call("host", machine="aarch64"),
    "same.kernel": lambda n: n.call("host", release="5.15.0-131-generic"),
    "same.os": lambda n: n.replace("etc/os-release", "22.04.5", "22.04.4"),
    "same.cpu.model": lambda n: n.call("cpus", model="Intel(R) Xeon(R) Gold 6448Y"),
    "same.cpu.topology": lambda n: n.call("cpus", numa_nodes=4),
    "same.memory": lambda n: n.meminfo("MemTotal", 989_659_136),
    "same.swap": lambda n: n.meminfo("SwapTotal", 8 << 20),
    "same.cmdline": lambda n: n.replace("proc/cmdline", "iommu=pt", "iommu=off"),
    "same.thp": lambda n: n.write(THP, "[always] madvise never\n"),
    "same.governor": lambda n: n.call("cpus", governors={"powersave": 128}),
    "same.nics": lambda n: n.rows("network", "interfaces", {"name": "ibp26s0"}, carrier=False),
    "same.rdma": lambda n: n.call("network", rdma=["mlx5_0", "mlx5_bond_0"]),
    "same.devices": lambda n: n.rows("pci", "devices", {"address": "0000:19:00.0"}, class_code=0x0880),
    "same.affinity": lambda n: n.rows("pci", "devices", {"address": "0000:19:00.0"}, numa_node=1),
    "same.nccl.library": lambda n: n.replace("calls/nccl.json", "CTCCL version 0.2.0(", "CTCCL version 0.3.0("),
    "same.nccl.settings": lambda n: n.call("nccl_settings", environment={"NCCL_IB_QPS_PER_CONNECTION": "4"}),
    "same.drivers": lambda n: n.call("modules", versions={"nvidia": "550.54.15", "unrelated": "9"}),
    "same.limits": lambda n: n.call("limits", limits={"nofile": [1024, 4096], "memlock": [-1, -1]}),
    "same.clock_source": lambda n: n.write("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"),
    "same.timezone": lambda n: n.call("host", timezone="CST +0800"),
    "same.libc": lambda n: n.call("host", libc="glibc 2.36"),
    "same.python": lambda n: n.call("host", python="3.11.2"),
    "same.sysctl": lambda n: n.write("proc/sys/net/ipv4/conf/all/rp_filter", "1\n"),
    "same.mitigations": lambda n: n.write("sys/devices/system/cpu/vulnerabilities/spectre_v2", "Vulnerable\n"),
    "same.bios": lambda n: n.write("sys/class/dmi/id/bios_version", "2.6.0\n"),
    "same.nameservers": lambda n: n.replace("etc/resolv.conf", "10.20.0.3", "10.20.0.4"),
}
for family in Path(__file__).parent.glob("test_check_*.py"):
    CHANGES |= getattr(importlib.import_module(f"tests.unit.{family.stem}"), "CHANGES", {})


@pytest.mark.parametrize("check", SAME)
def test_a_difference_from_the_baseline_fails(check: str, planted: Planted, good_facts: Facts) -> None:
    CHANGES[check](planted.rename("node2"))
    other = planted.facts()
    same = msgspec.structs.replace(good_facts, node="node3")
    found = by_node(check_facts([good_facts, other, same], [check], baseline="node1"))

    assert found["node2"].status is Status.FAIL, found["node2"]
    assert found["node3"].status is Status.PASS
    assert found["node1"].status is Status.PASS
    assert found["node1"].detail is not None
    assert found["node1"].detail.zh == "基线"
    assert found["node2"].expected is not None
    assert found["node2"].expected.en == found["node1"].observed != found["node2"].observed
    groups = found["node1"].groups
    assert [(g.nodes, g.is_baseline) for g in groups] == [(["node1", "node3"], True), (["node2"], False)]


@pytest.mark.parametrize("check", SAME)
def test_with_no_baseline_values_are_listed_and_not_judged(check: str, planted: Planted, good_facts: Facts) -> None:
    CHANGES[check](planted.rename("node2"))
    (verdict,) = check_facts([good_facts, planted.facts()], [check])
    assert verdict.status is Status.NA
    assert verdict.reason_code == "no_baseline"
    assert sorted(node for g in verdict.groups for node in g.nodes) == ["node1", "node2"]
    assert len(verdict.groups) == 2
    assert verdict.hint is None, "two nodes have no majority"


def test_every_item_has_a_change() -> None:
    assert {c for c in CHANGES if CHECKS[c].info.scope not in AWAY} == set(SAME)
    assert len(SAME) >= 10


def test_a_small_difference_in_memory_is_none(planted: Planted, good_facts: Facts) -> None:
    planted.rename("node2").meminfo("MemTotal", 1056768000 - 1_000_000)  # 0.1 %
    found = by_node(check_facts([good_facts, planted.facts()], ["same.memory"], baseline="node1"))
    assert found["node2"].status is Status.PASS


def test_what_is_a_nodes_own_is_no_difference(planted: Planted, good_facts: Facts) -> None:
    planted.rename("node2").write(
        "proc/cmdline",
        "transparent_hugepage=madvise console=tty0 console=ttyS0,115200n8 iommu=pt intel_iommu=on"
        " numa_balancing=disable root=UUID=00000000-1111-2222-3333-444444444444 BOOT_IMAGE=/other ro\n",
    )
    found = by_node(check_facts([good_facts, planted.facts()], ["same.cmdline"], baseline="node1"))
    assert found["node2"].status is Status.PASS, found["node2"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("iscsi=aa:bb:cc:dd:ee:0f", "iscsi=<mac>"),
        ("x=4a6f1b1e-52c3-4f6e-9b1f-0a1b2c3d4e5f", "x=<uuid>"),
        ("vfio-pci.ids=0000:3b:00.0", "vfio-pci.ids=<pci>"),
        ("netconsole=@10.1.2.3/eth0", "netconsole=@<ip>/eth0"),
        ("systemd.hostname=node1", "systemd.hostname=<host>"),
        ("node10 node1-x version=5.15.0-130", "node10 node1-x version=5.15.0-130"),
    ],
)
def test_masks(text: str, masked: str) -> None:
    assert without_own(text, "node1") == masked


def test_a_baseline_that_lacks_the_fact_is_unknown_for_all(planted: Planted, good_facts: Facts) -> None:
    planted.rename("base").refuse(Call("modules"))
    found = by_node(check_facts([planted.facts(), good_facts], ["same.drivers"], baseline="base"))
    assert found["base"].status is Status.UNKNOWN
    assert (found["node1"].status, found["node1"].reason_code) == (Status.UNKNOWN, "baseline_lacks")


def test_absent_here_and_there_is_a_skip_and_here_only_a_difference(planted: Planted, good_facts: Facts) -> None:
    without = planted.rename("node2").call("network", rdma=[]).facts()
    again = msgspec.structs.replace(without, node="node3")
    found = by_node(check_facts([without, again, good_facts], ["same.rdma"], baseline="node2"))
    assert found["node3"].status is Status.SKIP
    assert found["node1"].status is Status.FAIL
    found = by_node(check_facts([without, good_facts], ["same.rdma"], baseline="node1"))
    assert found["node2"].status is Status.FAIL


def test_another_kind_of_node_is_said_once_and_not_compared(planted: Planted, good_facts: Facts) -> None:
    """A node whose cards are all gone is no silent exception: it fails same.kind."""
    planted.rename("node2").call("pci", devices=[]).call("host", release="6.8.0-1")
    found = check_facts([good_facts, planted.facts()], ["same.kind", "same.kernel"], baseline="node1")
    said = {v.check: (v.status, v.reason_code) for v in found if "node2" in v.nodes}
    assert said == {"same.kind": (Status.FAIL, ""), "same.kernel": (Status.SKIP, "not_comparable")}


def test_a_lost_node_is_unknown(good_facts: Facts) -> None:
    found = by_node(check_facts([good_facts], ["same.kernel"], nodes=["node1", "node9"], baseline="node1"))
    assert (found["node9"].status, found["node9"].reason_code) == (Status.UNKNOWN, "node_lost")


def test_a_baseline_that_is_no_node_is_refused(good_facts: Facts) -> None:
    with pytest.raises(UsageError) as refused:
        check_facts(fleet(good_facts, 3), ["same.kernel"], baseline="node33")
    assert refused.value.next_step is not None
    assert "node3" in refused.value.next_step.en


# --------------------------------------------------------------------------------------------------------------- hints


def test_the_hint_names_who_differs_and_changes_nothing(planted: Planted, good_facts: Facts) -> None:
    odd = planted.rename("odd").call("host", release="6.8.0").facts()
    (verdict,) = check_facts([*fleet(good_facts, 5), odd], ["same.kernel"])
    assert verdict.status is Status.NA
    assert verdict.hint is not None
    assert "odd" in verdict.hint.en
    assert "5.15.0-130-generic" in verdict.hint.en
    (verdict,) = check_facts([*fleet(good_facts, 3), odd], ["same.kernel"])
    assert verdict.hint is None, "four nodes are too few"


def test_no_majority_no_hint(planted: Planted, good_facts: Facts) -> None:
    other = planted.call("host", release="6.8.0").facts()
    mixed = fleet(good_facts, 3) + [msgspec.structs.replace(other, node=f"other{i}") for i in range(3)]
    (verdict,) = check_facts(mixed, ["same.kernel"])
    assert verdict.hint is None


def test_the_numeric_hint_wants_both_a_large_z_and_a_deviation_that_matters(
    planted: Planted, good_facts: Facts
) -> None:
    def with_memory(name: str, kilobytes: int) -> Facts:
        return planted.rename(name).meminfo("MemTotal", kilobytes).facts()

    usual = 1056768000
    tight = [with_memory(f"node{i}", usual + i) for i in range(6)]
    (verdict,) = check_facts([*tight, with_memory("odd", usual - 100_000)], ["same.memory"])
    assert verdict.hint is None, "0.01 % less is an enormous z and nothing to mention"
    (verdict,) = check_facts([*tight, with_memory("odd", usual - 67_108_864)], ["same.memory"])
    assert verdict.hint is not None
    assert "odd" in verdict.hint.en
    assert "1007.8 GiB" in verdict.hint.en
    spread = [with_memory(f"node{i}", usual - i * 60_000_000) for i in range(7)]
    (verdict,) = check_facts(spread, ["same.memory"])
    assert verdict.hint is None, "all differ: nobody stands out"


def test_hints_compare_like_with_like(planted: Planted, good_facts: Facts) -> None:
    """One login node without cards is no outlier among five nodes with cards."""
    login = planted.rename("login").call("pci", devices=[]).call("host", release="6.8.0").facts()
    assert node_kind(FactView(login)) != node_kind(FactView(good_facts))
    (verdict,) = check_facts([*fleet(good_facts, 5), login], ["same.kernel"])
    assert verdict.hint is None


# ------------------------------------------------------------------------------------------------------ baseline files


def test_a_baseline_file_judges_as_the_node_did(tmp_path: Path, planted: Planted, good_facts: Facts) -> None:
    path = tmp_path / "baseline.json"
    baseline.save(path, baseline.from_facts(good_facts))
    loaded = baseline.load(path)
    assert loaded.node == "node1"
    for check in SAME:
        CHANGES[check](planted.rename("node2"))
    other = planted.facts()
    from_node = [v for v in check_facts([good_facts, other], SAME, baseline="node1") if "node2" in v.nodes]
    from_file = check_facts([other], SAME, baseline=loaded)
    assert [(v.check, v.status, v.observed, v.expected) for v in from_file] == [
        (v.check, v.status, v.observed, v.expected) for v in from_node
    ]
    assert {v.status for v in from_file} == {Status.FAIL, Status.SKIP}  # another kind: the rest is not compared


def test_a_baseline_file_holds_no_more_than_is_compared(good_facts: Facts) -> None:
    kept = baseline.from_facts(good_facts).facts.readings
    assert "call:kernel_log" not in kept
    assert "sys/devices/system/cpu/vulnerabilities/spectre_v2" in kept
    with pytest.raises(NotKnown):
        FactView(baseline.from_facts(good_facts).facts).call("kernel_log", object)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not a baseline"),
        (b"[]", "not a baseline"),
        (b'{"type": "report", "format": 1}', "not a baseline"),
        (b'{"type": "baseline", "format": 7, "version": "9.9"}', "format 7 is not supported"),
        (b'{"type": "baseline", "format": 1, "node": 3}', "not a baseline"),
    ],
)
def test_a_broken_baseline_file_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=says) as refused:
        baseline.load(path)
    assert str(path) in refused.value.message.en
    with pytest.raises(UsageError, match="cannot read"):
        baseline.load(tmp_path / "none.json")
