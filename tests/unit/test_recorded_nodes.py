"""The program, run whole over every recorded node: all are well, and what a node has not is no fault of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cwai_bench.checks import CHECKS, NodeCheck
from cwai_bench.model import Status
from tests.unit.conftest import EVERY, NODES, WHOLE, Planted

ABSENT = {
    "l40s": {"ascend", "amd"},
    "a10_vm": {"ascend", "amd", "rdma", "roce", "nccl"},
    "plain": {"ascend", "amd", "rdma", "roce", "nvidia", "nccl"},
}
"""Scopes of which a node has nothing."""
HAS_NOT = {
    "l40s": {
        "nccl.drop_in",
        "nccl.files",
        "nccl.names",
        "nccl.values",
        "nccl.devices",
        "nccl.forced",
        "nccl.log",
        "nvidia.nvlink_bit_errors",
        "nvidia.nvlink_growth",
        "rdma.efa",
        "rdma.ufm",
        "roce.port_access",
        "storage.smart",
        "nvidia.nvlink",
        "nvidia.nvlink_errors",
        "nvidia.fabric",
        "nvidia.fabric_services",
        "nvidia.mig",
        "nvidia.clocks",  # application clocks are no more since driver 580
        "nvidia.gdrcopy",
        "rdma.pkey",
        "rdma.subnet_manager",
        "storage.lustre",
        "storage.raid",
        "storage.zfs",
    },
    "a10_vm": {
        "bmc.events",
        "nvidia.nvlink_bit_errors",
        "nvidia.nvlink_growth",
        "storage.smart",
        "cpu.capped",
        "cpu.governor",
        "cpu.throttled",
        "kernel.iommu",
        "limits.locked_memory",
        "memory.ecc",
        "memory.numa_balancing",
        "network.duplex",
        "network.speed",
        "nvidia.dcgm_health",
        "nvidia.dcgm_service",
        "nvidia.fabric",
        "nvidia.fabric_services",
        "nvidia.gdrcopy",
        "nvidia.gpudirect",
        "nvidia.mig",
        "nvidia.nvlink",
        "nvidia.nvlink_errors",
        "pci.acs",
        "pci.bandwidth",
        "pci.links",
        "pci.numa",
        "pci.packets",
        "services.irqbalance",
        "storage.lustre",
        "storage.nvme",
        "storage.nvme_health",
        "storage.raid",
        "storage.zfs",
    },
    "plain": {
        "storage.smart",
        "container.gpu_runtime",
        "cpu.throttled",
        "kernel.iommu",
        "kernel.nouveau",
        "limits.locked_memory",
        "memory.numa_balancing",
        "pci.acs",
        "pci.numa",
        "services.irqbalance",
        "storage.lustre",
        "storage.raid",
        "storage.zfs",
    },
}
"""Node items of other scopes that do not apply to a node: what they are about is not there."""


def checked(root: Path, tmp_path: Path) -> tuple[int, dict[str, tuple[str, str]]]:
    """The program's exit code, and status and reason code of each item."""
    done = subprocess.run(
        [sys.executable, "-m", "cwai_bench", "check", "--root", root, "--store", tmp_path / "store", "--json"],
        env={**os.environ, "CWAI_BENCH_SPOOL": str(tmp_path / "spool")},
        capture_output=True,
        timeout=60,
    )
    assert done.stderr.count(b"Traceback") == 0
    found = {v["check"]: (v["status"], v.get("reason_code", "")) for v in json.loads(done.stdout)["verdicts"]}
    return done.returncode, found


@pytest.mark.parametrize("name", EVERY)
def test_the_program_finds_nothing_wrong_with_a_recorded_node(name: str, tmp_path: Path) -> None:
    code, found = checked(Planted(tmp_path / "node", name).root, tmp_path)
    assert {id: said for id, said in found.items() if said[0] not in ("PASS", "SKIP", "NA")} == {}
    assert code == 0
    if name not in ABSENT:
        return
    items = {c.info.id: c.info.scope for c in CHECKS.values() if isinstance(c, NodeCheck) and c.info.id in found}
    skipped = {id: found[id][1] for id in items if found[id][0] == "SKIP"}
    gone = {id for id, scope in items.items() if scope in ABSENT[name]}
    assert gone <= set(skipped)
    assert set(skipped) - gone == HAS_NOT[name]
    assert set(skipped.values()) <= {"absent", "unsupported"}
    assert {found[id][0] for id in set(items) - set(skipped)} == {"PASS"}


@pytest.mark.parametrize("name", ["l40s", "a10_vm"])
def test_nvidia_smi_says_of_these_cards_what_nvml_says(name: str, tmp_path: Path) -> None:
    from cwai_bench.checks import long_items
    from cwai_bench.checks.nvidia import NVML, SCOPE
    from cwai_bench.judge import check_facts

    node = Planted(tmp_path / "node", name)
    left_out = (*long_items(), "nvidia.nvlink_growth")  # NVML alone is asked for its growth
    items = [id for id in CHECKS if CHECKS[id].info.scope == SCOPE and id not in left_out]
    wanted = {v.check: (v.status, v.observed) for v in check_facts([node.facts()], items)}
    node.remove(f"calls/{NVML.name}.json")
    assert {v.check: (v.status, v.observed) for v in check_facts([node.facts()], items)} == wanted
    assert Status.PASS in {status for status, _ in wanted.values()}


def test_a_whole_node_needs_no_other(tmp_path: Path) -> None:
    for name in WHOLE:
        assert (NODES / name / "proc/meminfo").is_file()
        assert (NODES / name / "node.json").is_file()
    assert {name for name in EVERY if (NODES / name / "proc/meminfo").is_file()} == set(WHOLE)
