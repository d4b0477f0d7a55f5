"""NVIDIA: the memory of the cards, the flash that describes them, and what the driver wants done about them."""

from __future__ import annotations

from typing import NamedTuple

from cwai_bench.checks import FactView, Outcome
from cwai_bench.checks.nvidia import CARDS, judge_cards, method, nvidia_node_check
from cwai_bench.checks.nvidia_driver import on_off
from cwai_bench.model import Action, Severity
from cwai_bench.sources import EccCounts, SteadyCard
from cwai_bench.text import Text


def ecc_mode(card: SteadyCard) -> tuple[bool, bool] | None:
    return None if card.ecc is None or card.ecc_pending is None else (card.ecc, card.ecc_pending)


@nvidia_node_check(
    "nvidia.ecc_mode",
    title=Text("ECC is on", "ECC 已开启"),
    method=method("ecc.mode.current, ecc.mode.pending"),
    criterion=Text("on, and no change pending", "开启，且无待生效的变更"),
    suggestion=Text(
        "nvidia-smi -e 1, then reset the cards or reboot: a change takes effect only then",
        "nvidia-smi -e 1，随后复位 GPU 或重启使其生效",
    ),
    reads=CARDS,
    severity=Severity.MAJOR,
)
def ecc(facts: FactView) -> Outcome:
    return judge_cards(
        facts,
        ecc_mode,
        bad=lambda modes: not all(modes),
        show=lambda modes: on_off(modes[0])
        if modes[0] == modes[1]
        else f"{on_off(modes[0])}, pending {on_off(modes[1])}",
    )


def known(counts: EccCounts) -> EccCounts | None:
    return None if counts == EccCounts() else counts


def uncorrected(counts: EccCounts) -> str:
    return f"SRAM {_or_dash(counts.sram_uncorrected)}, DRAM {_or_dash(counts.dram_uncorrected)}"


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


@nvidia_node_check(
    "nvidia.ecc_uncorrected",
    title=Text("No uncorrectable memory error since the cards were reset", "GPU 自上次复位以来无不可纠正显存错误"),
    method=method("ecc.errors.uncorrected.volatile", "ecc.errors.uncorrected.volatile"),
    criterion=Text("0 in SRAM and DRAM", "SRAM 与 DRAM 均为 0"),
    suggestion=Text(
        "drain the node and reset the card, or reboot; if it comes back, run a field diagnostic and have it replaced",
        "排空节点后复位该卡或重启；若复现，执行现场诊断并更换",
    ),
    reads=CARDS,
    severity=Severity.CRITICAL,
    action=Action.RESET,
)
def ecc_uncorrected(facts: FactView) -> Outcome:
    return judge_cards(
        facts,
        lambda c: known(c.ecc_volatile),
        bad=lambda n: bool(n.sram_uncorrected or n.dram_uncorrected),
        show=uncorrected,
    )


# The limits of azurehpc-health-checks for lifetime counts; it takes a node out at them, we warn. The threshold of the
# driver's own is NVIDIA's criterion for replacement (GPU Memory Error Management, SRAM error threshold).
SRAM_CORRECTED, DRAM_CORRECTED = 10_000, 20_000_000


class _Lifetime(NamedTuple):
    counts: EccCounts
    exceeded: bool

    def __str__(self) -> str:
        n = self.counts
        return (
            f"SRAM {_or_dash(n.sram_corrected)}/{_or_dash(n.sram_uncorrected)}, "
            f"DRAM {_or_dash(n.dram_corrected)}/{_or_dash(n.dram_uncorrected)}"
            + (", threshold" if self.exceeded else "")
        )


@nvidia_node_check(
    "nvidia.ecc_lifetime",
    title=Text("Few memory errors over the life of the cards", "GPU 累计显存错误较少"),
    method=method(
        "ecc.errors.*.aggregate (corrected/uncorrected), sram_threshold_exceeded",
        "ecc.errors.*.aggregate（可纠正/不可纠正）、sram_threshold_exceeded",
    ),
    criterion=Text(
        "the driver's SRAM threshold is not exceeded; a warning: any uncorrectable SRAM error, more than {s} corrected"
        " in SRAM or {d} in DRAM",
        "未超过驱动的 SRAM 阈值；以下情况告警：存在 SRAM 不可纠正错误，或可纠正错误超过 SRAM {s} 次、DRAM {d} 次",
    ).fill(s=SRAM_CORRECTED, d=DRAM_CORRECTED),
    suggestion=Text(
        "run a field diagnostic on the drained node; past the threshold, ask for a replacement",
        "排空节点后执行现场诊断；超过阈值则申请更换",
    ),
    reads=CARDS,
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
)
def ecc_lifetime(facts: FactView) -> Outcome:
    return judge_cards(
        facts,
        lambda c: None
        if known(c.ecc_aggregate) is None
        else _Lifetime(c.ecc_aggregate, bool(c.sram_threshold_exceeded)),
        bad=lambda life: life.exceeded,
        mild=lambda life: (
            (life.counts.sram_uncorrected or 0) > 0
            or (life.counts.sram_corrected or 0) > SRAM_CORRECTED
            or (life.counts.dram_corrected or 0) > DRAM_CORRECTED
        ),
    )


