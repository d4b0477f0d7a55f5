"""NVIDIA items: on a good node, on nodes with a fault planted, and asked through NVML or through nvidia-smi alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwai_bench import config
from cwai_bench.checks import CHECKS, ConfigurableCheck, ConsistencyCheck, FactView, NodeCheck, criteria_items
from cwai_bench.checks.nvidia import CARDS, NVLINK_ERRORS, NVLINK_STATUS, NVML, SCOPE, SMI
from cwai_bench.checks.nvidia_driver import HEALTH, HOST_ENGINE, INSTALLED
from cwai_bench.checks.nvidia_fabric import FABRIC_MANAGER, GDRCOPY, IMEX
from cwai_bench.checks.nvidia_log import XIDS
from cwai_bench.discover.recorded import slug
from cwai_bench.judge import check_facts
from cwai_bench.model import Action, Facts, Status, Verdict
from cwai_bench.sources import Call
from tests.unit.conftest import Planted, home_of

PASS, WARN, FAIL, UNKNOWN, SKIP = Status.PASS, Status.WARN, Status.FAIL, Status.UNKNOWN, Status.SKIP
NODE_ITEMS = [c.info.id for c in CHECKS.values() if isinstance(c, NodeCheck)]
ITEMS = [id for id in NODE_ITEMS if CHECKS[id].info.scope == SCOPE and home_of(id) == "good"]
SAME = [c.info.id for c in CHECKS.values() if isinstance(c, ConsistencyCheck) and c.info.scope == SCOPE]
YOURS = [c for c in CHECKS.values() if isinstance(c, ConfigurableCheck) and c.info.scope == SCOPE]
SMI_OUT = f"commands/{slug(SMI)}/stdout"
CARD, OTHER = "0000:19:00.0", "0000:a9:00.0"
LIMITED = {"sram_corrected": 0, "sram_uncorrected": 0, "dram_corrected": 0, "dram_uncorrected": 0}


class Case(NamedTuple):
    """``says``: what the observed value, the detail or the reason code must hold. ``also``: other items that see it."""

    check: str
    plant: Callable[[Planted], object]
    status: Status
    says: str
    also: frozenset[str] = frozenset()
    node: str = "good"


def judged(facts: Facts, check: str) -> Verdict:
    (verdict,) = check_facts([facts], [check])
    return verdict


def card(address: str = CARD, **changes: Any) -> Callable[[Planted], Planted]:
    return lambda n: n.rows("nvml", "cards", {"address": address}, **changes)


def all_cards(**changes: Any) -> Callable[[Planted], Planted]:
    def plant(n: Planted) -> Planted:
        answer = msgspec.json.decode((n.root / "calls/nvml.json").read_bytes())
        return n.call("nvml", cards=[c | changes for c in answer["cards"]])

    return plant


def links(address: str, change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Planted], Planted]:
    def plant(n: Planted) -> Planted:
        answer = msgspec.json.decode((n.root / "calls/nvml.json").read_bytes())
        change(next(c for c in answer["cards"] if c["address"] == address)["links"])
        return n.write("calls/nvml.json", msgspec.json.encode(answer).decode())

    return plant


def without(address: str) -> Callable[[Planted], Planted]:
    def plant(n: Planted) -> Planted:
        answer = msgspec.json.decode((n.root / "calls/nvml.json").read_bytes())
        return n.call("nvml", cards=[c for c in answer["cards"] if c["address"] != address])

    return plant


def no_nvml(n: Planted) -> Planted:
    return n.call("nvml", driver="", cuda="", cards=[], error="nvidia-ml-py is not installed", code=-1)


def smi(*changes: tuple[str, str]) -> Callable[[Planted], Planted]:
    """Without NVML, the first card of nvidia-smi changed."""

    def plant(n: Planted) -> Planted:
        text = (no_nvml(n).root / SMI_OUT).read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        return n.write(SMI_OUT, text)

    return plant


def fabric(**changes: Any) -> dict[str, Any]:
    good = {"state": "Completed", "status": "Success", "cluster": "", "clique": 0, "trouble": []}
    return good | changes


def xid(code: int, text: str = "pid=4242, name=python, …") -> str:
    return f"NVRM: Xid (PCI:0000:19:00): {code}, {text}"


DOMAIN = "5cd30dc8-0000-4000-8000-0123456789ab"
CASES = [
    # the driver
    Case("nvidia.driver", lambda n: n.remove("proc/driver/nvidia/version"), FAIL, "not loaded, 8 cards"),
    Case("nvidia.driver", lambda n: n.call("nvml", error="Driver Not Loaded", code=9, cards=[]), FAIL, "Not Loaded"),
    Case(
        "nvidia.driver", lambda n: n.call("nvml", error="RM has detected a version mismatch", code=18), FAIL, "mismatch"
    ),
    Case(
        "nvidia.driver",
        lambda n: no_nvml(n).command(SMI, "Unable to determine the device handle for GPU0: GPU is lost.\n", 15),
        FAIL,
        "15: GPU fell off the bus",
    ),
    Case(
        "nvidia.driver",
        lambda n: no_nvml(n).command(SMI, "NVIDIA-SMI has failed because it couldn't communicate\n", 9),
        FAIL,
        "9: driver not loaded",
    ),
    Case("nvidia.driver", lambda n: no_nvml(n).refuse(SMI, "missing", "No such file"), UNKNOWN, "missing_tool"),
    Case("nvidia.driver", lambda n: n.refuse(NVML, "timeout", "no answer in 15 s"), UNKNOWN, "timeout"),
    Case("nvidia.driver", lambda n: no_nvml(n).refuse(SMI, "timeout", "ended after 20 s"), UNKNOWN, "timeout"),
    Case("nvidia.driver", lambda n: n.call("pci", devices=[]), SKIP, "absent"),
    Case("nvidia.driver", lambda n: n.write("proc/driver/nvidia/version", "NVRM ver"), UNKNOWN, "parse"),
    Case("nvidia.count", without(OTHER), FAIL, f"7 / 8; {OTHER}"),
    Case("nvidia.count", lambda n: n.call("nvml", cards=[]), FAIL, "0 / 8"),
    Case("nvidia.count", lambda n: without(OTHER)(n).call("nvml", lost=["5: GPU is lost"]), FAIL, OTHER),
    Case("nvidia.count", lambda n: without(OTHER)(n).call("container", kind="docker"), WARN, "7 / 8"),
    Case("nvidia.upgrade", lambda n: n.command(INSTALLED, "570.124.06\n"), FAIL, "550.127.08 / 570.124.06"),
    Case(
        "nvidia.upgrade",
        lambda n: n.command(INSTALLED, "", 1, "modinfo: ERROR: Module alias nvidia not found."),
        SKIP,
        "driver container",
    ),
    Case("nvidia.upgrade", lambda n: n.command(INSTALLED, "", 1, "modinfo: broken"), UNKNOWN, "modinfo: broken"),
    Case("nvidia.upgrade", lambda n: n.refuse(INSTALLED, "missing", ""), UNKNOWN, "missing_tool"),
    Case("nvidia.upgrade", lambda n: n.remove("proc/driver/nvidia/version"), UNKNOWN, "cause"),
    Case(
        "nvidia.processes",
        card(processes=[{"pid": 812, "name": "python3", "memory": 70 << 30}], memory_used=70 << 30),
        WARN,
        f"{CARD} python3(812)",
    ),
    Case("nvidia.processes", card(processes=None), UNKNOWN, "missing_source"),
    Case("nvidia.leftover_memory", card(memory_used=20 << 30), WARN, f"{CARD} 20480 MiB"),
    Case("nvidia.leftover_memory", card(processes=[{"pid": 8, "name": "x"}]), SKIP, "nvidia.processes"),
    Case("nvidia.persistence", card(persistence=False), WARN, f"{CARD} off"),
    Case("nvidia.mig", card(mig_pending=True), WARN, "off, pending on"),
    Case("nvidia.mig", card(mig=True, mig_pending=True), WARN, f"{CARD} on"),
    Case("nvidia.vbios", card(vbios="96.00.74.00.01"), WARN, f"{CARD} 96.00.74.00.01"),
    Case("nvidia.vbios", card(vbios=None), UNKNOWN, "missing_source"),
    Case(
        "nvidia.environment",
        lambda n: n.call("cuda_environment", values={"CUDA_LAUNCH_BLOCKING": "1"}),
        WARN,
        "CUDA_LAUNCH_BLOCKING=1",
    ),
    Case(
        "nvidia.environment",
        lambda n: n.call("cuda_environment", values={"CUDA_VISIBLE_DEVICES": ""}),
        WARN,
        "CUDA_VISIBLE_DEVICES=",
    ),
    Case("nvidia.environment", lambda n: n.call("cuda_environment", values={"CUDA_VISIBLE_DEVICES": "0,1"}), PASS, "0"),
    Case(
        "nvidia.dcgm_service",
        lambda n: n.command(HOST_ENGINE, "LoadState=loaded\nActiveState=failed\n"),
        WARN,
        "failed",
    ),
    Case(
        "nvidia.dcgm_service",
        lambda n: n.command(HOST_ENGINE, "LoadState=not-found\nActiveState=inactive\n"),
        SKIP,
        "absent",
    ),
    Case(
        "nvidia.dcgm_service", lambda n: n.command(HOST_ENGINE, "", 1, "Failed to connect to bus"), UNKNOWN, "connect"
    ),
    Case(
        "nvidia.dcgm_health",
        lambda n: n.replace(
            f"commands/{slug(HEALTH)}/stdout",
            f"| {'Healthy':56} |\n",
            f"| {'Failure':56} |\n| {'-> 0':25} | {'Failure':56} |\n"
            f"| {'      -> NVLink':25} | {'link 3 is currently down':56} |\n",
        ),
        FAIL,
        "link 3 is currently down",
    ),
    Case(
        "nvidia.dcgm_health",
        lambda n: n.command(HEALTH, "Error: Health watches not enabled. Please enable watches.\n", 226),
        SKIP,
        "watch",
    ),
    Case(
        "nvidia.dcgm_health",
        lambda n: n.command(
            HEALTH, "Error: unable to establish a connection\nUnable to connect to host engine.\n", 255
        ),
        UNKNOWN,
        "cause",
    ),
    Case("nvidia.dcgm_health", lambda n: n.remove(f"commands/{slug(HEALTH)}"), SKIP, "dcgmi"),
    Case("nvidia.dcgm_health", lambda n: n.command(HEALTH, "+----+\n| Overall"), UNKNOWN, "parse"),
    # memory
    Case("nvidia.ecc_mode", card(ecc=False, ecc_pending=False), FAIL, f"{CARD} off"),
    Case("nvidia.ecc_mode", card(ecc=False), FAIL, "off, pending on"),
    Case("nvidia.ecc_mode", all_cards(ecc=None, ecc_pending=None), SKIP, "unsupported"),
    Case(
        "nvidia.ecc_uncorrected", card(ecc_volatile=LIMITED | {"dram_uncorrected": 1}), FAIL, f"{CARD} SRAM 0, DRAM 1"
    ),
    Case("nvidia.ecc_uncorrected", card(ecc_volatile=LIMITED | {"dram_corrected": 3}), PASS, "8 / 8"),
    Case("nvidia.ecc_lifetime", card(sram_threshold_exceeded=True), FAIL, "threshold"),
    Case("nvidia.ecc_lifetime", card(ecc_aggregate=LIMITED | {"sram_uncorrected": 2}), WARN, f"{CARD} SRAM 0/2"),
    Case("nvidia.ecc_lifetime", card(ecc_aggregate=LIMITED | {"dram_corrected": 20_000_001}), WARN, "20000001"),
    Case("nvidia.repair", card(remap_pending=True, remapped_uncorrected=1), FAIL, f"{CARD} rows 1, pending"),
    Case("nvidia.repair", card(remap_failed=True), FAIL, "failed"),
    Case("nvidia.repair", card(remapped_uncorrected=512), WARN, "rows 512"),
    Case(
        "nvidia.repair",
        all_cards(remap_pending=None, remap_failed=None, retired_pages=12, retirement_pending=False),
        WARN,
        "pages 12",
    ),
    Case("nvidia.inforom", card(inforom_corrupt=True), FAIL, f"{CARD} G520.0200.00.05, corrupt"),
    Case("nvidia.recovery", card(recovery="Drain and Reset"), FAIL, f"{CARD} Drain and Reset"),
    # clocks, heat, power, PCIe
    Case(
        "nvidia.throttle", card(slowed_by=["hw_power_brake_slowdown", "hw_slowdown"]), FAIL, "hw_power_brake_slowdown"
    ),
    Case("nvidia.throttle", card(slowed_by=["sw_thermal_slowdown"]), WARN, f"{CARD} sw_thermal_slowdown"),
    Case("nvidia.throttle", card(slowed_for={"hw_thermal_slowdown": 40_000.0}), WARN, "% of the uptime"),
    Case("nvidia.throttle", card(slowed_for={"sw_power_cap": 400_000.0}), PASS, "8 / 8"),
    Case("nvidia.heat", card(temperature=88.0, margin=1.0), WARN, f"{CARD} 88 °C, 1 left"),
    Case("nvidia.heat", card(temperature=91.0, margin=-2.0), FAIL, "91 °C"),
    Case("nvidia.power", card(power_limit=500.0), WARN, f"{CARD} 500/700 W"),
    Case("nvidia.clocks", card(application_clock=1410.0), WARN, f"{CARD} 1410/1980 MHz"),
    Case("nvidia.pcie_replays", card(pcie_replays=900_000), WARN, f"{CARD} 900000"),
    Case("nvidia.pcie_replays", lambda n: n.write("proc/uptime", "x\n"), UNKNOWN, "parse"),
    # NVLink, fabric, and past the host
    Case("nvidia.fabric", all_cards(fabric=fabric(state="In Progress")), FAIL, "In Progress"),
    Case("nvidia.fabric", card(fabric=fabric(status="error 999")), FAIL, f"{CARD} Completed error 999"),
    Case("nvidia.fabric", card(fabric=fabric(trouble=["route_unhealthy"])), WARN, "route_unhealthy"),
    Case(
        "nvidia.fabric_services",
        lambda n: n.command(FABRIC_MANAGER, "LoadState=loaded\nActiveState=failed\n"),
        FAIL,
        "nvidia-fabricmanager failed",
    ),
    Case(
        "nvidia.fabric_services",
        lambda n: all_cards(fabric=fabric(state="Not Started"))(n).command(
            FABRIC_MANAGER, "LoadState=not-found\nActiveState=inactive\n"
        ),
        FAIL,
        "not installed",
        frozenset({"nvidia.fabric"}),
    ),
    Case(
        "nvidia.fabric_services",
        lambda n: n.command(FABRIC_MANAGER, "LoadState=not-found\nActiveState=inactive\n"),
        SKIP,
        "elsewhere",
    ),
    Case(
        "nvidia.fabric_services",
        lambda n: all_cards(fabric=fabric(cluster=DOMAIN, clique=7))(n).command(
            IMEX, "LoadState=loaded\nActiveState=inactive\n"
        ),
        FAIL,
        "nvidia-imex inactive",
    ),
    Case(
        "nvidia.fabric_services",
        lambda n: all_cards(fabric=None, name="NVIDIA A100-SXM4-80GB")(n).command(
            FABRIC_MANAGER, "LoadState=not-found\nActiveState=inactive\n"
        ),
        FAIL,
        "nvidia-fabricmanager not installed",
    ),
    Case("nvidia.fabric_services", all_cards(fabric=None), SKIP, "no switched fabric"),
    Case("nvidia.fabric_services", lambda n: n.command(FABRIC_MANAGER, "\n"), UNKNOWN, "error"),
    Case(
        "nvidia.nvlink",
        links(CARD, lambda found: found[7].update(up=False, speed=None)),
        FAIL,
        f"{CARD} 17/18 × 26.562 GB/s, down: 7",
    ),
    Case("nvidia.nvlink", links(OTHER, lambda found: found[0].update(speed=13e9)), FAIL, f"{OTHER} 18/18 × 13 GB/s"),
    Case("nvidia.nvlink", links(OTHER, lambda found: found.clear()), FAIL, f"{OTHER} 0"),
    Case("nvidia.nvlink", all_cards(name="NVIDIA L40S", links=[]), SKIP, "unsupported"),
    Case(
        "nvidia.nvlink_errors",
        links(CARD, lambda found: found[2].update(recoveries=1)),
        WARN,
        f"{CARD} link 2: 0 replays, 1",
    ),
    Case("nvidia.nvlink_errors", links(CARD, lambda found: found[2].update(crc_errors=9)), PASS, "CRC 10"),
    Case("nvidia.nvlink_errors", links(CARD, lambda found: found.clear()), UNKNOWN, "missing_source"),
    Case("nvidia.gpudirect", lambda n: n.remove("sys/module/nvidia_peermem"), FAIL, "-"),
    Case(
        "nvidia.gpudirect",
        lambda n: n.remove("sys/module/nvidia_peermem").replace(
            "proc/driver/nvidia/version", "UNIX x86_64 Kernel Module", "UNIX Open Kernel Module for x86_64"
        ),
        PASS,
        "dma-buf",
    ),
    Case("nvidia.gpudirect", lambda n: n.call("network", rdma=[]), SKIP, "no RDMA"),
    Case("nvidia.gdrcopy", lambda n: n.remove("sys/module/gdrdrv"), WARN, "2.4.1, not loaded"),
    Case("nvidia.gdrcopy", lambda n: n.remove("sys/module/gdrdrv").command(GDRCOPY, "", 1), SKIP, "not installed"),
    # the kernel log
    Case(
        "nvidia.xid",
        lambda n: n.log(xid(48, "An uncorrectable double bit error (DBE) has been detected")),
        FAIL,
        "0000:19:00 48 (double-bit ECC error) × 1",
    ),
    Case("nvidia.xid", lambda n: n.log(xid(119), xid(119)), FAIL, "× 2"),
    Case("nvidia.xid", lambda n: n.log(xid(54)), FAIL, "54: isolate"),
    Case("nvidia.xid", lambda n: n.log(xid(94, "Contained: SM (0x1)")), WARN, "contained memory error"),
    Case("nvidia.xid", lambda n: n.log(xid(999)), WARN, "not in the table"),
    Case("nvidia.xid", lambda n: n.log(xid(13), xid(31)), PASS, "13 (graphics engine exception)"),
    Case("nvidia.xid", lambda n: n.log(xid(48), age=90_000), PASS, "0 in 24.0 h"),
    Case("nvidia.xid", lambda n: n.refuse(Call("kernel_log")), UNKNOWN, "permission"),
    Case(
        "nvidia.sxid",
        lambda n: n.log(
            "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 24007, Fatal, Link 44 sourcetrack timeout error (First)"
        ),
        FAIL,
        "nvswitch3 24007 × 1",
    ),
    Case(
        "nvidia.sxid",
        lambda n: n.log("nvidia-nvswitch0: SXid (PCI:0000:06:00.0): 20009, Non-fatal, Link 04 RX Short Error Rate"),
        WARN,
        "nvswitch0 20009",
    ),
    Case("nvidia.lost", lambda n: n.log(xid(79, "GPU has fallen off the bus.")), FAIL, "fallen off the bus"),
    Case(
        "nvidia.lost",
        lambda n: n.log("NVRM: GPU 0000:19:00.0: RmInitAdapter failed! (0x62:0xffff:2352)"),
        FAIL,
        "RmInitAdapter",
    ),
    # through nvidia-smi
    Case(
        "nvidia.ecc_uncorrected",
        smi(("<dram_uncorrectable>0<", "<dram_uncorrectable>4<")),
        FAIL,
        f"{CARD} SRAM 0, DRAM 4",
    ),
    Case(
        "nvidia.repair",
        smi(("<remapped_row_pending>No<", "<remapped_row_pending>Yes<")),
        FAIL,
        f"{CARD} rows 0, pending",
    ),
    Case("nvidia.recovery", smi(("<reset_required>No<", "<reset_required>Yes<")), FAIL, f"{CARD} Reset"),
    Case(
        "nvidia.recovery",
        smi(("<gsp_firm", "<gpu_recovery_action>Reboot</gpu_recovery_action>\n\t\t<gsp_firm")),
        FAIL,
        f"{CARD} Reboot",
    ),
    Case("nvidia.power", smi(("<current_power_limit>700.00 W", "<current_power_limit>650.00 W")), WARN, "650/700 W"),
    Case("nvidia.throttle", smi(("hw_slowdown>Not Active", "hw_slowdown>Active")), FAIL, f"{CARD} hw_slowdown"),
    Case("nvidia.heat", smi(("<gpu_temp_tlimit>56 C", "<gpu_temp_tlimit>-2 C")), FAIL, CARD),
    Case("nvidia.fabric", smi(("<state>Completed", "<state>In Progress")), FAIL, f"{CARD} In Progress"),
    Case(
        "nvidia.inforom",
        lambda n: no_nvml(n).command(
            SMI, (n.root / SMI_OUT).read_text() + f"WARNING: infoROM is corrupted at gpu {CARD}\n", 14
        ),
        FAIL,
        f"{CARD} G520.0200.00.05, corrupt",
    ),
    Case(
        "nvidia.nvlink",
        lambda n: no_nvml(n).replace(
            f"commands/{slug(NVLINK_STATUS)}/stdout", "Link 17: 26.562 GB/s", "Link 17: <inactive>"
        ),
        FAIL,
        "down: 17",
    ),
    Case(
        "nvidia.nvlink_errors",
        lambda n: no_nvml(n).replace(
            f"commands/{slug(NVLINK_ERRORS)}/stdout", "Link 3: Replay Errors: 0", "Link 3: Replay Errors: 8"
        ),
        WARN,
        f"{CARD} link 3: 8 replays",
    ),
    Case("nvidia.nvlink", lambda n: no_nvml(n).command(NVLINK_STATUS, "GPU 0: NV"), UNKNOWN, "parse"),
    Case("nvidia.nvlink", lambda n: no_nvml(n).command(NVLINK_STATUS, "", 1, "went wrong"), UNKNOWN, "1: went wrong"),
    Case("nvidia.nvlink", links(CARD, lambda found: found[3].update(speed=None)), UNKNOWN, "missing_source"),
    Case(
        "nvidia.nvlink_growth",
        links(CARD, lambda found: found[5].update(later=[2, 0, 0])),
        FAIL,
        f"{CARD} link 5: +2 replays +0 recoveries",
    ),
    Case("nvidia.nvlink_growth", links(CARD, lambda found: found[5].update(later=[0, 1, 0])), FAIL, "+1 recoveries"),
    Case("nvidia.nvlink_growth", links(CARD, lambda found: found[5].update(later=[0, 0, 900])), FAIL, "+900 CRC"),
    Case("nvidia.nvlink_growth", links(CARD, lambda found: found[5].update(later=[0, 0, 9])), PASS, "144 links"),
    Case("nvidia.nvlink_growth", links(CARD, lambda found: found[5].update(later=None)), UNKNOWN, "link 5"),
    Case("nvidia.nvlink_growth", lambda n: n.call("nvml", looked=0), UNKNOWN, "read but once"),
    Case("nvidia.nvlink_growth", all_cards(links=[]), SKIP, "absent"),
    Case("nvidia.nvlink_growth", no_nvml, UNKNOWN, "missing_tool"),
    Case(
        "nvidia.nvlink_growth",
        links(CARD, lambda found: found[5].update(later=[None, 3, None])),
        FAIL,
        "link 5: +3 recoveries",
        node="b200",
    ),
    Case(
        "nvidia.nvlink_bit_errors",
        links(CARD, lambda found: found[2].update(effective_ber=4e-13)),
        WARN,
        f"{CARD} 4e-13",
        node="b200",
    ),
    Case(
        "nvidia.nvlink_bit_errors",
        links(CARD, lambda found: found[2].update(symbol_ber=2e-15)),
        WARN,
        f"{CARD} 2e-15",
        node="b200",
    ),
    Case(
        "nvidia.nvlink_bit_errors",
        links(CARD, lambda found: found[2].update(effective_ber=None, symbol_ber=None)),
        UNKNOWN,
        CARD,
        node="b200",
    ),
    Case("nvidia.nvlink_bit_errors", lambda n: n, SKIP, "unsupported"),
    Case("nvidia.ecc_mode", smi(("</nvidia_smi_log>", "")), UNKNOWN, "parse"),
    Case("nvidia.ecc_mode", smi(("<attached_gpus>8<", "<attached_gpus>9<")), UNKNOWN, "9 GPUs are attached"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.check}-{c.status.value}-{c.says[:20]}")
def test_a_planted_fault_is_found(case: Case, tmp_path: Path) -> None:
    planted = Planted(tmp_path / "node", case.node)
    case.plant(planted)
    facts = planted.facts()
    verdict = judged(facts, case.check)
    assert verdict.status is case.status, verdict
    said = [verdict.observed, verdict.reason_code, verdict.detail.en if verdict.detail else ""]
    assert any(case.says in text for text in said), said
    if verdict.status in (FAIL, WARN):
        assert verdict.evidence
        assert verdict.action is CHECKS[case.check].info.action
        found = {v.check for v in check_facts([facts], NODE_ITEMS) if v.status in (FAIL, WARN)}
        assert found == {case.check} | case.also, "by exactly the items that should find it"
    else:
        assert verdict.reason_code or verdict.status is PASS


def test_every_item_has_a_planted_fault() -> None:
    assert {c.check for c in CASES if c.status in (FAIL, WARN)} == {
        id for id in NODE_ITEMS if CHECKS[id].info.scope == SCOPE
    }
    assert len({c.says for c in CASES if c.status in (FAIL, WARN)}) >= 25


def statuses(facts: Facts) -> dict[str, tuple[Status, str]]:
    return {v.check: (v.status, v.reason_code) for v in check_facts([facts], ITEMS)}


NO_NVML: dict[str, Callable[[Planted], object]] = {
    "no nvidia-ml-py": no_nvml,
    "no libnvidia-ml": lambda n: n.call("nvml", cards=[], error="NVML Shared Library Not Found", code=12),
    "not recorded": lambda n: n.remove("calls/nvml.json"),
    "it breaks": lambda n: n.refuse(NVML, "error", "the reading process died"),
}


@pytest.mark.parametrize("plant", NO_NVML.values(), ids=NO_NVML)
def test_nvidia_smi_gives_the_verdicts_that_nvml_gives(
    plant: Callable[[Planted], object], planted: Planted, good_facts: Facts
) -> None:
    wanted = statuses(good_facts)
    assert set(wanted.values()) == {(PASS, "")}
    plant(planted)
    # A growth needs two readings, and nvidia-smi is asked but once.
    assert statuses(planted.facts()) == wanted | {"nvidia.nvlink_growth": (UNKNOWN, "missing_tool")}


def test_nvidia_smi_gives_the_values_that_nvml_gives(planted: Planted, good_facts: Facts) -> None:
    values = {c: CHECKS[c].value(FactView(good_facts)) for c in SAME}  # type: ignore[union-attr]
    assert {c: CHECKS[c].value(FactView(no_nvml(planted).facts())) for c in SAME} == values  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "down",
    [
        lambda n: n.call("nvml", driver="", cuda="", cards=[], error="Driver Not Loaded", code=9),
        lambda n: no_nvml(n).command(SMI, "NVIDIA-SMI has failed\n", 9),
    ],
    ids=["nvml", "nvidia-smi"],
)
def test_a_driver_that_is_down_fails_one_item_and_is_the_cause_of_the_others(
    down: Callable[[Planted], object], planted: Planted
) -> None:
    down(planted)
    found = statuses(planted.facts())
    assert [c for c, (status, _) in found.items() if status is FAIL] == ["nvidia.driver"]
    asking = {c for c in ITEMS if set(CARDS) <= set(CHECKS[c].reads)} - {"nvidia.driver"}
    assert {found[c] for c in asking} == {(UNKNOWN, "cause")}


def test_a_card_that_is_missing_fails_one_item_and_the_others_do_not_pass(planted: Planted) -> None:
    found = statuses(without(OTHER)(planted).facts())
    assert [c for c, (status, _) in found.items() if status is FAIL] == ["nvidia.count"]
    passing = {c for c, (status, _) in found.items() if status is PASS}
    asking = {c for c in ITEMS if set(CARDS) <= set(CHECKS[c].reads)}
    assert passing & asking == {"nvidia.driver", "nvidia.fabric_services"}


@pytest.fixture(scope="module")
def through_smi(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return no_nvml(Planted(tmp_path_factory.mktemp("nvidia") / "node")).facts()


CUT = {NVML.key: set(CARDS), SMI.key: set(CARDS)} | {s.key: {s} for s in (NVLINK_STATUS, NVLINK_ERRORS, HEALTH)}


@settings(max_examples=60, deadline=None)
@given(key=st.sampled_from(sorted(CUT)), keep=st.floats(0, 0.9999))
def test_a_text_cut_short_is_never_a_pass(key: str, keep: float, good_facts: Facts, through_smi: Facts) -> None:
    facts = good_facts if key == NVML.key else through_smi
    text = facts.readings[key].text.rstrip()
    cut = msgspec.structs.replace(facts.readings[key], text=text[: int(len(text) * keep)])
    found = statuses(msgspec.structs.replace(facts, readings=facts.readings | {key: cut}))
    reading = {c for c in ITEMS if CUT[key] <= set(CHECKS[c].reads)}
    passing = {c for c in reading if found[c][0] is PASS}
    # The errors of the links are a text of their own: their speeds may be known without it.
    assert passing <= ({"nvidia.nvlink"} if key == NVLINK_ERRORS.key else set())


@pytest.mark.parametrize("without", [lambda n: n, lambda n: no_nvml(n).refuse(SMI, "missing", "No such file")])
def test_no_nvidia_card_no_item(without: Callable[[Planted], Planted], planted: Planted) -> None:
    """Whether or not there is a driver, or a tool, that could be asked."""
    facts = without(planted).call("pci", devices=[]).facts()
    assert {(v.status, v.reason_code) for v in check_facts([facts], ITEMS)} == {(SKIP, "absent")}


def test_cards_given_to_virtual_machines_are_not_this_hosts(planted: Planted) -> None:
    planted.rows("pci", "devices", {"model": "10de:2330"}, driver="vfio-pci")
    found = check_facts([planted.facts()], ITEMS)
    assert {(v.status, v.reason_code) for v in found} == {(SKIP, "absent")}


def test_the_table_of_xids_holds_what_it_must() -> None:
    actions = {code: (xid.kind, xid.action) for code, xid in XIDS.items()}
    assert actions[54] == ("fatal", Action.ISOLATE)
    assert {actions[c] for c in (151, 168)} == {("fatal", Action.REBOOT)}
    assert {actions[c] for c in (48, 64, 95, 109, 110, 119, 120)} == {("fatal", Action.RESET)}
    assert {actions[c][1] for c in (13, 31, 43, 63, 94)} == {Action.MONITOR}
    assert 79 not in actions, "it is nvidia.lost"


# ------------------------------------------------------------------------------------------- consistency, configurable

CHANGES: dict[str, Callable[[Planted], object]] = {
    "same.nvidia.driver": lambda n: n.call("nvml", driver="550.90.07"),
    "same.nvidia.model": all_cards(name="NVIDIA H200", memory_total=150_754_820_096),
    "same.nvidia.vbios": card(vbios="96.00.74.00.01"),
    "same.nvidia.gsp": all_cards(gsp="550.90.07"),
    "same.nvidia.ecc": card(ecc=False, ecc_pending=False),
    "same.nvidia.mig": card(mig=True, mig_pending=True),
    "same.nvidia.power_limit": all_cards(power_limit=650.0),
    "same.nvidia.persistence": all_cards(persistence=False),
    "same.nvidia.clocks": card(max_sm_clock=1755.0),
    "same.nvidia.nvlink": links(CARD, lambda found: found[7].update(up=False, speed=None)),
    "same.nvidia.fabric": all_cards(fabric=fabric(cluster=DOMAIN, clique=7)),
    "same.nvidia.gpudirect": lambda n: n.remove("sys/module/nvidia_peermem"),
}


@pytest.mark.parametrize("check", SAME)
def test_a_difference_from_the_baseline_fails(check: str, planted: Planted, good_facts: Facts) -> None:
    CHANGES[check](planted.rename("node2"))
    same = msgspec.structs.replace(good_facts, node="node3")
    verdicts = check_facts([good_facts, planted.facts(), same], [check], baseline="node1")
    assert {n: v.status for v in verdicts for n in v.nodes} == {"node1": PASS, "node2": FAIL, "node3": PASS}


def test_every_consistency_item_has_a_change() -> None:
    assert set(CHANGES) == set(SAME)


# On the good node: what holds, and what does not.
DEMANDS: dict[str, tuple[str, str]] = {
    "nvidia.temperature": ("{ max = 60 }", "{ max = 34 }"),
    "nvidia.memory_temperature": ("{ max = 60 }", "{ max = 45 }"),
    "nvidia.power_limit": ("{ equals = 700 }", "{ max = 650 }"),
    "nvidia.max_clock": ("{ min = 1980 }", "{ equals = 1755 }"),
    "nvidia.application_clock": ("{ min = 1980 }", "{ equals = 1755 }"),
    "nvidia.nvlinks": ("{ equals = 18 }", "{ equals = 12 }"),
    "nvidia.nvlink_crc_errors": ("{ max = 100 }", "{ equals = 0 }"),
    "nvidia.nvlink_ber": ("{ max = 1e-15 }", "{ max = 1e-300 }"),
    "nvidia.memory": ("{ min = '79 GiB' }", "{ min = '100 GiB' }"),
    "nvidia.memory_used": ("{ max = '1 GiB' }", "{ max = '0 B' }"),
    "nvidia.ecc_corrected_total": ("{ max = 100 }", "{ equals = 0 }"),
    "nvidia.ecc_uncorrected_total": ("{ equals = 0 }", "{ min = 1 }"),
    "nvidia.rows_remapped": ("{ max = 8 }", "{ min = 1 }"),
    "nvidia.replay_count": ("{ max = 8 }", "{ min = 1 }"),
    "nvidia.driver_version": ("{ pattern = '550\\..*' }", "{ pattern = '570\\..*' }"),
}


@pytest.mark.parametrize("check", YOURS, ids=lambda c: c.info.id)
def test_a_criterion_is_put_to_each_card(
    check: ConfigurableCheck, planted: Planted, good_facts: Facts, tmp_path: Path
) -> None:
    item = check.info.id
    home = home_of(item)
    # What only another card has, only NVML tells.
    ways = [good_facts, no_nvml(planted).facts()] if home == "good" else [Planted(tmp_path / "home", home).facts()]
    values = check.values(FactView(ways[0]))
    assert check.unit == "text" or (isinstance(values, dict) and len(values) == 8 and CARD in values)
    assert check.values(FactView(ways[-1])) == values
    for demand, status in zip(DEMANDS[item], (PASS, FAIL), strict=True):
        written = config.parse_criteria(f"[criteria]\n{item} = {demand}\n", "my.toml", criteria_items())
        for facts in ways:
            (verdict,) = check_facts([facts], [item], criteria=written)
            assert verdict.status is status, verdict


def test_a_demand_is_not_met_by_the_cards_that_are_left(planted: Planted) -> None:
    facts = without(OTHER)(planted).facts()
    for item in ("nvidia.temperature", "nvidia.nvlinks", "nvidia.nvlink_crc_errors"):
        written = config.parse_criteria(f"[criteria]\n{item} = {DEMANDS[item][0]}\n", "my.toml", criteria_items())
        (verdict,) = check_facts([facts], [item], criteria=written)
        assert (verdict.status, verdict.reason_code) == (UNKNOWN, "cause")
