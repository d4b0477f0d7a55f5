"""AMD accelerators."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from cwai_bench.checks import (
    DoesNotApply,
    FactView,
    NotKnown,
    Outcome,
    consistency_check,
    failed,
    node_check,
    parsed,
    passed,
    warned,
)
from cwai_bench.checks.kernel_log import LOG, NONE, recent
from cwai_bench.checks.kind import accelerators
from cwai_bench.model import Action, Severity
from cwai_bench.readers import Unreadable, amd
from cwai_bench.sources import Call, Command, File, Pci, PciDevice
from cwai_bench.text import Text

T = TypeVar("T")

PCI = Call("pci")
AMD, DRIVER = "1002", "amdgpu"
NO_CARD = Text("no AMD accelerator here", "没有 AMD 加速卡")
# amd-smi is Python over a library: it takes a second or two on a node of eight cards.
SECONDS = 10.0
LIST, VERSION, FIRMWARE, ECC, BAD_PAGES = (
    Command("amd-smi", *words, "--json", timeout=SECONDS)
    for words in (("list",), ("version",), ("firmware",), ("metric", "--ecc"), ("bad-pages",))
)
ROCMINFO = Command("rocminfo", timeout=SECONDS)


def _words(command: Command) -> Text:
    return Text(" ".join(command.argv), " ".join(command.argv))


def installed(facts: FactView) -> list[PciDevice]:
    found = [d for d in accelerators(facts.call("pci", Pci)) if d.model.split(":")[0] == AMD]
    facts.cite(PCI, "\n".join(f"{d.address} {d.model} {d.driver or '-'}" for d in found) or "-")
    if not found:
        raise DoesNotApply(NO_CARD)
    return found


def _driven(facts: FactView) -> list[PciDevice]:
    """The cards, when their driver holds all of them; else what follows from it is not known."""
    found = installed(facts)
    if any(d.driver != DRIVER for d in found):
        raise NotKnown("cause", Text("a card has no driver: see amd.driver", "存在无驱动的卡，见 amd.driver"))
    return found


def _answer(facts: FactView, command: Command, reader: Callable[[str], T]) -> T:
    reading = facts.command(*command.argv)
    if reading.exit_code != 0:
        said = (reading.detail or reading.text).strip()[:200]
        raise NotKnown(
            "error",
            Text("{c} ended with {x}: {e}", "{c} 退出码为 {x}：{e}").fill(
                c=command.argv[0], x=reading.exit_code, e=said
            ),
        )
    return parsed(reader, reading.text, " ".join(command.argv))


def _of_each(facts: FactView, command: Command, reader: Callable[[str], dict[int, T]]) -> dict[int, T]:
    """What a command says of each card, when it tells of all of them."""
    cards = _driven(facts)
    found = _answer(facts, command, reader)
    if len(found) < len(cards):
        raise NotKnown(
            "cause",
            Text("{n} of {m} cards answered: see amd.cards", "{m} 张卡中仅 {n} 张有应答，见 amd.cards").fill(
                n=len(found), m=len(cards)
            ),
        )
    return found


@node_check(
    "amd.driver",
    title=Text("amdgpu drives every AMD card", "AMD 卡均由 amdgpu 驱动"),
    method=Text("driver of the AMD accelerators in /sys/bus/pci/devices", "/sys/bus/pci/devices 中 AMD 加速卡的驱动"),
    criterion=Text("each is held by {d}", "均由 {d} 驱动").fill(d=DRIVER),
    suggestion=Text(
        "modprobe amdgpu; dmesg | grep amdgpu says why a card was refused; power-cycle the node if one fell off",
        "modprobe amdgpu；用 dmesg | grep amdgpu 查看失败原因；若掉卡则对节点断电重启",
    ),
    reads=(PCI,),
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
    scope="amd",
)
def driver(facts: FactView) -> Outcome:
    cards = installed(facts)
    bad = [f"{d.address} {d.driver or '-'}" for d in cards if d.driver != DRIVER]
    return failed(", ".join(bad[:8])) if bad else passed(f"{len(cards)} / {len(cards)}")


@node_check(
    "amd.cards",
    title=Text("amd-smi lists every AMD card", "amd-smi 能列出全部 AMD 卡"),
    method=_words(LIST),
    criterion=Text("every AMD accelerator on PCI is listed", "PCI 上的 AMD 加速卡均被列出"),
    suggestion=Text(
        "the card does not answer its driver: look at the kernel log, reset or power-cycle it",
        "该卡对驱动无应答：查看内核日志，复位或断电重启",
    ),
    reads=(PCI, LIST),
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
    needs=("amd-smi",),
    scope="amd",
)
def cards_listed(facts: FactView) -> Outcome:
    cards = _driven(facts)
    listed = set(_answer(facts, LIST, amd.addresses).values())
    lost = [d.address for d in cards if d.address not in listed]
    return failed(", ".join(lost[:8])) if lost else passed(f"{len(cards)} / {len(cards)}")


@node_check(
    "amd.ecc",
    title=Text("AMD cards have no uncorrectable memory errors", "AMD 卡无不可纠正内存错误"),
    method=_words(ECC),
    criterion=Text(
        "no uncorrectable error since the driver was loaded; a deferred one is a warning",
        "驱动加载以来无不可纠正错误；出现 deferred 错误则告警",
    ),
    suggestion=Text(
        "drain the node and reset the card; if it comes back, have the card replaced",
        "排空节点并复位该卡；若复现则申请更换",
    ),
    reads=(PCI, ECC),
    severity=Severity.CRITICAL,
    action=Action.RESET,
    needs=("amd-smi",),
    scope="amd",
)
def ecc(facts: FactView) -> Outcome:
    found = _of_each(facts, ECC, amd.ecc)
    silent = [n for n, e in found.items() if e.uncorrectable is None]
    bad = [f"gpu{n} UE {e.uncorrectable}" for n, e in found.items() if e.uncorrectable]
    mild = [f"gpu{n} deferred {e.deferred}" for n, e in found.items() if e.deferred]
    if bad:
        return failed(", ".join((bad + mild)[:8]))
    if silent:
        raise NotKnown(
            "unsupported",
            Text("no ECC count of: {l}", "以下卡未给出 ECC 计数：{l}").fill(l=", ".join(f"gpu{n}" for n in silent[:8])),
        )
    corrected = sum(e.correctable or 0 for e in found.values())
    return warned(", ".join(mild[:8])) if mild else passed(f"UE 0, CE {corrected}")


@node_check(
    "amd.bad_pages",
    title=Text("AMD cards have no bad pages in use", "AMD 卡无待隔离的坏页"),
    method=_words(BAD_PAGES),
    criterion=Text(
        "none is pending or cannot be retired; retired ones are fine", "无待隔离或无法隔离的页；已隔离的页正常"
    ),
    suggestion=Text(
        "pending: reload the driver or reboot, so that the page is taken out; not retirable: have the card replaced",
        "待隔离：重新加载驱动或重启以完成隔离；无法隔离：申请更换该卡",
    ),
    reads=(PCI, BAD_PAGES),
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
    needs=("amd-smi",),
    scope="amd",
)
def bad_pages(facts: FactView) -> Outcome:
    found = _of_each(facts, BAD_PAGES, amd.bad_pages)
    bad = [
        f"gpu{n} pending {p.pending}, unreservable {p.unreservable}"
        for n, p in found.items()
        if p.pending or p.unreservable
    ]
    if bad:
        return failed(", ".join(bad[:8]))
    silent = [n for n, p in found.items() if p.pending is None or p.unreservable is None]
    if silent:
        raise NotKnown(
            "unsupported",
            Text("no bad pages are told of: {l}", "以下卡未给出坏页信息：{l}").fill(
                l=", ".join(f"gpu{n}" for n in silent[:8])
            ),
        )
    return passed(f"pending 0, retired {sum(p.retired or 0 for p in found.values())}")


@node_check(
    "amd.firmware",
    title=Text("AMD cards of a node have the same firmware", "节点内 AMD 卡固件一致"),
    method=_words(FIRMWARE),
    criterion=Text("each part has one version on all cards", "各固件在所有卡上版本相同"),
    suggestion=Text(
        "flash the card that differs; firmware that the driver loads comes right with a reload",
        "为不一致的卡刷写固件；由驱动加载的固件在重新加载驱动后恢复一致",
    ),
    reads=(PCI, FIRMWARE),
    severity=Severity.MAJOR,
    needs=("amd-smi",),
    scope="amd",
)
def firmware(facts: FactView) -> Outcome:
    found = _of_each(facts, FIRMWARE, amd.firmware)
    if not all(found.values()):
        raise NotKnown("unsupported", Text("a card tells of no firmware", "存在未给出固件信息的卡"))
    usual = {
        part: Counter(versions.get(part, "-") for versions in found.values()).most_common(1)[0][0]
        for versions in found.values()
        for part in versions
    }
    odd = [
        f"gpu{n} {part} {versions.get(part, '-')} ({known})"
        for n, versions in found.items()
        for part, known in usual.items()
        if versions.get(part, "-") != known
    ]
    return failed(", ".join(odd[:8])) if odd else passed(f"{len(usual)} × {len(found)}")


@node_check(
    "amd.rocminfo",
    title=Text("The ROCm runtime reaches every AMD card", "ROCm 运行时可访问全部 AMD 卡"),
    method=Text("rocminfo: comes to its end, and lists every card", "rocminfo：正常结束并列出全部卡"),
    criterion=Text("“*** Done ***”, and a GPU agent for each card", "输出“*** Done ***”，且每张卡均有 GPU agent"),
    suggestion=Text(
        "is the user in the groups render and video? ls -l /dev/kfd; else reload the driver",
        "确认用户属于 render 与 video 组：ls -l /dev/kfd；否则重新加载驱动",
    ),
    reads=(PCI, ROCMINFO),
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
    needs=("rocminfo",),
    scope="amd",
)
def rocminfo(facts: FactView) -> Outcome:
    cards = _driven(facts)
    reading = facts.command(*ROCMINFO.argv)
    try:
        agents = amd.gpu_agents(reading.text)
    except Unreadable as e:
        last = (reading.detail or reading.text).strip().split("\n")[-1][:160]
        return failed(f"rc {reading.exit_code}: {last or '-'}", Text(str(e), "rocminfo 未正常结束"))
    observed = f"{agents} / {len(cards)}"
    return passed(observed) if agents >= len(cards) and reading.exit_code == 0 else failed(observed)


# drivers/gpu/drm/amd: amdgpu_device.c, amdgpu_job.c, amdgpu_ras.c ("no uncorrectable hardware errors" is an all-clear)
_BAD = re.compile(
    r"amdgpu.*(?:GPU reset begin|ring \S+ timeout|GPU reset\S* (?:failed|end with ret = -)|"
    r"[1-9]\d* (?:new )?uncorrectable hardware errors|device lost from bus|Fatal error during GPU init|"
    r"probe of \S+ failed|hw_init of IP block \S+ failed)"
)
_MILD = re.compile(r"amdgpu.*(?:page fault|[1-9]\d* (?:new )?correctable hardware errors|[Bb]ad page)")


@node_check(
    "amd.kernel_log",
    title=Text("amdgpu did not complain", "amdgpu 无异常日志"),
    method=Text(
        "kernel log of the last day: amdgpu … reset, timeout, hardware errors, init failed; page fault, bad page",
        "最近一天的内核日志：amdgpu … reset、timeout、hardware errors、init failed；page fault、bad page",
    ),
    criterion=Text(
        "{n}; a page fault, a corrected error or a bad page is a warning", "{n}；页错误、可纠正错误或坏页则告警"
    ).fill(n=NONE),
    suggestion=Text(
        "the line names card and block; after a reset look at amd.ecc and amd.bad_pages, and take the node out if it "
        "comes back. A page fault is a fault of the program, usually",
        "日志指明了卡与模块；复位后检查 amd.ecc 与 amd.bad_pages，若复现则隔离节点。页错误通常是程序缺陷",
    ),
    reads=(PCI, LOG),
    severity=Severity.CRITICAL,
    action=Action.ISOLATE,
    needs=("permission to read the kernel log",),
    scope="amd",
)
def kernel_log(facts: FactView) -> Outcome:
    installed(facts)
    lines, covered = recent(facts, _BAD, _MILD)
    observed = f"{len(lines)} in {covered:.1f} h"
    if not lines:
        return passed(observed)
    worst = [line for line in lines if _BAD.search(line.text)]
    detail = Text("last: {l}", "最近一条：{l}").fill(l=(worst or lines)[-1].text[:160])
    return failed(observed, detail) if worst else warned(observed, detail)


CMDLINE = File("proc/cmdline")


@node_check(
    "amd.realloc",
    title=Text("The kernel leaves the AMD cards' BARs where they are", "内核不重新分配 AMD 卡的 BAR"),
    method=Text("pci=realloc=off in /proc/cmdline", "/proc/cmdline 中的 pci=realloc=off"),
    # AMD Instinct system optimization guides (MI300X: "GRUB settings") want pci=realloc=off.
    criterion=Text("pci=realloc=off is given", "已设置 pci=realloc=off"),
    suggestion=Text(
        "add pci=realloc=off to the kernel command line and reboot: cards with large BARs may not come up otherwise",
        "在内核命令行加入 pci=realloc=off 并重启：否则大 BAR 的卡可能无法初始化",
    ),
    reads=(PCI, CMDLINE),
    severity=Severity.MINOR,
    scope="amd",
)
def realloc(facts: FactView) -> Outcome:
    installed(facts)
    words = facts.text(CMDLINE.path).split()
    given = [option for word in words if word.startswith("pci=") for option in word.removeprefix("pci=").split(",")]
    found = [option for option in given if option.startswith("realloc")]
    return passed("realloc=off") if found == ["realloc=off"] else warned(", ".join(found) or "-")


# ----------------------------------------------------------------------------------------- what nodes have in common


@consistency_check(
    "same.amd_versions",
    title=Text("Versions of ROCm and amd-smi", "ROCm 与 amd-smi 版本"),
    method=_words(VERSION),
    suggestion=Text("install the same ROCm on all nodes", "为所有节点安装相同的 ROCm"),
    reads=(PCI, VERSION),
    severity=Severity.MAJOR,
    needs=("amd-smi",),
    scope="amd",
)
def same_versions(facts: FactView) -> str:
    installed(facts)
    return ", ".join(f"{name} {version}" for name, version in sorted(_answer(facts, VERSION, amd.versions).items()))


@consistency_check(
    "same.amd_firmware",
    title=Text("Firmware of AMD cards", "AMD 卡固件"),
    method=_words(FIRMWARE),
    suggestion=Text("flash the same firmware on all nodes", "为所有节点刷写相同的固件"),
    reads=(PCI, FIRMWARE),
    severity=Severity.MAJOR,
    needs=("amd-smi",),
    scope="amd",
)
def same_firmware(facts: FactView) -> str:
    found = _of_each(facts, FIRMWARE, amd.firmware)
    if not any(found.values()):
        raise NotKnown("unsupported", Text("the cards tell of no firmware", "未给出固件信息"))
    each = {(part, version) for versions in found.values() for part, version in versions.items()}
    return ", ".join(f"{part} {version}" for part, version in sorted(each))


PARTITIONS = tuple(File(f"sys/class/drm/card*/device/current_{kind}_partition") for kind in ("compute", "memory"))


@consistency_check(
    "same.amd_partitions",
    title=Text("Partition modes of AMD cards", "AMD 卡的分区模式"),
    method=Text(" and ".join(f"/{f.path}" for f in PARTITIONS), " 与 ".join(f"/{f.path}" for f in PARTITIONS)),
    suggestion=Text(
        "amd-smi set --compute-partition SPX --memory-partition NPS1, alike on all",
        "统一执行 amd-smi set --compute-partition SPX --memory-partition NPS1",
    ),
    reads=(PCI, *PARTITIONS),
    severity=Severity.MAJOR,
    scope="amd",
)
def same_partitions(facts: FactView) -> str:
    _driven(facts)
    found = Counter(text.strip() for source in PARTITIONS for text in facts.glob(source.path).values())
    if not found:
        raise DoesNotApply(Text("these cards know no partitions", "该型号不支持分区"))
    return ", ".join(f"{n} × {mode}" for mode, n in sorted(found.items()))