# GPU Memory Error Management: a bank has eight spare rows, a card 512 in all. Dynamic page retirement: a card is
# replaced at 60 retired pages; Meta's gcm takes it out at 10.
REMAPPED_MANY, RETIRED_MANY = 512, 10


class _Repair(NamedTuple):
    """Rows remapped (Ampere and newer) or pages retired (before)."""

    kind: str
    used: int
    pending: bool
    failed: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.used}" + (", pending" if self.pending else "") + (", failed" if self.failed else "")


def _repair(card: SteadyCard) -> _Repair | None:
    if card.remap_pending is not None and card.remap_failed is not None:
        return _Repair("rows", card.remapped_uncorrected or 0, card.remap_pending, card.remap_failed)
    if card.retired_pages is not None:
        return _Repair("pages", card.retired_pages, bool(card.retirement_pending), False)
    return None


@nvidia_node_check(
    "nvidia.repair",
    title=Text("Faulty memory has been replaced by spare rows", "故障显存行已被替换"),
    method=method(
        "remapped_rows.*; retired_pages.* of cards before Ampere", "remapped_rows.*；Ampere 之前的卡为 retired_pages.*"
    ),
    criterion=Text(
        "no repair pending, none failed; {r} rows or {p} pages taken out of use are a warning",
        "无待生效的修复，无失败的修复；被停用达 {r} 行或 {p} 页则告警",
    ).fill(r=REMAPPED_MANY, p=RETIRED_MANY),
    suggestion=Text(
        "pending: drain the node and reset the card; failed: the card has no spare left, have it replaced",
        "pending：排空节点后复位该卡；failed：备用行已用尽，需更换该卡",
    ),
    reads=CARDS,
    severity=Severity.CRITICAL,
    action=Action.RESET,
)
def repair(facts: FactView) -> Outcome:
    return judge_cards(
        facts,
        _repair,
        bad=lambda r: r.pending or r.failed,
        mild=lambda r: r.used >= (RETIRED_MANY if r.kind == "pages" else REMAPPED_MANY),
    )


class _Inforom(NamedTuple):
    version: str
    corrupt: bool

    def __str__(self) -> str:
        return f"{self.version}, corrupt" if self.corrupt else self.version


@nvidia_node_check(
    "nvidia.inforom",
    title=Text("The InfoROM of the cards is sound", "GPU InfoROM 完好"),
    method=method(
        "nvmlDeviceValidateInforom, inforom.img; nvidia-smi warns of a corrupt one",
        "nvmlDeviceValidateInforom、inforom.img；nvidia-smi 会提示损坏",
    ),
    criterion=Text("it can be read and its checksums hold", "可读取且校验和正确"),
    suggestion=Text(
        "power-cycle the node once; if it stays, the vendor has to flash the InfoROM or replace the card",
        "先将节点断电重启一次；若仍存在，需由厂商重刷 InfoROM 或更换该卡",
    ),
    reads=CARDS,
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
)
def inforom(facts: FactView) -> Outcome:
    return judge_cards(
        facts,
        lambda c: None
        if c.inforom is None and not c.inforom_corrupt
        else _Inforom(c.inforom or "-", bool(c.inforom_corrupt)),
        bad=lambda rom: rom.corrupt,
    )


@nvidia_node_check(
    "nvidia.recovery",
    title=Text("The driver asks for no recovery", "驱动未要求恢复操作"),
    method=method(
        "gpu_recovery_action; before driver 560 gpu_reset_status",
        "gpu_recovery_action；560 之前的驱动为 gpu_reset_status",
    ),
    criterion=Text("None", "None"),
    suggestion=Text(
        "do what it says once the node is drained: reset the card (nvidia-smi -r -i CARD), or reboot",
        "排空节点后按提示操作：复位该卡（nvidia-smi -r -i 卡号）或重启",
    ),
    reads=CARDS,
    severity=Severity.CRITICAL,
    action=Action.RESET,
)
def recovery(facts: FactView) -> Outcome:
    return judge_cards(facts, lambda c: c.recovery, bad=lambda told: told != "None")
