"""NVIDIA: what the cards of all nodes should have in common, and what a person may demand of them."""

from __future__ import annotations

from functools import partial

from cwai_bench.checks import DoesNotApply, FactView
from cwai_bench.checks.nvidia import (
    CARDS,
    alike,
    answer,
    by_card,
    cards,
    cards_now,
    installed,
    linked,
    method,
    nvidia_same,
    nvidia_yours,
    tally,
    temperatures,
    uses,
)
from cwai_bench.checks.nvidia_driver import mig_mode, on_off
from cwai_bench.checks.nvidia_fabric import LINKS, RDMA_PATH, nvlinks, rdma_path
from cwai_bench.checks.nvidia_memory import ecc_mode
from cwai_bench.model import Severity
from cwai_bench.sources import SteadyCard
from cwai_bench.text import Text

FLASH = Text("flash the same firmware on all cards with the vendor's package", "使用厂商固件包统一刷写")
REINSTALL = Text("install the same driver package on all nodes", "为所有节点安装相同的驱动包")


@nvidia_same(
    "same.nvidia.driver",
    title=Text("NVIDIA driver and CUDA version", "NVIDIA 驱动与 CUDA 版本"),
    method=method("driver_version, cuda_version"),
    suggestion=REINSTALL,
    reads=CARDS,
    severity=Severity.MAJOR,
)
def driver(facts: FactView) -> str:
    installed(facts)
    told = answer(facts)
    return f"{told.driver}, CUDA {told.cuda or '-'}"


@nvidia_same(
    "same.nvidia.model",
    title=Text("Model and memory of the cards", "GPU 型号与显存"),
    method=method("name, memory.total"),
    suggestion=Text("do not mix models in one job", "同一作业不要混用不同型号"),
    reads=CARDS,
    severity=Severity.CRITICAL,
)
def model(facts: FactView) -> str:
    return alike(
        facts, lambda c: f"{c.name} {'-' if c.memory_total is None else f'{c.memory_total / (1 << 30):.0f} GiB'}"
    )


@nvidia_same(
    "same.nvidia.vbios",
    title=Text("VBIOS of the cards", "GPU VBIOS 版本"),
    method=method("vbios_version"),
    suggestion=FLASH,
    reads=CARDS,
    severity=Severity.MINOR,
)
def vbios(facts: FactView) -> str:
    return alike(facts, lambda c: c.vbios)


@nvidia_same(
    "same.nvidia.gsp",
    title=Text("GSP firmware", "GSP 固件版本"),
    method=method("gsp_firmware_version"),
    suggestion=REINSTALL,
    reads=CARDS,
    severity=Severity.MINOR,
)
def gsp(facts: FactView) -> str:
    return alike(facts, lambda c: c.gsp)


@nvidia_same(
    "same.nvidia.ecc",
    title=Text("ECC mode", "ECC 模式"),
    method=method("ecc.mode.current, ecc.mode.pending"),
    suggestion=Text("see nvidia.ecc_mode", "见 nvidia.ecc_mode"),
    reads=CARDS,
    severity=Severity.MAJOR,
)
def ecc(facts: FactView) -> str:
    return alike(facts, ecc_mode, lambda modes: "/".join(map(on_off, modes)))


@nvidia_same(
    "same.nvidia.mig",
    title=Text("MIG mode", "MIG 模式"),
    method=method("mig.mode.current, mig.mode.pending"),
    suggestion=Text("see nvidia.mig", "见 nvidia.mig"),
    reads=CARDS,
    severity=Severity.MAJOR,
)
def mig(facts: FactView) -> str:
    return alike(facts, mig_mode, lambda modes: "/".join(map(on_off, modes)))


@nvidia_same(
    "same.nvidia.power_limit",
    title=Text("Power limit of the cards", "GPU 功耗上限"),
    method=method("enforced.power.limit"),
    suggestion=Text("nvidia-smi -pl WATTS, the same on all nodes", "统一执行 nvidia-smi -pl 功率"),
    reads=CARDS,
    severity=Severity.MAJOR,
)
def power_limit(facts: FactView) -> str:
    return alike(facts, lambda c: c.power_limit, lambda watts: f"{watts:.0f} W")


@nvidia_same(
    "same.nvidia.persistence",
    title=Text("Persistence mode", "Persistence 模式"),
    method=method("persistence_mode"),
    suggestion=Text("see nvidia.persistence", "见 nvidia.persistence"),
    reads=CARDS,
    severity=Severity.MINOR,
)
def persistence(facts: FactView) -> str:
    return alike(facts, lambda c: c.persistence, on_off)


@nvidia_same(
    "same.nvidia.clocks",
    title=Text("Clocks of the cards", "GPU 频率"),
    method=method("clocks.max.sm, clocks.max.memory, clocks.applications.graphics"),
    suggestion=Text("nvidia-smi -rac, nvidia-smi -rgc on all nodes", "统一执行 nvidia-smi -rac 与 nvidia-smi -rgc"),
    reads=CARDS,
    severity=Severity.MINOR,
)
def clocks(facts: FactView) -> str:
    return alike(
        facts,
        lambda c: None
        if c.max_sm_clock is None or c.max_memory_clock is None
        else (c.max_sm_clock, c.max_memory_clock, c.application_clock),
        lambda mhz: "/".join("-" if m is None else f"{m:g}" for m in mhz) + " MHz",
    )


