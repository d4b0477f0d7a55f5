"""NVIDIA: what the driver wrote into the kernel log: Xid (cards), SXid (switches), cards that went away."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Literal, NamedTuple

from cwai_bench.checks import FactView, Outcome, failed, passed, warned
from cwai_bench.checks.kernel_log import LOG, WINDOW, recent
from cwai_bench.checks.nvidia import HERE, installed, nvidia_node_check
from cwai_bench.model import Action, Severity
from cwai_bench.text import Text

NEEDS = ("permission to read the kernel log",)


class Xid(NamedTuple):
    """``kind``: ``fatal`` (FAIL), ``watch`` (WARN), ``program`` (a program's fault, most often: told, not judged)."""

    kind: Literal["fatal", "watch", "program"]
    action: Action
    what: str


# NVIDIA GPU Deployment and Management, "Analyzing Xid Errors with the Xid Catalog" (2025-10), for Ampere and newer: its
# immediate action, where RESTART_APP is a program's fault and IGNORE or CONTACT_SUPPORT is to be watched; 61 and 65
# as of the older "Xid Errors". awslabs/awsome-distributed-training gives classes to some (54 isolate; 79, 151, 168
# reboot; 48, 64, 95, 109, 110, 119, 120 reset; 13, 31, 43, 63, 94 monitor), and they agree.
XIDS: dict[int, Xid] = {
    8: Xid("program", Action.MONITOR, "GPU stopped processing"),
    11: Xid("program", Action.MONITOR, "invalid push buffer stream"),
    13: Xid("program", Action.MONITOR, "graphics engine exception"),
    25: Xid("program", Action.MONITOR, "invalid push buffer stream"),
    31: Xid("program", Action.MONITOR, "GPU memory page fault"),
    32: Xid("program", Action.MONITOR, "invalid push buffer stream"),
    37: Xid("program", Action.MONITOR, "driver firmware error"),
    38: Xid("watch", Action.MONITOR, "driver firmware error"),
    39: Xid("program", Action.MONITOR, "copy engine exception"),
    40: Xid("program", Action.MONITOR, "copy engine exception"),
    41: Xid("program", Action.MONITOR, "copy engine exception"),
    43: Xid("program", Action.MONITOR, "GPU stopped processing"),
    44: Xid("watch", Action.MONITOR, "fault during context switch"),
    45: Xid("program", Action.MONITOR, "clean-up after another error"),
    46: Xid("fatal", Action.RESET, "GPU stopped processing"),
    48: Xid("fatal", Action.RESET, "double-bit ECC error"),
    54: Xid("fatal", Action.ISOLATE, "auxiliary power not connected"),
    60: Xid("program", Action.MONITOR, "video processor exception"),
    61: Xid("fatal", Action.RESET, "micro-controller breakpoint"),
    62: Xid("fatal", Action.RESET, "micro-controller halt"),
    63: Xid("watch", Action.MONITOR, "row remapped or page retired"),
    64: Xid("fatal", Action.RESET, "row remapping failed"),
    65: Xid("fatal", Action.RESET, "video encoder exception"),
    66: Xid("watch", Action.MONITOR, "illegal access by driver"),
    67: Xid("watch", Action.MONITOR, "illegal access by driver"),
    68: Xid("program", Action.MONITOR, "video decoder exception"),
    69: Xid("program", Action.MONITOR, "graphics engine class error"),
    70: Xid("program", Action.MONITOR, "copy engine error"),
    71: Xid("program", Action.MONITOR, "copy engine error"),
    72: Xid("program", Action.MONITOR, "copy engine error"),
    74: Xid("fatal", Action.RESET, "NVLink error"),
    75: Xid("program", Action.MONITOR, "copy engine error"),
    76: Xid("program", Action.MONITOR, "copy engine error"),
    77: Xid("program", Action.MONITOR, "copy engine error"),
    78: Xid("watch", Action.FIX_CONFIG, "vGPU start error"),
    80: Xid("program", Action.MONITOR, "corrupted data sent to GPU"),
    92: Xid("watch", Action.MONITOR, "many single-bit ECC errors"),
    93: Xid("watch", Action.MONITOR, "InfoROM wear"),
    94: Xid("watch", Action.MONITOR, "contained memory error"),
    95: Xid("fatal", Action.RESET, "uncontained memory error"),
    109: Xid("fatal", Action.RESET, "context switch timeout"),
    110: Xid("fatal", Action.RESET, "security fault"),
    119: Xid("fatal", Action.RESET, "GSP RPC timeout"),
    120: Xid("fatal", Action.RESET, "GSP error"),
    121: Xid("watch", Action.MONITOR, "C2C error"),
    136: Xid("fatal", Action.RESET, "link training failed"),
    137: Xid("watch", Action.MONITOR, "NVLink privilege error"),
    140: Xid("fatal", Action.RESET, "unrecovered ECC error"),
    141: Xid("watch", Action.MONITOR, "CUDA fast path error"),
    143: Xid("fatal", Action.RESET, "GPU initialisation error"),
    144: Xid("fatal", Action.RESET, "NVLink SAW error"),
    145: Xid("fatal", Action.RESET, "NVLink RLW error"),
    146: Xid("fatal", Action.RESET, "NVLink TLW error"),
    147: Xid("fatal", Action.RESET, "NVLink TREX error"),
    148: Xid("fatal", Action.RESET, "NVLink control error"),
    149: Xid("fatal", Action.RESET, "NVLink NETIR error"),
    150: Xid("fatal", Action.RESET, "NVLink MSE error"),
    151: Xid("fatal", Action.REBOOT, "key rotation error"),
    154: Xid("watch", Action.MONITOR, "recovery action changed: see nvidia.recovery"),
    155: Xid("fatal", Action.RESET, "NVLink error defined by software"),
    156: Xid("fatal", Action.RESET, "resource retired"),
    157: Xid("watch", Action.CONTACT_VENDOR, "resource retirement failed"),
    158: Xid("fatal", Action.RESET, "GPU fatal timeout"),
    159: Xid("watch", Action.MONITOR, "CHI non-data error"),
    160: Xid("watch", Action.MONITOR, "channel retired"),
    161: Xid("watch", Action.MONITOR, "channel retirement failed"),
    167: Xid("watch", Action.MONITOR, "PCIe fatal timeout"),
    168: Xid("fatal", Action.REBOOT, "error in the write-protected region"),
    169: Xid("watch", Action.MONITOR, "micro-controller halt"),
    171: Xid("watch", Action.MONITOR, "more about a DRAM error"),
    172: Xid("watch", Action.MONITOR, "more about an SRAM error"),
} | dict.fromkeys(
    (*range(82, 87), 88, 89, *range(96, 108), *range(126, 136), 139),
    Xid("program", Action.MONITOR, "copy engine, video or test"),
)
GONE = 79
"""“GPU has fallen off the bus”: item nvidia.lost."""
UNLISTED = Xid("watch", Action.MONITOR, "not in the table")

# NVRM: Xid (PCI:0000:19:00): 79, pid=…, name=…, GPU has fallen off the bus.
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]{4,20})\): (\d{1,4})\b")
# nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 24007, Fatal, Link 44 sourcetrack timeout error (First)
_SXID = re.compile(r"nvidia-nvswitch(\d{1,3}): SXid \(PCI:([0-9a-fA-F:.]{4,20})\): (\d{4,6}), (.{0,200})")
# nv.c, osinit.c in open-gpu-kernel-modules
_LOST = re.compile(
    r"NVRM: .*(?:GPU has fallen off the bus|RmInitAdapter failed|GPU is lost)|NVRM: Xid \([^)]{1,40}\): 79\b|"
    r"nvidia: probe of \S+ failed|NVRM: The NVIDIA probe routine failed"
)


