"""All planted faults of the items, over all recorded nodes: each is found by exactly the items that should find it.

The faults are the CASES of the families that end in FAIL or WARN, and those below, of nodes that are no family's home.
What a fault changes besides the item it is meant for is listed here. Nothing else may change, but that an item with
nothing left to judge says so and names an item that found the fault.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from cwai_bench.baseline import from_facts
from cwai_bench.checks import CHECKS, ConsistencyCheck, long_items
from cwai_bench.checks.nvidia_driver import INSTALLED
from cwai_bench.checks.roce import QOS
from cwai_bench.judge import check_facts
from cwai_bench.model import Status, Verdict
from tests.unit.conftest import HOMES, Planted

FAIL, WARN, UNKNOWN, SKIP = Status.FAIL, Status.WARN, Status.UNKNOWN, Status.SKIP
Plant = Callable[[Planted], object]
FAMILIES = {
    "test_check_node_items": "good",
    "test_check_host_items": "good",
    "test_check_nvidia": "good",
    "test_check_rdma": "good",
    "test_check_nccl": "good",
    "test_check_ascend_items": "ascend_910b",
}
"""Files of tests with CASES, and the node of those that name none."""


ITEMS = [id for id in CHECKS if id not in long_items()]
"""All but those that disturb a node and have to be asked for by name."""
ASKS_NVML_ALONE = "nvidia.nvlink_growth"


class Fault(NamedTuple):
    """A fault planted in a copy of ``node``: ``check`` then is ``status``, and what it observed holds ``says``."""

    node: str
    check: str
    plant: Plant
    status: Status
    says: str

    def __str__(self) -> str:
        return f"{self.node}: {self.check} {self.says}"


class Borrowed(Planted):
    """A recorded node that is mended again after each fault, instead of a new copy for each."""

    def __init__(self, root: Path, node: str) -> None:
        super().__init__(root, node)
        self._was: dict[Path, bytes | None] = {}

    def _keep(self, path: Path) -> None:
        self._was.setdefault(path, path.read_bytes() if path.exists() else None)

    def write(self, path: str, text: str) -> Planted:
        self._keep(self.root / path)
        return super().write(path, text)

    def remove(self, path: str) -> Planted:
        found = self.root / path
        for file in [found] if found.is_file() else [f for f in found.rglob("*") if f.is_file()]:
            self._keep(file)
        return super().remove(path)

    def mend(self) -> None:
        for path, was in self._was.items():
            if was is None:
                path.unlink(missing_ok=True)
                for folder in path.parents:
                    if folder == self.root or any(folder.iterdir()):
                        break
                    folder.rmdir()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(was)
        self._was.clear()


def card(address: str, **changes: object) -> Plant:
    return lambda n: n.rows("nvml", "cards", {"address": address}, **changes)


def row(call: str, field: str, where: dict[str, object], **changes: object) -> Plant:
    return lambda n: n.rows(call, field, where, **changes)


def pci(address: str, **changes: object) -> Plant:
    return row("pci", "devices", {"address": address}, **changes)


def nic(name: str, **changes: object) -> Plant:
    return row("network", "interfaces", {"name": name}, **changes)


def filesystem(mount: str, **changes: object) -> Plant:
    return row("filesystems", "filesystems", {"mount": mount}, **changes)


def log(*lines: str) -> Plant:
    return lambda n: n.log(*lines)


def port(name: str, **changes: object) -> Plant:
    def plant(n: Planted) -> Planted:
        told = msgspec.json.decode((n.root / "calls/rdma.json").read_bytes())
        next(d for d in told["devices"] if d["name"] == name)["ports"][0].update(changes)
        return n.write("calls/rdma.json", msgspec.json.encode(told).decode())

    return plant


def without_card(address: str) -> Plant:
    def plant(n: Planted) -> Planted:
        told = msgspec.json.decode((n.root / "calls/nvml.json").read_bytes())
        return n.call("nvml", cards=[c for c in told["cards"] if c["address"] != address])

    return plant


def pfc_off(n: Planted) -> Planted:
    from cwai_bench.discover.recorded import slug

    path = f"commands/{slug(QOS.command('ens6np0'))}/stdout"
    return n.replace(path, "enabled     0   0   0   1", "enabled     0   0   0   0")


NO_COUNTS = dict.fromkeys(("sram_corrected", "sram_uncorrected", "dram_corrected", "dram_uncorrected"))
UNCORRECTED = {"sram_corrected": 0, "sram_uncorrected": 0, "dram_corrected": 0, "dram_uncorrected": 2}
L40S, L40S_LAST, A10 = "0000:39:00.0", "0000:c1:00.0", "0000:05:00.0"
MISMATCH = "Driver/library version mismatch"

FAULTS = [
    # four PCIe cards without NVLink
    Fault("l40s", "nvidia.count", without_card(L40S_LAST), FAIL, f"3 / 4; {L40S_LAST}"),
    Fault("l40s", "pci.links", pci(L40S, width=8), FAIL, f"{L40S} x8/x16"),
    Fault("l40s", "pci.errors", pci(L40S, aer_nonfatal=3), FAIL, f"{L40S} 3 non-fatal"),
    Fault(
        "l40s",
        "nvidia.ecc_mode",
        card(L40S, ecc=False, ecc_pending=False, ecc_volatile=NO_COUNTS, ecc_aggregate=NO_COUNTS),
        FAIL,
        f"{L40S} off",
    ),
    Fault("l40s", "nvidia.ecc_uncorrected", card(L40S, ecc_volatile=UNCORRECTED), FAIL, f"{L40S} SRAM 0, DRAM 2"),
    Fault("l40s", "nvidia.throttle", card(L40S, slowed_by=["hw_slowdown", "hw_thermal_slowdown"]), FAIL, L40S),
    Fault("l40s", "nvidia.heat", card(L40S, temperature=91.0, margin=-1.0), FAIL, L40S),
    Fault("l40s", "nvidia.power", card(L40S, power_limit=300.0), WARN, f"{L40S} 300/350 W"),
    Fault("l40s", "nvidia.repair", card(L40S, remap_failed=True), FAIL, L40S),
    Fault("l40s", "nvidia.recovery", card(L40S, recovery="Reset"), FAIL, f"{L40S} Reset"),
    Fault("l40s", "nvidia.persistence", card(L40S, persistence=False), WARN, L40S),
    Fault("l40s", "nvidia.lost", log("NVRM: Xid (PCI:0000:39:00): 79, GPU has fallen off the bus."), FAIL, "39:00"),
    Fault("l40s", "nvidia.vbios", card(L40S, vbios="95.02.5f.00.01"), WARN, "95.02.5f"),
    Fault("l40s", "rdma.link", port("mlx5_1", state="DOWN", phys_state="Polling"), FAIL, "mlx5_1 Polling"),
    Fault("l40s", "rdma.rate", port("mlx5_1", rate="100 Gb/sec (4X EDR)"), FAIL, "mlx5_1 100 Gb/sec"),
    Fault("l40s", "roce.pfc", pfc_off, FAIL, "mlx5_1"),
    Fault("l40s", "pci.acs", pci("0000:38:01.0", acs=0x1D), WARN, "0000:38:01.0"),
    # a virtual machine with one card
    Fault(
        "a10_vm",
        "nvidia.driver",
        lambda n: n.call("nvml", driver="", cuda="", cards=[], error=MISMATCH, code=18),
        FAIL,
        "mismatch",
    ),
    Fault("a10_vm", "nvidia.upgrade", lambda n: n.command(INSTALLED, "550.127.08\n"), FAIL, "535.183.01 / 550.127.08"),
    Fault(
        "a10_vm",
        "nvidia.xid",
        log("NVRM: Xid (PCI:0000:05:00): 48, pid=4242, name=python, An uncorrectable double bit error (DBE)"),
        FAIL,
        "0000:05:00 48",
    ),
    Fault("a10_vm", "nvidia.power", card(A10, power_limit=100.0), WARN, f"{A10} 100/150 W"),
    Fault(
        "a10_vm",
        "nvidia.ecc_mode",
        card(A10, ecc=False, ecc_pending=False, ecc_volatile=NO_COUNTS, ecc_aggregate=NO_COUNTS),
        FAIL,
        f"{A10} off",
    ),
    Fault("a10_vm", "kernel.nouveau", lambda n: n.write("sys/module/nouveau/initstate", "live\n"), FAIL, "nouveau"),
    Fault("a10_vm", "memory.installed", lambda n: n.meminfo("MemTotal", 90_000_000), WARN, "ballooned"),
    Fault(
        "a10_vm",
        "cpu.sockets",
        lambda n: n.call("cpus", online=[[0, 0, 0, 0], [1, 0, 0, 1], [2, 1, 0, 0]], possible=3, present=3),
        WARN,
        "VM",
    ),
    Fault("a10_vm", "storage.space", filesystem("/", free=9_000_000_000, available=5_000_000_000), FAIL, "/ 9"),
    Fault("a10_vm", "network.link", nic("enp1s0", carrier=False, operstate="down"), FAIL, "enp1s0"),
    Fault("a10_vm", "clock.sync", lambda n: n.call("clock", status=0x40), WARN, "unsynchronised"),
    Fault("a10_vm", "container.gpu_runtime", lambda n: n.write("etc/docker/daemon.json", "{}\n"), WARN, "docker"),
    # a host without cards
    Fault("plain", "storage.space", filesystem("/", free=9_000_000_000, available=9_000_000_000), FAIL, "/ 99"),
    Fault("plain", "storage.inodes", filesystem("/", inodes_free=100), FAIL, "/"),
    Fault("plain", "storage.read_only", filesystem("/", read_only=True, super_read_only=True), FAIL, "/"),
    Fault(
        "plain",
        "memory.swap",
        lambda n: n.meminfo("SwapTotal", 8 << 20).meminfo("SwapFree", 1 << 20),
        WARN,
        "7.0 GiB / 8.0 GiB",
    ),
    Fault("plain", "memory.installed", lambda n: n.meminfo("MemTotal", 230_000_000), FAIL, "256.0 GiB"),
    Fault("plain", "memory.ecc", lambda n: n.write("sys/devices/system/edac/mc/mc0/ue_count", "1\n"), FAIL, "UE 1"),
    Fault("plain", "network.link", nic("eno1np0", carrier=False, operstate="down"), FAIL, "eno1np0"),
    Fault("plain", "network.speed", nic("eno1np0", speed=100_000_000), WARN, "eno1np0"),
    Fault("plain", "cpu.governor", lambda n: n.call("cpus", governors={"powersave": 64}), WARN, "powersave × 64"),
    Fault("plain", "storage.nvme", lambda n: n.write("sys/class/nvme/nvme0/state", "dead\n"), FAIL, "nvme0 dead"),
    Fault(
        "plain",
        "kernel.oops",
        log("BUG: kernel NULL pointer dereference, address: 0000000000000008"),
        FAIL,
        "0000000000000008",
    ),
]

ALSO: dict[tuple[str, str], dict[str, Status]] = {
    ("services.enabled", "docker failed"): {"container.gpu_runtime": WARN},
    ("nvidia.fabric_services", "not installed"): {"nvidia.fabric": FAIL},
    ("rdma.devices", "0000:4a:00.0 (mlx5_core)"): {"rdma.affinity": WARN},
    ("roce.mtu", "mlx5_3"): {"network.mtu": WARN},
    ("roce.mtu", "4200 × 1"): {"network.mtu": WARN},
    ("roce.traffic_class", "mlx5_3"): {"roce.dscp": FAIL},
    ("roce.traffic_class", "10 × 1"): {"roce.dscp": FAIL},
    ("roce.dscp", "DSCP 2 → 0"): {"roce.traffic_class": FAIL},
    ("ascend.firmware", "firmware 7.6.0.1.129"): {"ascend.running": FAIL},
    ("ascend.roce.ip", "29.1.112.21 not unique"): {"ascend.roce.gateway": FAIL},
}
"""Faults that truly are two: what else is to find them."""

_IN_A_CONTAINER = {"same.hosts": SKIP, "storage.mounts": SKIP, "host.reboots": SKIP}
_IN_A_VM = dict.fromkeys(
    (
        "kernel.iommu",
        "pci.links",
        "pci.acs",
        "pci.bandwidth",
        "pci.packets",
        "same.pci_packets",
        "same.pci_tree",
        "storage.smart",
    ),
    SKIP,
)
OTHERWISE: dict[tuple[str, str], dict[str, Status]] = {
    ("cpu.sockets", "VM"): {**_IN_A_VM, "rdma.affinity": SKIP},
    ("memory.installed", "ballooned"): {**_IN_A_VM, "rdma.affinity": SKIP},
    ("limits.container", "8 / 128 CPU"): _IN_A_CONTAINER,
    ("nvidia.count", "7 / 8"): _IN_A_CONTAINER,
    ("rdma.link", "mlx5_1 Polling"): dict.fromkeys(("roce.rp_filter", "roce.arp_ignore", "roce.arp_announce"), SKIP),
    # cards of another kind were planted
    ("nvidia.fabric_services", "nvidia-fabricmanager not installed"): {
        "nvidia.fabric": SKIP,
        "same.nvidia.fabric": SKIP,
    },
    ("rdma.link", "mlx5_8 Polling"): {"rdma.corruption": SKIP, "rdma.congestion": SKIP},
    # the tool had no answer of that card
    ("nvidia.nvlink", "0000:a9:00.0 0"): {"nvidia.nvlink_errors": UNKNOWN},
    ("ascend.count", "/dev/davinci5"): {"ascend.health": UNKNOWN, "ascend.codes": UNKNOWN},
}
"""What else changes, and blames nothing: because the plant made another kind of node, or took away what is judged."""


DIFFER_TOO = {
    "same.devices": ("same.affinity", "same.pci_packets", "same.pci_tree"),
    "same.roce.sysctl": ("same.sysctl",),
}
"""Differences that truly are more than one."""


def differences() -> dict[str, Plant]:
    """For each consistency item a change of its home that makes that node another than the baseline."""
    found: dict[str, Plant] = {}
    for file in (*FAMILIES, "test_consistency_items"):
        module = importlib.import_module(f"tests.unit.{file}")
        found |= getattr(module, "CHANGES", {}) | getattr(module, "AMD_CHANGES", {})
    return found


def faults() -> Iterator[Fault]:
    """Every planted fault, node by node."""
    for file, home in FAMILIES.items():
        for case in importlib.import_module(f"tests.unit.{file}").CASES:
            if case.status in (FAIL, WARN):
                node = "mi300x" if CHECKS[case.check].info.scope == "amd" else getattr(case, "node", home)
                yield Fault(node, case.check, case.plant, case.status, case.says)
    yield from FAULTS


class Matrix:
    """The recorded nodes, copied below ``root`` once, and what all items say of each while it is well."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._nodes: dict[str, Borrowed] = {}
        self._well: dict[str, dict[str, Verdict]] = {}

    def well(self, name: str) -> dict[str, Verdict]:
        if name not in self._nodes:
            self._nodes[name] = Borrowed(self._root / name, name)
            self._well[name] = _judged(self._nodes[name])
        return self._well[name]

    def judged(self, name: str) -> dict[str, Verdict]:
        """What all items say of a node as it is now."""
        return _judged(self._nodes[name])

    def false_alarms(self, name: str) -> list[str]:
        """Items that complain of a node that is well, or do not know."""
        return [f"{name}: {id} {v.status}" for id, v in self.well(name).items() if v.status in (FAIL, WARN, UNKNOWN)]

    def missed(self, fault: Fault) -> list[str]:
        """What is not as it should be when ``fault`` is planted: it was not found, or something else changed."""
        before = self.well(fault.node)
        node = self._nodes[fault.node]
        try:
            fault.plant(node)
            after = _judged(node)
        finally:
            node.mend()
        found = after[fault.check]
        wrong = [] if found.status is fault.status else [f"{fault.check} is {found.status}, not {fault.status}"]
        said = (found.observed, found.reason_code, found.detail.en if found.detail else "")
        if not any(fault.says in text for text in said):
            wrong.append(f"{fault.check} says {said}, not {fault.says!r}")
        also = ALSO.get((fault.check, fault.says), {})
        otherwise = OTHERWISE.get((fault.check, fault.says), {}) if not wrong else {}
        wrong += [f"{id} did not find it" for id in also if after[id].status is not also[id]]
        for id, verdict in after.items():
            was = before[id]
            same = (verdict.status, verdict.reason_code) == (was.status, was.reason_code)
            expected = id == fault.check or id in also or otherwise.get(id) is verdict.status
            if id == ASKS_NVML_ALONE and verdict.reason_code == "missing_tool":  # the plant took NVML away
                continue
            if not same and not expected and not _names_its_cause(verdict, {fault.check, *also}):
                wrong.append(f"{id} changed from {was.status} to {verdict.status} ({verdict.reason_code or '-'})")
        return wrong

    def differing(self, check: str, plant: Plant) -> list[str]:
        """As :meth:`missed`, of a node that differs from the baseline in what ``check`` compares."""
        name = HOMES.get(CHECKS[check].info.scope, "good")
        self.well(name)
        node = self._nodes[name]
        baseline = from_facts(node.facts())
        items = [c.info.id for c in CHECKS.values() if isinstance(c, ConsistencyCheck)]
        try:
            plant(node.rename("node2"))
            found = {v.check: v for v in check_facts([node.facts()], items, baseline=baseline)}
        finally:
            node.mend()
        differ = {check, *DIFFER_TOO.get(check, ())}
        wrong = [f"{id} did not find it" for id in differ if found[id].status is not FAIL]
        return wrong + [
            f"{id} is {v.status} ({v.reason_code or '-'})"
            for id, v in found.items()
            if id not in differ and v.status not in (Status.PASS, SKIP)
        ]


def _judged(node: Planted) -> dict[str, Verdict]:
    return {v.check: v for v in check_facts([node.facts()], ITEMS)}


def _names_its_cause(verdict: Verdict, causes: set[str]) -> bool:
    told = "" if verdict.detail is None else verdict.detail.en
    silent = verdict.status is SKIP or verdict.reason_code == "cause"
    return silent and any(re.search(rf"{re.escape(cause)}(?![\w.])", told) for cause in causes)