@nvidia_same(
    "same.nvidia.nvlink",
    title=Text("NVLinks of the cards", "GPU 的 NVLink"),
    method=method("NVLink state and speed (nvidia-smi nvlink -s)", "NVLink 状态与速率（nvidia-smi nvlink -s）"),
    suggestion=Text("see nvidia.nvlink", "见 nvidia.nvlink"),
    reads=LINKS,
    severity=Severity.MAJOR,
)
def nvlink(facts: FactView) -> str:
    found = [str(links) for links in map(nvlinks, linked(facts)) if links is not None]
    if not found:
        raise DoesNotApply(Text("these cards have no NVLink", "这些卡没有 NVLink"))
    return tally(sorted(found))


@nvidia_same(
    "same.nvidia.fabric",
    title=Text("NVLink domain of the cards", "GPU 所在的 NVLink 域"),
    method=method("fabric.clusterUuid, fabric.cliqueId"),
    suggestion=Text(
        "nodes of one NVLink domain name the same one: restart the fabric's manager, then nvidia-imex",
        "同一 NVLink 域的节点应给出相同标识：重启 fabric 管理服务，再重启 nvidia-imex",
    ),
    reads=CARDS,
    severity=Severity.MAJOR,
)
def fabric(facts: FactView) -> str:
    return alike(facts, lambda c: None if c.fabric is None else f"{c.fabric.cluster or '-'} clique {c.fabric.clique}")


@nvidia_same(
    "same.nvidia.gpudirect",
    title=Text("Path of GPUDirect RDMA", "GPUDirect RDMA 路径"),
    method=Text(
        "/sys/module/nvidia_peermem/initstate; else dma-buf", "/sys/module/nvidia_peermem/initstate；否则为 dma-buf"
    ),
    suggestion=Text("see nvidia.gpudirect", "见 nvidia.gpudirect"),
    reads=RDMA_PATH,
    severity=Severity.MAJOR,
)
def gpudirect(facts: FactView) -> str:
    return rdma_path(facts) or "-"


# --------------------------------------------------------------------------------------------------- what you demand


@nvidia_yours(
    "nvidia.temperature",
    title=Text("Temperature of each card, °C", "各 GPU 温度（°C）"),
    method=method("temperature.gpu"),
    suggestion=Text("check fans, air flow and inlet temperature", "检查风扇、风道与进风温度"),
    reads=CARDS,
    unit="1",
)
def temperature(facts: FactView) -> dict[str, float]:
    return by_card(facts, lambda c: c.temperature, partial(cards_now, of=temperatures))


@nvidia_yours(
    "nvidia.memory_temperature",
    title=Text("Temperature of each card's memory, °C", "各 GPU 显存温度（°C）"),
    method=method("temperature.memory"),
    suggestion=Text("check fans, air flow and inlet temperature", "检查风扇、风道与进风温度"),
    reads=CARDS,
    unit="1",
)
def memory_temperature(facts: FactView) -> dict[str, float]:
    return by_card(facts, lambda c: c.memory_temperature, partial(cards_now, of=temperatures))


@nvidia_yours(
    "nvidia.power_limit",
    title=Text("Power limit of each card, W", "各 GPU 功耗上限（W）"),
    method=method("enforced.power.limit"),
    suggestion=Text("nvidia-smi -pl WATTS", "nvidia-smi -pl 功率"),
    reads=CARDS,
    unit="1",
)
def your_power_limit(facts: FactView) -> dict[str, float]:
    return by_card(facts, lambda c: c.power_limit, cards)


@nvidia_yours(
    "nvidia.max_clock",
    title=Text("Highest SM clock of each card, MHz", "各 GPU 最高 SM 频率（MHz）"),
    method=method("clocks.max.sm"),
    suggestion=Text("another model or a locked clock: nvidia-smi -rgc", "型号不同或频率被锁定：nvidia-smi -rgc"),
    reads=CARDS,
    unit="1",
)
def max_clock(facts: FactView) -> dict[str, float]:
    return by_card(facts, lambda c: c.max_sm_clock, cards)


@nvidia_yours(
    "nvidia.application_clock",
    title=Text("Application clock of each card, MHz", "各 GPU 应用频率（MHz）"),
    method=method("clocks.applications.graphics"),
    suggestion=Text("nvidia-smi -ac MEMORY,GRAPHICS", "nvidia-smi -ac 显存频率,核心频率"),
    reads=CARDS,
    unit="1",
)
def application_clock(facts: FactView) -> dict[str, float]:
    return by_card(facts, lambda c: c.application_clock, cards)


@nvidia_yours(
    "nvidia.nvlinks",
    title=Text("NVLinks up on each card", "各 GPU 在线 NVLink 数"),
    method=method("NVLink state (nvidia-smi nvlink -s)", "NVLink 状态（nvidia-smi nvlink -s）"),
    suggestion=Text("see nvidia.nvlink", "见 nvidia.nvlink"),
    reads=LINKS,
    unit="1",
)
def nvlink_count(facts: FactView) -> dict[str, float]:
    return by_card(facts, lambda c: None if c.links is None else sum(link.up for link in c.links), linked)