def _codes(*wanted: Callable[[Xid], bool]) -> str:
    return ", ".join(str(code) for code, xid in XIDS.items() if all(w(xid) for w in wanted))


def _log(words: str) -> Text:
    return Text("kernel log of the last {h:g} h: {w}", "最近 {h:g} 小时的内核日志：{w}").fill(h=WINDOW / 3600, w=words)


@nvidia_node_check(
    "nvidia.xid",
    title=Text("No Xid error", "无 Xid 错误"),
    method=_log("“NVRM: Xid (PCI:…): CODE”"),
    criterion=Text(
        "none that asks for a reset ({reset}), a reboot ({boot}) or to be taken out ({out}); one to be watched"
        " ({watch}, or unknown) is a warning; those that programs bring about (13, 31, 43 and the like) are told; 79 is"
        " nvidia.lost",
        "无需要复位（{reset}）、重启（{boot}）或隔离（{out}）的错误；需观察的（{watch} 或未知）则告警；"
        "由程序引起的（13、31、43 等）仅列出；79 见 nvidia.lost",
    ).fill(
        reset=_codes(lambda x: x.kind == "fatal", lambda x: x.action is Action.RESET),
        boot=_codes(lambda x: x.kind == "fatal", lambda x: x.action is Action.REBOOT),
        out=_codes(lambda x: x.kind == "fatal", lambda x: x.action is Action.ISOLATE),
        watch=_codes(lambda x: x.kind == "watch"),
    ),
    suggestion=Text(
        "do what the code asks for, on the drained node; if the same card says it again, have it replaced",
        "排空节点后按错误码要求处理；若同一张卡再次出现则更换",
    ),
    reads=(*HERE, LOG),
    severity=Severity.CRITICAL,
    action=Action.RESET,
    needs=NEEDS,
)
def xid(facts: FactView) -> Outcome:
    installed(facts)
    lines, covered = recent(facts, _XID)
    found = [(m[1].lower(), int(m[2])) for m in map(_XID.search, (line.text for line in lines)) if m is not None]
    counted = Counter(f for f in found if f[1] != GONE)
    by_kind: dict[str, list[str]] = {"fatal": [], "watch": [], "program": []}
    actions: list[str] = []
    for (card, code), times in sorted(counted.items()):
        known = XIDS.get(code, UNLISTED)
        by_kind[known.kind].append(f"{card} {code} ({known.what}) × {times}")
        if known.kind != "program":
            actions.append(f"{code}: {known.action.value}")
    observed = ", ".join((by_kind["fatal"] + by_kind["watch"] + by_kind["program"])[:8])
    todo = ", ".join(dict.fromkeys(actions))
    detail = Text(todo, todo) if todo else None
    if by_kind["fatal"]:
        return failed(observed, detail)
    if by_kind["watch"]:
        return warned(observed, detail)
    return passed(observed or f"0 in {covered:.1f} h")


