"""Items of host, drives, services, PCIe settings and AMD cards: at home, and with a fault planted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cwai_bench.checks import CHECKS, ConfigurableCheck, NodeCheck, amd, bmc, disks, services
from cwai_bench.config import parse_criteria
from cwai_bench.judge import check_facts
from cwai_bench.model import Facts, Reading, Status, Verdict
from cwai_bench.sources import Call, Command, Source

if TYPE_CHECKING:
    from tests.unit.conftest import Planted

PASS, WARN, FAIL, UNKNOWN, SKIP = Status.PASS, Status.WARN, Status.FAIL, Status.UNKNOWN, Status.SKIP


class Case(NamedTuple):
    """``says``: what the observed value, the detail or the reason code must hold."""

    check: str
    plant: Callable[[Planted], object]
    status: Status
    says: str


def judged(facts: Facts, check: str) -> Verdict:
    (verdict,) = check_facts([facts], [check])
    return verdict


def stdout(n: Planted, source: Command) -> str:
    from cwai_bench.discover.recorded import slug

    return (n.root / f"commands/{slug(source)}/stdout").read_text()


def said(source: Command, old: str, new: str) -> Callable[[Planted], object]:
    """Let a command say ``new`` where it says ``old``."""

    def plant(n: Planted) -> object:
        text = stdout(n, source)
        assert old in text
        return n.command(source, text.replace(old, new, 1))

    return plant


def silent(source: Command, exit_code: int = 1, stderr: str = "no") -> Callable[[Planted], object]:
    return lambda n: n.command(source, "", exit_code, stderr)


def card(address: str, **changes: object) -> Callable[[Planted], object]:
    return lambda n: n.rows("pci", "devices", {"address": address}, **changes)


def unit(name: str, active: str, file: str = "enabled", condition: str = "yes") -> Callable[[Planted], object]:
    told = (
        f"Id={name}.service\nLoadState=loaded\nActiveState={active}\nUnitFileState={file}\nConditionResult={condition}"
    )

    def plant(n: Planted) -> object:
        blocks = stdout(n, services.SERVICES).rstrip("\n").split("\n\n")
        changed = [told if f"Id={name}.service\n" in block else block for block in blocks]
        return n.command(services.SERVICES, "\n\n".join(changed) + "\n")

    return plant


def gpu(source: Command, number: int, **changes: object) -> Callable[[Planted], object]:
    """Change what amd-smi says of one card; None takes the card out of its answer."""

    def plant(n: Planted) -> object:
        rows = json.loads(stdout(n, source))
        rows[number].update(changes)
        return n.command(source, json.dumps([row for row in rows if None not in row.values()]))

    return plant


def ps(line: str) -> Callable[[Planted], object]:
    return lambda n: n.command(services.PS, stdout(n, services.PS) + line + "\n")


def logged(*entries: str) -> Callable[[Planted], object]:
    """Let the BMC log these, on the day before the node was looked at."""
    lines = "".join(f"  {n:x} | 12/30/25 | 2{n % 3}:10:00 UTC | {e}\n" for n, e in enumerate(entries, 64))
    return lambda n: n.command(bmc.IPMITOOL, stdout(n, bmc.IPMITOOL) + lines)


def huawei(*rows: str) -> Callable[[Planted], object]:
    """What ipmcget says of its log, on a node that has it."""
    head = "ID   | Generation Time     | Severity | Event Code | Status   | Event Description\n"
    text = head + "".join(f"{n:<4} | 2025-12-31 10:00:0{n} | {row}\n" for n, row in enumerate(rows, 1))

    def plant(n: Planted) -> object:
        n.write(f"{_folder(bmc.IPMCGET)}/argv", "\n".join(bmc.IPMCGET.argv) + "\n")
        return n.command(bmc.IPMCGET, text)

    return plant


DIMM = "Memory #0x02 | Uncorrectable ECC (UnCorrectable ECC |  DIMMD7)"
LEAK = "Critical | 0x12000023 | Asserted | Liquid cooling leak detected"
POLICY = "sys/devices/system/cpu/cpufreq/policy64"
SDB = disks.SMART.command("b")
NVME1 = disks.SMART_LOG.command("1")
UE = {"total_correctable_count": 4, "total_uncorrectable_count": 2, "total_deferred_count": 0}
DEFERRED = {"total_correctable_count": 0, "total_uncorrectable_count": 0, "total_deferred_count": 1}
NOT_TOLD = {"total_correctable_count": "N/A", "total_uncorrectable_count": "N/A"}
PAGE = {"page_address": "0x7f00", "page_size": "0x1000", "status": "PENDING"}
AMD_GPU = "0000:19:00.0"
AFTER_DRIVER = frozenset({"amd.cards", "amd.ecc", "amd.bad_pages", "amd.firmware", "amd.rocminfo"})

GOOD_CASES = [
    Case("bmc.events", logged(f"{DIMM} | Asserted"), FAIL, "Memory #0x02 Uncorrectable ECC"),
    Case("bmc.events", logged(f"{DIMM} | Asserted"), FAIL, "Uncorrectable ECC: contact_vendor"),
    Case("bmc.events", logged(f"{DIMM} | Asserted", f"{DIMM} | Asserted"), FAIL, "× 2"),
    Case("bmc.events", logged("Fan FAN3 | Lower Critical going low  | Asserted"), FAIL, "Fan FAN3"),
    Case("bmc.events", logged(f"{DIMM} | Asserted", f"{DIMM} | Deasserted"), PASS, "0 / 8"),
    Case("bmc.events", logged("Power Supply PS1 Status | Power Supply AC lost | Asserted"), WARN, "PS1"),
    Case("bmc.events", logged("Power Unit Redundancy | Redundancy Lost"), WARN, "Redundancy Lost"),
    Case("bmc.events", said(bmc.IPMITOOL, "| Log area reset/cleared |", "| Thermal Trip |"), PASS, "0 / 6"),
    Case("bmc.events", said(bmc.IPMITOOL, "| Timestamp Clock Sync |", "| IERR |"), FAIL, "IERR"),
    Case("bmc.events", lambda n: n.command(bmc.IPMITOOL, "", 0, "SEL has no entries"), PASS, "0 / 0"),
    Case("bmc.events", silent(bmc.IPMITOOL, 0, ""), UNKNOWN, "parse"),
    Case(
        "bmc.events",
        silent(bmc.IPMITOOL, 1, "Could not open device at /dev/ipmi0: Permission denied"),
        UNKNOWN,
        "permission",
    ),
    Case("bmc.events", silent(bmc.IPMITOOL, 1, "Get SEL Info command failed"), UNKNOWN, "Get SEL Info"),
    Case("bmc.events", said(bmc.IPMITOOL, "   3 | 12/30/25", "nonsense"), UNKNOWN, "parse"),
    Case("bmc.events", lambda n: n.refuse(bmc.IPMITOOL, "missing", "not installed"), UNKNOWN, "missing_tool"),
    Case("bmc.events", lambda n: n.remove("sys/devices/platform/ipmi_bmc.0"), SKIP, "absent"),
    Case("bmc.events", huawei(LEAK), FAIL, "0x12000023 liquid cooling leaks"),
    Case("bmc.events", huawei(LEAK), FAIL, "0x12000023: isolate"),
    Case("bmc.events", huawei("Minor | 0x04000007 | Asserted | Fan speed deviation"), WARN, "0x04000007 fan speed"),
    Case("bmc.events", huawei(LEAK, LEAK.replace("Asserted", "Deasserted")), PASS, "0 / 2"),
    Case("bmc.events", huawei("Normal | 0x26000001 | Asserted | Power button pressed"), PASS, "0 / 1"),
    Case("bmc.events", huawei("Critical | 12 | Asserted | ?"), UNKNOWN, "parse"),
    Case("services.enabled", unit("docker", "failed"), FAIL, "docker failed"),
    Case("services.enabled", unit("munge", "inactive"), WARN, "munge inactive"),
    Case("services.enabled", unit("tuned", "inactive", "disabled"), PASS, " / "),
    Case("services.enabled", unit("sssd", "inactive", condition="no"), PASS, " / "),
    Case("services.enabled", silent(services.SERVICES), UNKNOWN, "error"),
    Case("services.enabled", said(services.SERVICES, "LoadState=loaded\n", ""), UNKNOWN, "parse"),
    Case("services.enabled", lambda n: n.call("container", systemd=False), SKIP, "absent"),
    Case("services.enabled", lambda n: n.refuse(services.SERVICES, "timeout", "no answer"), UNKNOWN, "timeout"),
    Case("clock.chrony", said(services.CHRONY, "Normal", "Not synchronised"), WARN, "Not synchronised"),
    Case("clock.chrony", said(services.CHRONY, "10.20.0.3", "127.127.1.1"), WARN, "127.127.1.1"),
    Case("clock.chrony", said(services.CHRONY, "1767225391.4", "1767201391.4"), WARN, "24209 s ago"),
    Case("clock.chrony", said(services.CHRONY, ",Normal", ""), UNKNOWN, "parse"),
    Case("clock.chrony", silent(services.CHRONY, 1, "506 Cannot talk to daemon"), UNKNOWN, "506 Cannot"),
    Case("clock.chrony", unit("chrony", "inactive", "disabled"), SKIP, "clock.sync"),
    Case("container.gpu_runtime", lambda n: n.write("etc/docker/daemon.json", "{}\n"), WARN, "docker"),
    Case("container.gpu_runtime", lambda n: n.remove("etc/docker/daemon.json"), WARN, "containerd"),
    Case("container.gpu_runtime", lambda n: n.write("etc/docker/daemon.json", '{"runtimes": '), UNKNOWN, "parse"),
    Case(
        "container.gpu_runtime",
        lambda n: n.remove("etc/docker/daemon.json").write("run/cdi/nvidia.yaml", "kind: nvidia.com/gpu\n"),
        PASS,
        "cdi run/cdi/nvidia.yaml",
    ),
    Case("container.gpu_runtime", lambda n: n.call("pci", devices=[]), SKIP, "no NVIDIA"),
    Case("process.leftover", ps(" 1007  915003  86400 41943040 98.7 python3"), WARN, "python3 (915003, uid 1007, 40.0"),
    Case("process.leftover", ps(" 1007  915003  86400   10240 99.0 a.out"), WARN, "a.out"),
    Case("process.leftover", ps(" 1007  915003     12 41943040 99.0 python3"), PASS, "0 / 13"),
    Case("process.leftover", ps("61200  915003  86400 41943040 99.0 dynamic"), PASS, "0 / 13"),
    Case("process.leftover", ps("nonsense"), UNKNOWN, "parse"),
    Case("process.leftover", lambda n: n.call("processes", hidden=True), UNKNOWN, "permission"),
    Case(
        "host.reboots",
        said(
            services.LAST,
            "\nwtmp",
            "".join(
                f"reboot   system boot  5.15.0-130-generic 2025-12-31T{h:02}:00:00+0000 - crash (00:10)\n"
                for h in (9, 10, 11)
            )
            + "\nwtmp",
        ),
        WARN,
        "3 in 24.0 h",
    ),
    Case("host.reboots", said(services.LAST, "wtmp begins", "wtmp"), UNKNOWN, "parse"),
    Case("host.reboots", lambda n: n.remove(_folder(services.LAST)), SKIP, "absent"),
    Case("cpu.capped", lambda n: n.write(f"{POLICY}/scaling_max_freq", "2100000\n"), WARN, "policy64 2100/4100 MHz"),
    Case("cpu.capped", lambda n: n.write(f"{POLICY}/scaling_max_freq", "fast\n"), UNKNOWN, "parse"),
    Case("cpu.capped", lambda n: n.remove("sys/devices/system/cpu/cpufreq"), SKIP, "absent"),
    Case("kernel.nouveau", lambda n: n.write("sys/module/nouveau/initstate", "live\n"), FAIL, "nouveau live"),
    Case("storage.nvme", lambda n: n.write("sys/class/nvme/nvme1/state", "dead\n"), FAIL, "nvme1 dead"),
    Case("storage.nvme", lambda n: n.remove("sys/class/nvme/nvme2"), FAIL, "0000:e3:00.0 -"),
    Case("storage.nvme", lambda n: n.refuse(Call("pci")), UNKNOWN, "permission"),
    Case("storage.nvme_health", said(NVME1, '"critical_warning":0', '"critical_warning":4'), FAIL, "nvme1 reliability"),
    Case(
        "storage.nvme_health", said(NVME1, '"critical_warning":0', '"critical_warning":{"value":8}'), FAIL, "read only"
    ),
    Case("storage.nvme_health", said(NVME1, '"avail_spare":100', '"avail_spare":3'), FAIL, "spare 3 %"),
    Case("storage.nvme_health", said(NVME1, '"media_errors":0', '"media_errors":12'), WARN, "12 media errors"),
    Case("storage.nvme_health", said(NVME1, '"percent_used":2', '"percent_used":104'), WARN, "104 % worn"),
    Case("storage.nvme_health", silent(NVME1, 1, "/dev/nvme1: Permission denied"), UNKNOWN, "permission"),
    Case("storage.nvme_health", said(NVME1, "critical_warning", "x"), UNKNOWN, "parse"),
    Case("storage.nvme_health", lambda n: n.refuse(NVME1, "missing", "not installed"), UNKNOWN, "missing_tool"),
    Case("storage.nvme_health", lambda n: n.remove("sys/class/nvme"), SKIP, "absent"),
    Case(
        "storage.nvme_health",
        lambda n: silent(NVME1, 1, "NVMe status: Invalid Log Page")(n.call("container", vm="amazon")),
        SKIP,
        "virtual drives",
    ),
    Case(
        "storage.lustre",
        lambda n: n.write("sys/fs/lustre/health_check", "device lustre-OST0003 reported unhealthy\nNOT HEALTHY\n"),
        FAIL,
        "lustre-OST0003",
    ),
    Case("storage.smart", said(SDB, '"passed": true', '"passed": false'), FAIL, "sdb"),
    Case("storage.smart", said(SDB, '"smart_status": {\n  "passed": true\n }', '"smart_support": {}'), PASS, "1 / 2"),
    Case(
        "storage.smart",
        lambda n: n.command(SDB, '{"smartctl": {"messages": [{"string": "open: failed: Permission denied"}]}}', 2),
        UNKNOWN,
        "permission",
    ),
    Case(
        "storage.smart",
        lambda n: n.command(SDB, '{"smartctl": {"messages": [{"string": "Read SMART Data failed"}]}}', 4),
        UNKNOWN,
        "Read SMART Data failed",
    ),
    Case("storage.smart", silent(SDB), UNKNOWN, "parse"),
    Case("storage.smart", lambda n: n.refuse(SDB, "missing", "not installed"), UNKNOWN, "missing_tool"),
    Case("storage.smart", lambda n: n.call("container", vm="kvm"), SKIP, "virtual drives"),
    Case("storage.lustre", lambda n: n.remove("sys/fs/lustre"), SKIP, "absent"),
    Case("storage.lustre", lambda n: n.write("sys/fs/lustre/health_check", "\n"), UNKNOWN, "parse"),
    Case("storage.zfs", lambda n: n.write("proc/spl/kstat/zfs/scratch/state", "DEGRADED\n"), WARN, "scratch DEGRADED"),
    Case("storage.zfs", lambda n: n.write("proc/spl/kstat/zfs/scratch/state", "SUSPENDED\n"), FAIL, "SUSPENDED"),
    Case("storage.zfs", lambda n: n.remove("proc/spl"), SKIP, "absent"),
    Case(
        "pci.packets", card("0000:1a:00.0", max_read_request=512), WARN, "0000:1a:00.0 payload 512 B, read request 512"
    ),
    Case("pci.packets", card("0000:19:00.0", max_payload=128), WARN, "0000:19:00.0 payload 128"),
    Case(
        "pci.packets",
        lambda n: n.rows("pci", "devices", {}, max_payload=None, max_read_request=None),
        UNKNOWN,
        "permission",
    ),
    Case("pci.packets", lambda n: n.call("container", vm="kvm"), SKIP, "VM"),
]

AMD_CASES = [
    Case("amd.driver", card(AMD_GPU, driver=""), FAIL, f"{AMD_GPU} -"),
    Case("amd.driver", lambda n: n.call("pci", devices=[]), SKIP, "no AMD"),
    Case("amd.driver", lambda n: n.refuse(Call("pci")), UNKNOWN, "permission"),
    Case("amd.cards", gpu(amd.LIST, 3, uuid=None), FAIL, "0000:49:00.0"),
    Case("amd.cards", silent(amd.LIST, 255, "ERROR: amdgpu not loaded"), UNKNOWN, "ended with 255"),
    Case("amd.cards", lambda n: n.remove(_folder(amd.LIST)), UNKNOWN, "missing_tool"),
    Case("amd.ecc", gpu(amd.ECC, 5, ecc=UE), FAIL, "gpu5 UE 2"),
    Case("amd.ecc", gpu(amd.ECC, 5, ecc=DEFERRED), WARN, "gpu5 deferred 1"),
    Case("amd.ecc", gpu(amd.ECC, 5, ecc=NOT_TOLD), UNKNOWN, "gpu5"),
    Case("amd.ecc", gpu(amd.ECC, 5, ecc=None), UNKNOWN, "amd.cards"),
    Case("amd.ecc", card(AMD_GPU, driver=""), UNKNOWN, "amd.driver"),
    Case("amd.bad_pages", gpu(amd.BAD_PAGES, 0, pending=PAGE), FAIL, "gpu0 pending 1, unreservable 0"),
    Case("amd.bad_pages", gpu(amd.BAD_PAGES, 7, un_res=[PAGE, PAGE]), FAIL, "gpu7 pending 0, unreservable 2"),
    Case("amd.bad_pages", gpu(amd.BAD_PAGES, 7, retired=[PAGE, PAGE]), PASS, "retired 2"),
    Case("amd.bad_pages", gpu(amd.BAD_PAGES, 7, pending="N/A"), UNKNOWN, "gpu7"),
    Case("amd.bad_pages", gpu(amd.BAD_PAGES, 7, pending="?"), UNKNOWN, "parse"),
    Case(
        "amd.firmware", gpu(amd.FIRMWARE, 2, fw_list=[{"fw_id": "RLC", "fw_version": "57"}]), FAIL, "gpu2 RLC 57 (58)"
    ),
    Case("amd.firmware", gpu(amd.FIRMWARE, 2, fw_list="N/A"), UNKNOWN, "unsupported"),
    Case("amd.rocminfo", said(amd.ROCMINFO, "*** Done ***", ""), FAIL, "rc 0"),
    Case("amd.rocminfo", said(amd.ROCMINFO, "Device Type:             GPU", ""), FAIL, "7 / 8"),
    Case("amd.kernel_log", lambda n: n.log("amdgpu 0000:19:00.0: amdgpu: GPU reset begin!"), FAIL, "GPU reset begin"),
    Case(
        "amd.kernel_log",
        lambda n: n.log("amdgpu 0000:19:00.0: amdgpu: 2 uncorrectable hardware errors detected in umc block"),
        FAIL,
        "umc block",
    ),
    Case(
        "amd.kernel_log",
        lambda n: n.log("amdgpu 0000:19:00.0: amdgpu: [gfxhub0] no-retry page fault (src_id:0 ring:24)"),
        WARN,
        "page fault",
    ),
    Case(
        "amd.kernel_log",
        lambda n: n.log("amdgpu 0000:19:00.0: amdgpu: no uncorrectable hardware errors detected in umc block"),
        PASS,
        "0 in 24.0 h",
    ),
    Case("amd.realloc", lambda n: n.replace("proc/cmdline", " pci=realloc=off", ""), WARN, "-"),
    Case("amd.realloc", lambda n: n.replace("proc/cmdline", "pci=realloc=off", "pci=realloc"), WARN, "realloc"),
]
CASES = GOOD_CASES + AMD_CASES
MINE = {c.check for c in CASES}


def _folder(source: Source) -> str:
    from cwai_bench.discover.recorded import slug

    assert isinstance(source, Command)
    return f"commands/{slug(source)}"


@pytest.fixture
def mi300x(tmp_path: Path, planted: Planted) -> Planted:
    return type(planted)(tmp_path / "mi300x", "mi300x")


def found(case: Case, node: Planted) -> None:
    case.plant(node)
    verdict = judged(node.facts(), case.check)
    assert verdict.status is case.status, verdict
    texts = [verdict.observed, verdict.reason_code, verdict.detail.en if verdict.detail else ""]
    assert any(case.says in text for text in texts), texts
    if verdict.status in (FAIL, WARN):
        assert verdict.evidence
        assert verdict.action is CHECKS[case.check].info.action


def label(case: Case) -> str:
    return f"{case.check}-{case.status.value}-{case.says[:20]}"


@pytest.mark.parametrize("case", GOOD_CASES, ids=label)
def test_a_planted_fault_is_found(case: Case, planted: Planted) -> None:
    found(case, planted)


@pytest.mark.parametrize("case", AMD_CASES, ids=label)
def test_a_planted_fault_of_amd_cards_is_found(case: Case, mi300x: Planted) -> None:
    found(case, mi300x)


NODE_ITEMS = [c.info.id for c in CHECKS.values() if isinstance(c, NodeCheck)]


def changed(before: Facts, after: Facts) -> dict[str, Status]:
    was = {v.check: v.status for v in check_facts([before], NODE_ITEMS)}
    return {v.check: v.status for v in check_facts([after], NODE_ITEMS) if v.status is not was[v.check]}


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (unit("docker", "failed"), {"services.enabled": FAIL, "container.gpu_runtime": WARN}),
        (lambda n: n.write("sys/class/nvme/nvme1/state", "dead\n"), {"storage.nvme": FAIL}),
        (said(NVME1, '"critical_warning":0', '"critical_warning":1'), {"storage.nvme_health": FAIL}),
        (card("0000:1a:00.0", max_read_request=512), {"pci.packets": WARN}),
        (ps(" 1007  915003  86400 41943040 98.7 python3"), {"process.leftover": WARN}),
        (lambda n: n.write(f"{POLICY}/scaling_max_freq", "2100000\n"), {"cpu.capped": WARN}),
    ],
)
def test_one_fault_reads_as_one(
    plant: Callable[[Planted], object], expected: dict[str, Status], planted: Planted, good_facts: Facts
) -> None:
    plant(planted)
    assert changed(good_facts, planted.facts()) == expected


def test_a_card_without_a_driver_is_one_fault(mi300x: Planted) -> None:
    before = mi300x.facts()
    card(AMD_GPU, driver="")(mi300x)
    expected = {"amd.driver": FAIL} | dict.fromkeys(AFTER_DRIVER, UNKNOWN)
    assert changed(before, mi300x.facts()) == expected


def test_amd_items_do_not_apply_to_nvidia_nodes(good_facts: Facts) -> None:
    ours = [id for id in CHECKS if CHECKS[id].info.scope == "amd"]
    assert len(ours) >= 10
    verdicts = check_facts([good_facts], ours, baseline="node1")
    assert {(v.status, v.reason_code) for v in verdicts} == {(SKIP, "absent")}


def test_smartctl_serves_where_nvme_cli_is_missing(planted: Planted) -> None:
    for n in range(3):
        planted.refuse(disks.SMART_LOG.command(str(n)), "missing", "not installed")
        log = {"critical_warning": 0, "available_spare": 100, "available_spare_threshold": 10, "percentage_used": 1}
        told = {"nvme_smart_health_information_log": log | {"media_errors": 3 * (n == 1)}}
        source = disks.SMARTCTL.command(str(n))
        planted.write(f"{_folder(source)}/argv", "\n".join(source.argv) + "\n")
        planted.write(f"{_folder(source)}/stdout", json.dumps(told)).write(f"{_folder(source)}/exit", "0\n")
    verdict = judged(planted.facts(), "storage.nvme_health")
    assert (verdict.status, verdict.observed) == (WARN, "nvme1 3 media errors")


# ------------------------------------------------------------------------------------------------ consistency items

CHANGES: dict[str, Callable[[Planted], object]] = {
    "same.services": unit("ufw", "active"),
    "same.packages": said(services.DPKG, "libnccl2|2.23.4", "libnccl2|2.21.5"),
    "same.boost": lambda n: n.write("sys/devices/system/cpu/intel_pstate/no_turbo", "1\n"),
    "same.dimms": lambda n: n.call("dimms", sizes=[64 << 30] * 15),
    "same.bmc": lambda n: n.write("sys/devices/platform/ipmi_bmc.0/firmware_revision", "1.09\n"),
    "same.microcode": lambda n: n.write("sys/devices/system/cpu/cpu0/microcode/version", "0x2b000590\n"),
    "same.tuned": lambda n: n.write("etc/tuned/active_profile", "balanced\n"),
    "same.security": lambda n: n.write("sys/fs/selinux/enforce", "1"),
    "same.kdump": lambda n: n.write("sys/kernel/kexec_crash_loaded", "0\n"),
    "same.cgroup": lambda n: n.remove("sys/fs/cgroup").write(
        "proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t90\t1\nmemory\t9\t120\t1\n"
    ),
    "same.names": lambda n: n.call("names", answers={"node1": ["127.0.1.1"], "node2": ["10.20.1.2"], "node3": []}),
    "same.python_packages": lambda n: n.call(
        "python_packages", packages=[["torch", "2.4.0", "/opt/conda"], ["triton", "3.1.0", "/opt/conda"]]
    ),
    "same.hosts": lambda n: n.replace("etc/hosts", "10.20.1.3 node3", "10.20.1.33 node3"),
    "same.mounts": lambda n: n.rows("filesystems", "filesystems", {"mount": "/home"}, device="10.20.0.5:/export/old"),
    "same.pci_packets": card("0000:1a:00.0", max_read_request=512),
    "same.pci_tree": card("0000:19:00.0", behind="0000:18:01.0"),
}
AMD_CHANGES: dict[str, Callable[[Planted], object]] = {
    "same.amd_versions": said(amd.VERSION, "6.2.4", "6.1.2"),
    "same.amd_firmware": gpu(amd.FIRMWARE, 2, fw_list=[{"fw_id": "RLC", "fw_version": "57"}]),
    "same.amd_partitions": lambda n: n.write("sys/class/drm/card3/device/current_compute_partition", "CPX\n"),
}


@pytest.mark.parametrize("check", AMD_CHANGES)
def test_a_difference_of_amd_cards_fails(check: str, mi300x: Planted) -> None:
    before = mi300x.facts()
    AMD_CHANGES[check](mi300x.rename("node2"))
    verdicts = {n: v.status for v in check_facts([before, mi300x.facts()], [check], baseline="node1") for n in v.nodes}
    assert verdicts == {"node1": PASS, "node2": FAIL}


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n.replace(
            "etc/hosts", "10.20.1.1 node1 node1.cluster", "10.20.1.1   node1.cluster node1 # this node"
        ),
        lambda n: n.write("etc/hosts", "127.0.1.1 node2\n" + (n.root / "etc/hosts").read_text()),
    ],
)
def test_the_same_names_written_otherwise_are_no_difference(
    change: Callable[[Planted], object], planted: Planted, good_facts: Facts
) -> None:
    change(planted.rename("node2"))
    verdicts = {
        n: v.status
        for v in check_facts([good_facts, planted.facts()], ["same.hosts"], baseline="node1")
        for n in v.nodes
    }
    assert verdicts["node2"] is PASS


def test_a_node_that_lists_only_itself_lists_nothing(planted: Planted) -> None:
    one = planted.write("etc/hosts", "10.20.0.5 storage1\n10.20.1.1 node1\n").facts()
    two = planted.rename("node2").write("etc/hosts", "10.20.0.5 storage1\n10.20.1.2 node2\n").facts()
    assert {v.status for v in check_facts([one, two], ["same.hosts"], baseline="node1")} == {PASS}


# --------------------------------------------------------------------------------------------- configurable items

DEMANDS: dict[str, tuple[str, str]] = {
    "services.state": ("{ equals = 'active', where.name = 'slurmd' }", "{ equals = 'active' }"),
    "cpu.frequency": ("{ min = 4000 }", "{ min = 4200 }"),
    "memory.modules": ("{ equals = 16 }", "{ equals = 32 }"),
    "nvme.count": ("{ equals = 3 }", "{ min = 4 }"),
    "storage.mounted": ("{ equals = 'nfs4 rw', where.name = '/home' }", "{ equals = 'ext4 rw' }"),
    "nic.read_request": ("{ min = '4096 B' }", "{ max = '512 B' }"),
}
"""On the good node: what holds, and what does not. test_criteria.py tries each."""

CRITERIA = """
[criteria]
services.state = { equals = "active", where.name = "slurmd" }
cpu.frequency.min = 4000
memory.modules.equals = 16
nvme.count.equals = 3
storage.mounted = { equals = "nfs4 rw", where.name = "/home" }
nic.read_request.min = "4096 B"
"""


def demanded(facts: Facts) -> dict[str, Verdict]:
    known = {c.info.id: c.unit for c in CHECKS.values() if isinstance(c, ConfigurableCheck)}
    criteria = parse_criteria(CRITERIA, "t.toml", known)
    return {v.check: v for v in check_facts([facts], criteria.items, criteria=criteria)}


def test_criteria_hold_on_the_good_node(planted: Planted) -> None:
    # the two Ethernet NICs behind no switch have 4096 too
    assert {v.check: v.status for v in demanded(planted.facts()).values()} == dict.fromkeys(
        demanded(planted.facts()), PASS
    )


@pytest.mark.parametrize(
    ("check", "plant"),
    [
        ("services.state", unit("slurmd", "failed")),
        ("cpu.frequency", lambda n: n.write(f"{POLICY}/scaling_max_freq", "2100000\n")),
        ("memory.modules", lambda n: n.call("dimms", sizes=[64 << 30] * 15)),
        ("nvme.count", lambda n: n.write("sys/class/nvme/nvme1/state", "dead\n")),
        ("storage.mounted", lambda n: n.rows("filesystems", "filesystems", {"mount": "/home"}, read_only=True)),
        ("nic.read_request", card("0000:1a:00.0", max_read_request=512)),
    ],
)
def test_a_criterion_that_does_not_hold_fails(check: str, plant: Callable[[Planted], object], planted: Planted) -> None:
    plant(planted)
    assert {id: v.status for id, v in demanded(planted.facts()).items() if v.status is not PASS} == {check: FAIL}


# ------------------------------------------------------------------------------------------------------- any text

OURS = sorted(MINE)


def texts(good: str) -> st.SearchStrategy[str]:
    """Arbitrary text, and the good text cut, with Windows line ends, or with junk in it."""
    return st.one_of(
        st.text(max_size=200),
        st.integers(0, max(len(good) - 2, 0)).map(lambda n: good[:n]),
        st.just(good.replace("\n", "\r\n")),
        st.tuples(st.integers(0, len(good)), st.text(max_size=8)).map(lambda t: good[: t[0]] + t[1] + good[t[0] :]),
    )


@pytest.mark.parametrize("home", ["good", "mi300x"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_command_says_is_no_bug(home: str, data: st.DataObject, at_home: Callable[[str], Facts]) -> None:
    facts = at_home("amd.driver" if home == "mi300x" else "services.enabled")
    commands = [k for k in facts.readings if k.startswith("$ ") and "{}" not in k and facts.readings[k].status == "ok"]
    key = data.draw(st.sampled_from(commands))
    text = data.draw(texts(facts.readings[key].text))
    reading = msgspec.structs.replace(facts.readings[key], text=text)
    for verdict in check_facts([msgspec.structs.replace(facts, readings=facts.readings | {key: reading})], OURS):
        assert "a bug of" not in (verdict.detail.en if verdict.detail else ""), (key, text, verdict)


JSON_COMMANDS = {
    "amd.cards": amd.LIST,
    "amd.ecc": amd.ECC,
    "amd.bad_pages": amd.BAD_PAGES,
    "amd.firmware": amd.FIRMWARE,
    "amd.rocminfo": amd.ROCMINFO,
    "storage.nvme_health": NVME1,
    "storage.smart": SDB,
    "services.enabled": services.SERVICES,
    "clock.chrony": services.CHRONY,
    "host.reboots": services.LAST,
}


@pytest.mark.parametrize("check", JSON_COMMANDS)
def test_a_text_that_was_cut_is_never_a_pass(check: str, at_home: Callable[[str], Facts]) -> None:
    facts = at_home(check)
    key = JSON_COMMANDS[check].key
    whole = facts.readings[key].text.rstrip()
    for at in range(0, len(whole) - 1, max(len(whole) // 60, 1)):
        reading: Reading = msgspec.structs.replace(facts.readings[key], text=whole[:at])
        cut = msgspec.structs.replace(facts, readings=facts.readings | {key: reading})
        assert judged(cut, check).status in (UNKNOWN, FAIL), whole[:at][-80:]