@nvidia_yours(
    "nvidia.nvlink_crc_errors",
    title=Text("CRC errors of each card's NVLinks", "各 GPU NVLink CRC 错误数"),
    method=method("NVLink error counters (nvidia-smi nvlink -e)", "NVLink 错误计数（nvidia-smi nvlink -e）"),
    suggestion=Text("see nvidia.nvlink_errors", "见 nvidia.nvlink_errors"),
    reads=LINKS,
    unit="1",
)
def nvlink_crc_errors(facts: FactView) -> dict[str, float]:
    def crc_errors(card: SteadyCard) -> int | None:
        return _sum(*(link.crc_errors for link in card.links or ()))

    return by_card(facts, crc_errors, linked)


@nvidia_yours(
    "nvidia.memory",
    title=Text("Memory of each card", "各 GPU 显存容量"),
    method=method("memory.total"),
    suggestion=Text("another model than was asked for, or MIG is on", "型号与要求不符，或开启了 MIG"),
    reads=CARDS,
    unit="B",
)
def memory(facts: FactView) -> dict[str, float]:
    return by_card(facts, lambda c: c.memory_total, cards)


@nvidia_yours(
    "nvidia.memory_used",
    title=Text("Memory in use on each card", "各 GPU 已用显存"),
    method=method("memory.used"),
    suggestion=Text("see nvidia.processes and nvidia.leftover_memory", "见 nvidia.processes 与 nvidia.leftover_memory"),
    reads=CARDS,
    unit="B",
)
def memory_used(facts: FactView) -> dict[str, float]:
    return by_card(facts, lambda c: c.memory_used, partial(cards_now, of=uses))


@nvidia_yours(
    "nvidia.ecc_corrected_total",
    title=Text("Corrected memory errors over each card's life", "各 GPU 累计可纠正显存错误"),
    method=method("ecc.errors.corrected.aggregate: SRAM and DRAM", "ecc.errors.corrected.aggregate：SRAM 与 DRAM"),
    suggestion=Text("run a field diagnostic; see nvidia.ecc_lifetime", "执行现场诊断，见 nvidia.ecc_lifetime"),
    reads=CARDS,
    unit="1",
)
def ecc_corrected_total(facts: FactView) -> dict[str, float]:
    return by_card(facts, lambda c: _sum(c.ecc_aggregate.sram_corrected, c.ecc_aggregate.dram_corrected), cards)


@nvidia_yours(
    "nvidia.ecc_uncorrected_total",
    title=Text("Uncorrectable memory errors over each card's life", "各 GPU 累计不可纠正显存错误"),
    method=method("ecc.errors.uncorrected.aggregate: SRAM and DRAM", "ecc.errors.uncorrected.aggregate：SRAM 与 DRAM"),
    suggestion=Text("run a field diagnostic; see nvidia.ecc_lifetime", "执行现场诊断，见 nvidia.ecc_lifetime"),
    reads=CARDS,
    unit="1",
)
def ecc_uncorrected_total(facts: FactView) -> dict[str, float]:
    return by_card(facts, lambda c: _sum(c.ecc_aggregate.sram_uncorrected, c.ecc_aggregate.dram_uncorrected), cards)


def _sum(*numbers: int | None) -> int | None:
    known = [n for n in numbers if n is not None]
    return sum(known) if known else None


@nvidia_yours(
    "nvidia.rows_remapped",
    title=Text("Rows or pages of memory taken out of use", "各 GPU 被停用的显存行（页）数"),
    method=method("remapped_rows.*, retired_pages.*", "remapped_rows.*、retired_pages.*"),
    suggestion=Text("run a field diagnostic; see nvidia.repair", "执行现场诊断，见 nvidia.repair"),
    reads=CARDS,
    unit="1",
)
def rows_remapped(facts: FactView) -> dict[str, float]:
    return by_card(
        facts,
        lambda c: c.retired_pages
        if c.remapped_uncorrected is None
        else c.remapped_uncorrected + (c.remapped_corrected or 0),
        cards,
    )


@nvidia_yours(
    "nvidia.replay_count",
    title=Text("PCIe replays of each card", "各 GPU PCIe 重传次数"),
    method=method("pcie.replay_counter"),
    suggestion=Text("see nvidia.pcie_replays", "见 nvidia.pcie_replays"),
    reads=CARDS,
    unit="1",
)
def replay_count(facts: FactView) -> dict[str, float]:
    return by_card(facts, lambda c: c.pcie_replays, cards)


@nvidia_yours(
    "nvidia.driver_version",
    title=Text("Version of the NVIDIA driver", "NVIDIA 驱动版本"),
    method=method("driver_version"),
    suggestion=Text("install the driver that was asked for", "安装所要求的驱动版本"),
    reads=CARDS,
    unit="text",
)
def driver_version(facts: FactView) -> str:
    installed(facts)
    return answer(facts).driver