@nvidia_node_check(
    "nvidia.sxid",
    title=Text("No SXid error of the NVSwitches", "NVSwitch 无 SXid 错误"),
    method=_log("“nvidia-nvswitch…: SXid (PCI:…): CODE, Fatal|Non-fatal, …”"),
    # Fabric Manager User Guide, SXid errors: the driver itself says whether it is fatal.
    criterion=Text("none that is fatal; another is a warning", "无 Fatal 错误；其他 SXid 则告警"),
    suggestion=Text(
        "fatal: reset all cards and switches of the node together, or reboot; the line names switch and link",
        "Fatal：将节点的全部 GPU 与 NVSwitch 一起复位，或重启；日志给出了交换芯片与链路",
    ),
    reads=(*HERE, LOG),
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
    needs=NEEDS,
)
def sxid(facts: FactView) -> Outcome:
    installed(facts)
    lines, covered = recent(facts, _SXID)
    found = [m for m in map(_SXID.search, (line.text for line in lines)) if m is not None]
    if not found:
        return passed(f"0 in {covered:.1f} h")
    fatal = [m for m in found if m[4].startswith("Fatal")]
    counted = Counter(f"nvswitch{m[1]} {m[3]}" for m in fatal or found)
    observed = ", ".join(f"{name} × {n}" for name, n in counted.most_common(8))
    detail = Text("last: {l}", "最近一条：{l}").fill(l=(fatal or found)[-1][0][:160])
    return failed(observed, detail) if fatal else warned(observed, detail)


@nvidia_node_check(
    "nvidia.lost",
    title=Text("No card went away", "无掉卡"),
    method=_log("“GPU has fallen off the bus”, “RmInitAdapter failed”, Xid 79"),
    criterion=Text("no such line", "无此类日志"),
    suggestion=Text(
        "power-cycle the node (a reboot may not do); if it comes back: re-seat or replace the card, check its power",
        "将节点断电重启（普通重启可能无效）；若复现：重新插拔或更换该卡，并检查供电",
    ),
    reads=(*HERE, LOG),
    severity=Severity.CRITICAL,
    action=Action.ISOLATE,
    needs=NEEDS,
)
def lost(facts: FactView) -> Outcome:
    installed(facts)
    lines, covered = recent(facts, _LOST)
    observed = f"{len(lines)} in {covered:.1f} h"
    if not lines:
        return passed(observed)
    return failed(observed, Text("last: {l}", "最近一条：{l}").fill(l=lines[-1].text[:160]))
