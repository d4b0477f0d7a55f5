"""Each node item, on a good node and on one with a fault planted in it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest

from cwai_bench.checks import CHECKS, NodeCheck
from cwai_bench.checks.memory import EDAC_UE
from cwai_bench.checks.processes import FAILED_UNITS, IRQBALANCE
from cwai_bench.judge import check_facts
from cwai_bench.model import Action, Facts, Status, Verdict
from cwai_bench.sources import Call, File

if TYPE_CHECKING:
    from tests.unit.conftest import Planted

NODE_CHECKS = [c.info.id for c in CHECKS.values() if isinstance(c, NodeCheck)]
PASS, WARN, FAIL, UNKNOWN, SKIP = Status.PASS, Status.WARN, Status.FAIL, Status.UNKNOWN, Status.SKIP


class Case(NamedTuple):
    """``says``: what the observed value, the detail, the evidence or the reason code must hold."""

    check: str
    plant: Callable[[Planted], object]
    status: Status
    says: str


def judged(facts: Facts, check: str) -> Verdict:
    (verdict,) = check_facts([facts], [check])
    return verdict


@pytest.mark.parametrize("check", NODE_CHECKS)
def test_an_item_passes_at_home(check: str, at_home: Callable[[str], Facts]) -> None:
    verdict = judged(at_home(check), check)
    assert verdict.status is PASS, verdict
    assert verdict.observed
    assert verdict.action is Action.NONE
    assert verdict.evidence, "a verdict shows what was judged"


def filesystem(mount: str, **changes: object) -> Callable[[Planted], object]:
    return lambda n: n.rows("filesystems", "filesystems", {"mount": mount}, **changes)


def nic(name: str, **changes: object) -> Callable[[Planted], object]:
    return lambda n: n.rows("network", "interfaces", {"name": name}, **changes)


def card(address: str, **changes: object) -> Callable[[Planted], object]:
    return lambda n: n.rows("pci", "devices", {"address": address}, **changes)


def counted(**changes: int) -> dict[str, int]:
    return {"rx_packets": 10**9, "tx_packets": 10**9, **changes}


def virtual(n: Planted) -> Planted:
    return n.call("container", vm="kvm")


def limit(**changes: list[int]) -> Callable[[Planted], Planted]:
    def plant(n: Planted) -> Planted:
        told = msgspec.json.decode((n.root / "calls/limits.json").read_bytes())["limits"]
        return n.call("limits", limits=told | changes)

    return plant


GPU, NIC, NVME = "0000:19:00.0", "0000:1a:00.0", "0000:e1:00.0"

CASES = [
    # CPUs
    Case("cpu.sockets", lambda n: n.call("cpus", online=[[c, c // 3, 0, c] for c in range(5)]), FAIL, "socket 1: 2"),
    Case(
        "cpu.sockets", lambda n: virtual(n).call("cpus", online=[[0, 0, 0, 0], [1, 0, 0, 1], [2, 1, 0, 0]]), WARN, "VM"
    ),
    Case("cpu.sockets", lambda n: n.call("cpus", offline=[3]), SKIP, "cpu.online"),
    Case("cpu.sockets", lambda n: n.call("cpus", online=[[0, -1, 0, 0]]), UNKNOWN, "missing_source"),
    Case("cpu.online", lambda n: n.call("cpus", offline=[7, 71]), FAIL, "offline: 7, 71"),
    Case("cpu.online", lambda n: n.call("cpus", offline=[64], smt="off"), PASS, "SMT is switched off"),
    Case("cpu.online", lambda n: n.refuse(Call("cpus"), "timeout", "no answer in 3 s"), UNKNOWN, "timeout"),
    Case(
        "cpu.threads", lambda n: n.call("cpus", online=[[0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 1]]), WARN, "1/2 per core"
    ),
    Case("cpu.threads", lambda n: n.call("cpus", hybrid=True), SKIP, "two kinds"),
    Case(
        "cpu.governor", lambda n: n.call("cpus", governors={"performance": 127, "powersave": 1}), WARN, "powersave × 1"
    ),
    Case("cpu.governor", lambda n: n.call("cpus", governors={}), SKIP, "absent"),
    Case("cpu.throttled", lambda n: n.call("cpus", throttled={"0": 0, "1": 900_000}), WARN, "900.0 s"),
    Case("cpu.throttled", lambda n: n.call("cpus", throttled={}), SKIP, "absent"),
    Case("cpu.load", lambda n: n.write("proc/loadavg", "70.0 64.5 20.1 70/2718 4\n"), WARN, "64.5 / 128"),
    Case("cpu.load", lambda n: n.write("proc/loadavg", "garbage\n"), UNKNOWN, "parse"),
    Case(
        "cpu.machine_check", lambda n: n.log("mce: [Hardware Error]: Machine check events logged"), WARN, "1 in 24.0 h"
    ),
    Case(
        "cpu.machine_check",
        lambda n: n.log("mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 7: be00000000800400"),
        FAIL,
        "Bank 7",
    ),
    Case("cpu.machine_check", lambda n: n.log("{3}[Hardware Error]: event severity: corrected"), WARN, "corrected"),
    Case("cpu.machine_check", lambda n: n.log("{1}[Hardware Error]: event severity: fatal"), FAIL, "fatal"),
    # memory
    Case("memory.installed", lambda n: n.meminfo("MemTotal", 989_659_136), FAIL, "1024.0 GiB"),
    Case("memory.installed", lambda n: virtual(n).meminfo("MemTotal", 900_000_000), WARN, "ballooned"),
    Case("memory.installed", lambda n: n.remove("calls/dimms.json"), SKIP, "absent"),
    Case("memory.installed", lambda n: n.refuse(Call("dimms")), UNKNOWN, "permission"),
    Case(
        "memory.swap", lambda n: n.meminfo("SwapTotal", 8 << 20).meminfo("SwapFree", 4 << 20), WARN, "4.0 GiB / 8.0 GiB"
    ),
    Case("memory.swap", lambda n: n.meminfo("SwapTotal", 8 << 20).meminfo("SwapFree", 8 << 20), PASS, "0.0 GiB / 8.0"),
    Case("memory.swap", lambda n: n.replace("proc/meminfo", "SwapTotal:             0 kB\n", ""), UNKNOWN, "parse"),
    Case("memory.available", lambda n: n.meminfo("MemAvailable", 400_000_000), WARN, "37.9 %"),
    Case(
        "memory.huge_pages",
        lambda n: n.replace("proc/meminfo", "HugePages_Total:       0", "HugePages_Total:  200000").replace(
            "proc/meminfo", "HugePages_Free:        0", "HugePages_Free:   200000"
        ),
        WARN,
        "200000 × 2 MiB, 200000 free",
    ),
    Case(
        "memory.thp_defrag",
        lambda n: n.write("sys/kernel/mm/transparent_hugepage/defrag", "[always] defer madvise never\n"),
        WARN,
        "defrag always",
    ),
    Case("memory.thp_defrag", lambda n: n.remove("sys/kernel/mm/transparent_hugepage"), SKIP, "absent"),
    Case("memory.numa_balancing", lambda n: n.write("proc/sys/kernel/numa_balancing", "1\n"), WARN, "1"),
    Case("memory.numa_balancing", lambda n: n.call("cpus", numa_nodes=1), SKIP, "one NUMA node"),
    Case("memory.numa_balancing", lambda n: n.write("proc/sys/kernel/numa_balancing", "on\n"), UNKNOWN, "parse"),
    Case("memory.zone_reclaim", lambda n: n.write("proc/sys/vm/zone_reclaim_mode", "1\n"), WARN, "1"),
    Case("memory.zone_reclaim", lambda n: n.remove("proc/sys/vm/zone_reclaim_mode"), SKIP, "absent"),
    Case("memory.overcommit", lambda n: n.write("proc/sys/vm/overcommit_memory", "2\n"), WARN, "2"),
    Case("memory.overcommit", lambda n: n.remove("proc/sys/vm/overcommit_memory"), UNKNOWN, "missing_source"),
    Case("memory.corrupted", lambda n: n.meminfo("HardwareCorrupted", 12), FAIL, "12 KiB"),
    Case("memory.corrupted", lambda n: n.replace("proc/meminfo", "HardwareCorrupted:     0 kB\n", ""), SKIP, "absent"),
    Case("memory.ecc", lambda n: n.write("sys/devices/system/edac/mc/mc3/ue_count", "1\n"), FAIL, "UE 1, CE 0"),
    Case("memory.ecc", lambda n: n.write("sys/devices/system/edac/mc/mc3/ce_count", "41\n"), WARN, "UE 0, CE 41"),
    Case("memory.ecc", lambda n: n.remove("sys/devices/system/edac"), SKIP, "absent"),
    Case("memory.ecc", lambda n: n.write("sys/devices/system/edac/mc/mc3/ue_count", "??\n"), UNKNOWN, "parse"),
    Case("memory.blocks", lambda n: n.call("memory_blocks", offline=["memory41"]), WARN, "memory41"),
    Case("memory.blocks", lambda n: n.remove("calls/memory_blocks.json"), SKIP, "absent"),
    Case(
        "memory.fragmentation",
        lambda n: n.write("proc/buddyinfo", "Node 0, zone Normal 900000 500000 20000 0 0 0 0 0 0 1 0\n"),
        WARN,
        "0.0 % of",
    ),
    Case("memory.fragmentation", lambda n: n.write("proc/buddyinfo", "Node 0, zone Normal x\n"), UNKNOWN, "parse"),
    Case(
        "memory.errors",
        lambda n: n.log("EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0"),
        FAIL,
        "DIMM#0",
    ),
    Case(
        "memory.errors",
        lambda n: n.log("EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0"),
        WARN,
        "DIMM#0",
    ),
    Case(
        "memory.errors",
        lambda n: n.log("Memory failure: 0x1a2b3: recovery action for dirty page: Recovered"),
        FAIL,
        "0x1a2b3",
    ),
    # kernel
    Case("kernel.taint", lambda n: n.write("proc/sys/kernel/tainted", f"{1 << 7}\n"), FAIL, "(D)"),
    Case("kernel.taint", lambda n: n.write("proc/sys/kernel/tainted", f"{1 << 9 | 1 << 12}\n"), WARN, "kernel warning"),
    Case("kernel.taint", lambda n: n.write("proc/sys/kernel/tainted", "\n"), UNKNOWN, "parse"),
    Case(
        "kernel.cmdline",
        lambda n: n.replace("proc/cmdline", "iommu=pt", "iommu=pt mem=64G pci=nomsi"),
        WARN,
        "mem=64G pci=nomsi",
    ),
    Case("kernel.iommu", lambda n: n.call("pci", iommu_groups={"DMA-FQ": 141}), WARN, "DMA-FQ × 141"),
    Case("kernel.iommu", lambda n: virtual(n).call("pci", iommu_groups={"DMA": 1}), SKIP, "VM"),
    Case("kernel.iommu", lambda n: n.call("pci", devices=[]).call("network", rdma=[]), SKIP, "no accelerator"),
    Case("kernel.oom", lambda n: n.log("Out of memory: Killed process 4242 (python) total-vm:9kB"), WARN, "4242"),
    Case("kernel.oom", lambda n: n.log("Out of memory: Killed process 4242 (python)", age=90_000), PASS, "0 in 24.0 h"),
    Case("kernel.oom", lambda n: n.refuse(Call("kernel_log")), UNKNOWN, "permission"),
    Case(
        "kernel.hung_task",
        lambda n: n.log("INFO: task kworker/3:1:812 blocked for more than 120 seconds."),
        FAIL,
        "kworker",
    ),
    Case(
        "kernel.lockup",
        lambda n: n.log("watchdog: BUG: soft lockup - CPU#12 stuck for 26s! [python:99]", level=0),
        FAIL,
        "CPU#12",
    ),
    Case("kernel.lockup", lambda n: n.log("rcu: INFO: rcu_sched self-detected stall on CPU"), WARN, "rcu_sched"),
    Case("kernel.oops", lambda n: n.log("BUG: unable to handle page fault for address: ffffdead"), FAIL, "ffffdead"),
    Case("kernel.oops", lambda n: n.log("traps: a.out[9] general protection fault ip:4 sp:7 error:0"), PASS, "0 in"),
    Case(
        "kernel.crashed",
        lambda n: n.call("pstore", records=[{"name": "dmesg-erst-1", "modified": 1767139200.0}]),
        FAIL,
        "1, newest",
    ),
    Case(
        "kernel.crashed",
        lambda n: n.call("pstore", records=[{"name": "dmesg-erst-1", "modified": 1.0}]),
        WARN,
        "1970-01-01",
    ),
    Case("kernel.crashed", lambda n: n.call("pstore", mounted=False), SKIP, "absent"),
    Case("kernel.crashed", lambda n: n.refuse(Call("pstore")), UNKNOWN, "permission"),
    Case(
        "clock.source",
        lambda n: n.write("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"),
        WARN,
        "hpet",
    ),
    Case("clock.sync", lambda n: n.call("clock", status=0x40), WARN, "unsynchronised"),
    Case("clock.sync", lambda n: n.call("clock", offset=-0.2), FAIL, "-200.000 ms"),
    Case("clock.sync", lambda n: n.write("calls/clock.json", '{"state": 0'), UNKNOWN, "parse"),
    Case("host.uptime", lambda n: n.write("proc/uptime", "95.10 80.00\n"), WARN, "0.03 h"),
    # limits
    Case("limits.open_files", limit(nofile=[1024, 524288]), WARN, "1024 (hard 524288)"),
    Case(
        "limits.locked_memory",
        lambda n: limit(memlock=[65536, 65536])(n).call("limits", ipc_lock=False),
        WARN,
        "65536",
    ),
    Case("limits.locked_memory", lambda n: n.call("limits", limits={"memlock": [65536, 65536]}), PASS, "CAP_IPC_LOCK"),
    Case("limits.locked_memory", lambda n: n.call("network", rdma=[]), SKIP, "absent"),
    Case("limits.processes", limit(nproc=[1000, 1000]), WARN, "1000"),
    Case("limits.processes", lambda n: n.call("limits", limits={}), UNKNOWN, "parse"),
    Case("limits.file_handles", lambda n: n.write("proc/sys/fs/file-nr", "980\t0\t1000\n"), FAIL, "98.0 %"),
    Case("limits.file_handles", lambda n: n.write("proc/sys/fs/file-nr", "850\t0\t1000\n"), WARN, "85.0 %"),
    Case("limits.file_handles", lambda n: n.write("proc/sys/fs/file-nr", "850\n"), UNKNOWN, "parse"),
    Case("limits.pids", lambda n: n.write("proc/sys/kernel/pid_max", "2800\n"), FAIL, "2718 / 2800"),
    Case("limits.container", lambda n: n.call("container", kind="docker", cpu_limit=8.0), WARN, "8 / 128 CPU"),
    # network
    Case("network.link", nic("ens1f1np1", carrier=False, operstate="down"), FAIL, "9 / 10; ens1f1np1"),
    Case("network.link", nic("ibp26s0", carrier=False, operstate="down"), WARN, "ibp26s0"),
    Case("network.link", lambda n: n.call("network", interfaces=[]), SKIP, "absent"),
    Case("network.speed", nic("ibp26s0", speed=200_000_000_000), WARN, "look at ibp26s0"),
    Case("network.speed", nic("ens1f0np0", speed=100_000_000, model="8086:1"), WARN, "look at ens1f0np0"),
    Case("network.duplex", nic("ens1f0np0", duplex="half"), FAIL, "ens1f0np0"),
    Case("network.mtu", nic("ens1f1np1", mtu=1500), WARN, "ens1f1np1 1500"),
    Case("network.errors", nic("ibp26s0", counters=counted(rx_errors=5_000_000)), FAIL, "ibp26s0: 5000000 errors"),
    Case("network.errors", nic("ibp26s0", counters=counted(rx_errors=10_000)), WARN, "10000 errors"),
    Case("network.errors", nic("ibp26s0", counters=counted(rx_dropped=100_000_000)), WARN, "100000000 drops"),
    Case("network.errors", nic("ibp26s0", counters={"rx_packets": 100, "rx_errors": 9}), PASS, "10 NIC"),
    Case("network.flaps", nic("ens1f0np0", carrier_changes=400), WARN, "ens1f0np0 21.7/d"),
    Case(
        "network.watchdog",
        lambda n: n.log("NETDEV WATCHDOG: ens1f0np0 (mlx5_core): transmit queue 3 timed out"),
        FAIL,
        "queue 3",
    ),
    Case(
        "network.own_name",
        lambda n: n.call("resolver", addresses=[], error="Name or service not known"),
        FAIL,
        "not known",
    ),
    Case("network.own_name", lambda n: n.call("resolver", addresses=["127.0.1.1"]), WARN, "only loopback"),
    Case("network.own_name", lambda n: n.call("resolver", addresses=["10.9.9.9"]), FAIL, "10.9.9.9"),
    Case("network.own_name", lambda n: n.call("resolver", addresses=["10.20.1.1", "10.9.9.9"]), WARN, "10.9.9.9"),
    Case("network.own_name", lambda n: n.refuse(Call("resolver"), "timeout", "no answer in 3 s"), UNKNOWN, "timeout"),
    Case("network.nameservers", lambda n: n.write("etc/resolv.conf", "search x\n"), WARN, "-"),
    Case("network.nameservers", lambda n: n.write("etc/resolv.conf", "nameserver ns1\n"), WARN, "ns1"),
    Case("network.nameservers", lambda n: n.remove("etc/resolv.conf"), SKIP, "absent"),
    # PCI
    Case("pci.links", card(GPU, width=8), FAIL, f"{GPU} x8/x16"),
    Case("pci.links", card(NIC, speed=16e9), WARN, f"{NIC} 16/32 GT/s"),
    Case("pci.links", card(GPU, speed=2.5e9), PASS, "21 / 21"),
    Case("pci.links", virtual, SKIP, "VM"),
    Case("pci.errors", card(GPU, aer_nonfatal=2), FAIL, f"{GPU} 2 non-fatal"),
    Case("pci.errors", card(NVME, aer_correctable=5000), WARN, f"{NVME} 5000 corrected"),
    Case("pci.numa", card(NIC, numa_node=-1), WARN, NIC),
    Case("pci.numa", lambda n: n.call("cpus", numa_nodes=1), SKIP, "one NUMA node"),
    Case("pci.acs", card("0000:18:00.0", acs=0x1D), WARN, "0000:18:00.0"),
    Case("pci.acs", lambda n: n.call("pci", config_readable=False), UNKNOWN, "permission"),
    Case("pci.acs", virtual, SKIP, "VM"),
    Case(
        "pci.bandwidth",
        lambda n: n.log(
            "mlx5_core 0000:1a:00.0: 63.008 Gb/s available PCIe bandwidth, limited by 16.0 GT/s PCIe x4 link",
            age=700_000,
        ),
        WARN,
        NIC,
    ),
    # processes and services
    Case(
        "process.stuck",
        lambda n: n.call("processes", stuck=[{"pid": 812, "name": "nvidia-smi", "wchan": "nv_wait"}]),
        WARN,
        "nvidia-smi (812, nv_wait)",
    ),
    Case("process.stuck", lambda n: n.call("processes", hidden=True), UNKNOWN, "permission"),
    Case("process.zombies", lambda n: n.call("processes", states={"Z": 40}, zombies=["sh"] * 40), WARN, "40 / 1612"),
    Case(
        "services.failed",
        lambda n: n.command(FAILED_UNITS, "nvidia-fabricmanager.service loaded failed failed FM\n"),
        WARN,
        "nvidia-fabricmanager.service",
    ),
    Case("services.failed", lambda n: n.call("container", systemd=False), SKIP, "absent"),
    Case("services.failed", lambda n: n.refuse(FAILED_UNITS, "missing", "No such file"), UNKNOWN, "missing_tool"),
    Case(
        "services.failed",
        lambda n: n.command(FAILED_UNITS, "", 1, "Failed to connect to bus"),
        UNKNOWN,
        "connect to bus",
    ),
    Case("services.irqbalance", lambda n: n.command(IRQBALANCE, "active\n"), WARN, "active"),
    Case("services.irqbalance", lambda n: n.call("network", rdma=[]), SKIP, "absent"),
    # storage
    Case("storage.space", filesystem("/", free=2 * 10**9, available=10**9), FAIL, "/ 99.9 %"),
    Case("storage.space", filesystem("/data", free=10**12, available=10**12), WARN, "/data 87.0 %"),
    Case("storage.space", filesystem("/home", free=10**9, available=10**9), WARN, "/home 100.0 %"),
    Case("storage.inodes", filesystem("/", inodes_free=10), FAIL, "/ 100.0 %"),
    Case("storage.read_only", filesystem("/data", super_read_only=True), FAIL, "/data (xfs)"),
    Case(
        "storage.read_only",
        lambda n: n.rows("filesystems", "filesystems", {"mount": "/data"}, mount="/other", super_read_only=True),
        WARN,
        "/other",
    ),
    Case("storage.mounts", lambda n: n.replace("proc/self/mounts", " /home nfs4", " /elsewhere nfs4"), FAIL, "/home"),
    Case("storage.mounts", lambda n: n.replace("proc/self/mounts", " /data xfs", " /elsewhere xfs"), WARN, "/data"),
    Case("storage.mounts", lambda n: n.call("container", kind="docker"), SKIP, "absent"),
    Case("storage.mounts", lambda n: n.refuse(File("etc/fstab")), UNKNOWN, "permission"),
    Case(
        "storage.answers",
        filesystem("/home", status="timeout", detail="no answer in 1.5 s"),
        FAIL,
        "/home (nfs4): timeout",
    ),
    Case("storage.answers", filesystem("/home", status="denied", detail="Permission denied"), PASS, "4 / 4"),
    Case(
        "storage.shm",
        lambda n: n.rows("filesystems", "filesystems", {"mount": "/"}).call("filesystems", shm=None),
        FAIL,
        "no /dev/shm",
    ),
    Case(
        "storage.shm",
        lambda n: n.call(
            "filesystems",
            shm={"mount": "/dev/shm", "device": "shm", "type": "tmpfs", "read_only": False, "super_read_only": False}
            | {"size": 64 << 20, "available": 64 << 20},
        ),
        WARN,
        "64 / 64 MiB",
    ),
    Case("storage.raid", lambda n: n.replace("proc/mdstat", "[2/2] [UU]", "[2/1] [U_]"), FAIL, "md0 [2/1] [U_]"),
    Case(
        "storage.raid",
        lambda n: n.replace(
            "proc/mdstat", "[2/2] [UU]", "[2/1] [U_]\n      [==>..]  recovery = 12.6% (1/9) finish=1min"
        ),
        WARN,
        "md0",
    ),
    Case("storage.raid", lambda n: n.remove("proc/mdstat"), SKIP, "absent"),
    Case(
        "storage.io_errors",
        lambda n: n.log("blk_update_request: I/O error, dev nvme1n1, sector 99 op 0x0:(READ)"),
        FAIL,
        "nvme1n1",
    ),
    Case("storage.io_errors", lambda n: n.log("I/O error, dev fd0, sector 0 op 0x0:(READ)"), PASS, "0 in"),
    Case("storage.io_errors", lambda n: n.log("EXT4-fs error (device md0): ext4_lookup:1855: inode #2"), FAIL, "md0"),
    Case(
        "storage.shared_errors",
        lambda n: n.log("nfs: server 10.20.0.5 not responding, still trying"),
        WARN,
        "10.20.0.5",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.check}-{c.status.value}-{c.says[:20]}")
def test_a_planted_fault_is_found(case: Case, planted: Planted) -> None:
    case.plant(planted)
    verdict = judged(planted.facts(), case.check)
    assert verdict.status is case.status, verdict
    said = [verdict.observed, verdict.reason_code, verdict.detail.en if verdict.detail else ""]
    assert any(case.says in text for text in said), said
    if verdict.status in (FAIL, WARN):
        assert verdict.evidence
        assert verdict.action is CHECKS[case.check].info.action
    if verdict.status in (UNKNOWN, SKIP):
        assert verdict.reason_code
        assert verdict.detail is not None


def test_every_item_has_a_planted_fault() -> None:
    """Here, or in the file of its family beside this one: CASES of test_check_*.py."""
    families = [importlib.import_module(path.stem) for path in Path(__file__).parent.glob("test_check_*.py")]
    cases = [case for family in families for case in getattr(family, "CASES", [])]
    found = {c.check for c in cases if c.status in (FAIL, WARN)}
    assert set(NODE_CHECKS) - found == set()


@pytest.mark.parametrize("check", NODE_CHECKS)
def test_facts_that_were_not_taken_are_not_a_pass(check: str) -> None:
    nothing = Facts("node1", 0.0, True, True, {})
    verdict = judged(nothing, check)
    assert verdict.status is UNKNOWN
    assert verdict.reason_code == "missing_source"


@pytest.mark.parametrize("status", ["denied", "timeout", "error"])
@pytest.mark.parametrize("check", NODE_CHECKS)
def test_a_refused_reading_is_never_a_pass(check: str, status: str, good_facts: Facts) -> None:
    """Whatever was refused: an item that passes must have been able to read all that it reads."""
    readings = {k: msgspec.structs.replace(r, status=status, text="") for k, r in good_facts.readings.items()}
    verdict = judged(msgspec.structs.replace(good_facts, readings=readings), check)
    assert verdict.status is UNKNOWN
    assert verdict.reason_code == {"denied": "permission"}.get(status, status)


def test_evidence_is_the_text_that_was_read(planted: Planted) -> None:
    planted.write("sys/devices/system/edac/mc/mc3/ue_count", "17\n")
    evidence = {e.source: e.text for e in judged(planted.facts(), "memory.ecc").evidence}
    assert "sys/devices/system/edac/mc/mc3/ue_count: 17" in evidence[EDAC_UE.path]


def test_evidence_is_long_only_where_somebody_has_to_act(planted: Planted) -> None:
    long = " ".join(f"option{i}=1" for i in range(400))
    for words, status, length in ((long, PASS, 600), (f"mem=1G {long}", WARN, 4096)):
        (evidence,) = judged(planted.write("proc/cmdline", words).facts(), "kernel.cmdline").evidence
        assert judged(planted.facts(), "kernel.cmdline").status is status
        assert (len(evidence.text), evidence.truncated) == (length, True)


def test_in_a_container_the_containers_own_answers_say_so(planted: Planted) -> None:
    planted.call("container", kind="docker")
    facts = planted.facts()
    own = judged(facts, "limits.open_files").detail
    assert own is not None
    assert "container" in own.en
    assert "容器" in own.zh
    assert judged(facts, "memory.corrupted").detail is None
