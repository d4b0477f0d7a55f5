"""NVIDIA: NVLink and the fabric of its switches; and the ways past the host's memory: GPUDirect RDMA, GDRCopy."""

from __future__ import annotations

import re
from typing import NamedTuple

from cwai_bench.checks import Command, DoesNotApply, FactView, File, NotKnown, Outcome, failed, passed, warned
from cwai_bench.checks.nvidia import (
    CARDS,
    HERE,
    MODULE,
    NVLINK_ERRORS,
    NVLINK_STATUS,
    all_seen,
    by_card,
    cards,
    cited,
    installed,
    judge_cards,
    known_of,
    linked,
    method,
    module_version,
    nvidia_node_check,
    nvidia_yours,
    nvml,
    tally,
)
from cwai_bench.checks.nvidia_driver import unit, unit_state
from cwai_bench.model import Action, Severity
from cwai_bench.sources import (
    Call,
    NvidiaFabric,
    NvLink,
    NvLinkErrors,
    SteadyCard,
    SteadyHost,
    SteadyNetwork,
)
from cwai_bench.text import Text

LINKS = (*CARDS, NVLINK_STATUS, NVLINK_ERRORS)
JOINED = "Completed"


def fabric_shown(fabric: NvidiaFabric) -> str:
    return " ".join([fabric.state, fabric.status, *fabric.trouble])


@nvidia_node_check(
    "nvidia.fabric",
    title=Text("The cards have joined the NVLink fabric", "GPU 已加入 NVLink fabric"),
    method=method("fabric.state, fabric.status, fabric.health", "fabric.state、fabric.status、fabric.health"),
    criterion=Text(
        "Completed, Success; a fabric that says it is degraded is a warning",
        "Completed、Success；fabric 自报降级则告警",
    ),
    suggestion=Text(
        "see nvidia.fabric_services; read /var/log/fabricmanager.log; then reset all cards of the node, or reboot",
        "见 nvidia.fabric_services；查看 /var/log/fabricmanager.log；然后复位全部 GPU 或重启节点",
    ),
    reads=CARDS,
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
)
def fabric(facts: FactView) -> Outcome:
    return judge_cards(
        facts,
        lambda c: c.fabric,
        bad=lambda f: f.state != JOINED or f.status != "Success",
        mild=lambda f: bool(f.trouble),
        show=fabric_shown,
    )


FABRIC_MANAGER = unit("nvidia-fabricmanager.service")
IMEX = unit("nvidia-imex.service")
_NO_CLUSTER = re.compile(r"[0-]*")
_AMPERE_BOARD = re.compile(r"A[18]00-SXM")
"""Cards behind NVSwitches that do not speak of a fabric: eight on a board have them, four are linked directly."""


def _in_domain(card: SteadyCard) -> bool:
    """True of a card whose NVLink domain spans nodes: then the domain has an identity (as NCCL decides, too)."""
    return card.fabric is not None and not _NO_CLUSTER.fullmatch(card.fabric.cluster)


@nvidia_node_check(
    "nvidia.fabric_services",
    title=Text("The services of the NVLink fabric run", "NVLink fabric 相关服务运行中"),
    method=Text(
        f"{FABRIC_MANAGER.key.removeprefix('$ ')}, and nvidia-imex.service where NVLink spans nodes",
        f"{FABRIC_MANAGER.key.removeprefix('$ ')}；NVLink 跨节点时还包括 nvidia-imex.service",
    ),
    # Fabric Manager User Guide: it runs on every node with NVSwitches of its own. IMEX Service Guide: IMEX runs on all
    # nodes of a domain that spans several, where the switches are managed elsewhere.
    criterion=Text(
        "nvidia-fabricmanager is active on a node with NVSwitches, nvidia-imex on one of a multi-node NVLink domain",
        "带 NVSwitch 的节点上 nvidia-fabricmanager 为 active；多节点 NVLink 域的节点上 nvidia-imex 为 active",
    ),
    suggestion=Text(
        "systemctl restart it; its version must be that of the driver; journalctl -u UNIT tells why it ended",
        "systemctl restart 该服务；其版本须与驱动一致；用 journalctl -u UNIT 查看退出原因",
    ),
    reads=(*CARDS, FABRIC_MANAGER, IMEX),
    severity=Severity.CRITICAL,
    seen="container",
)
def fabric_services(facts: FactView) -> Outcome:
    found = cards(facts)
    switched = [c for c in found if c.fabric is not None]
    if not switched and not (len(found) >= 8 and all(_AMPERE_BOARD.search(c.name) for c in found)):
        raise DoesNotApply(Text("these cards are in no switched fabric", "这些卡不在交换式 fabric 中"))
    cited(facts, {c.address: "-" if c.fabric is None else fabric_shown(c.fabric) for c in found})
    # In a domain of several nodes the switches stand elsewhere, and so does their manager.
    source, name = (IMEX, "nvidia-imex") if any(map(_in_domain, switched)) else (FABRIC_MANAGER, "nvidia-fabricmanager")
    loaded, active = unit_state(facts, source)
    if active == "active":
        return passed(f"{name} {active}")
    if loaded == "not-found" and switched and all(c.fabric and c.fabric.state == JOINED for c in switched):
        raise DoesNotApply(
            Text(
                "the fabric is up and {n} is no service of this node: it is managed elsewhere",
                "fabric 已就绪且本节点没有 {n} 服务：由其他位置管理",
            ).fill(n=name)
        )
    return failed(f"{name} {'not installed' if loaded == 'not-found' else active}")


# Links of a card behind NVSwitches, and bytes/s of one: NVIDIA's data sheets of A100, H100, H200, B200 and GB200;
# azurehpc-health-checks has the same for H100 and GB200. A800 and H800 have fewer links.
_EXPECTED: tuple[tuple[re.Pattern[str], int, float], ...] = (
    (re.compile(r"A100-SXM"), 12, 25e9),
    (re.compile(r"A800-SXM|H800(?! PCIe)"), 8, 25e9),
    (re.compile(r"H100 80GB HBM3|\bH200(?! NVL)|\bH20\b"), 18, 25e9),
    (re.compile(r"G?B[23]00\b"), 18, 50e9),
)


def expected(name: str) -> tuple[int, float] | None:
    """The least number of links and speed of each that a card of this name has; None when it depends on the board."""
    return next(((count, speed) for pattern, count, speed in _EXPECTED if pattern.search(name)), None)


class _Links(NamedTuple):
    name: str
    links: list[NvLink]

    @property
    def up(self) -> list[NvLink]:
        return [link for link in self.links if link.up]

    @property
    def slowest(self) -> float | None:
        """Bytes per second; None where no link says its speed."""
        return min((link.speed for link in self.up if link.speed is not None), default=None)

    def __str__(self) -> str:
        speed = "" if self.slowest is None else f" × {self.slowest / 1e9:g} GB/s"
        shown = f"{len(self.up)}/{len(self.links)}{speed}"
        down = [str(link.link) for link in self.links if not link.up]
        return f"{shown}, down: {' '.join(down[:8])}" if down else shown


def nvlinks(card: SteadyCard) -> _Links | None:
    return None if not card.links else _Links(card.name, card.links)


@nvidia_node_check(
    "nvidia.nvlink",
    title=Text("NVLinks are up and fast", "NVLink 全部在线且速率正常"),
    method=method("NVLink state and speed (nvidia-smi nvlink -s)", "NVLink 状态与速率（nvidia-smi nvlink -s）"),
    criterion=Text(
        "as many and as fast as a card of its name has: 12 × 25 GB/s A100, 18 × 25 GB/s H100 and H200, 18 × 50 GB/s"
        " B200 and GB200; of other cards, as many as on the card that has most",
        "数量与速率达到该型号的规格：A100 12 × 25 GB/s，H100、H200 18 × 25 GB/s，B200、GB200 18 × 50 GB/s；"
        "其他型号与链路最多的卡一致",
    ),
    suggestion=Text(
        "reset all cards of the node, then reboot; a link that stays down: field diagnostic, card or baseboard",
        "复位节点全部 GPU，再尝试重启；仍有链路不通则做现场诊断，更换该卡或基板",
    ),
    reads=LINKS,
    severity=Severity.CRITICAL,
    action=Action.ISOLATE,
)
def nvlink(facts: FactView) -> Outcome:
    found = linked(facts)
    values = {c.address: nvlinks(c) for c in found}
    cited(facts, {name: v or "-" for name, v in values.items()})
    if len(installed(facts)) < 2:
        raise DoesNotApply(Text("one card: nothing to be linked with", "仅有一张卡，无互联对象"))
    if any(c.mig for c in found):
        raise NotKnown(
            "cause", Text("split cards have no NVLink: see item nvidia.mig", "切分后的卡没有 NVLink，见 nvidia.mig")
        )
    required = {c.name: expected(c.name) for c in found}
    lacking = [c.address for c in found if values[c.address] is None and required[c.name] is not None]
    if lacking:
        return failed(", ".join(f"{name} 0" for name in lacking[:8]))
    links = known_of(found, values)
    most: dict[str, int] = {}
    for v in links.values():
        most[v.name] = max(most.get(v.name, 0), len(v.up))

    def bad(v: _Links) -> bool:
        if not v.up and required[v.name] is None:
            return False
        count, speed = required[v.name] or (most[v.name], 0.0)
        return len(v.up) < count or (v.slowest is not None and v.slowest < speed)

    wrong = [f"{name} {v}" for name, v in links.items() if bad(v)]
    if wrong:
        return failed(", ".join(wrong[:8]))
    if not any(v.up for v in links.values()):
        raise DoesNotApply(Text("no card is connected by NVLink here", "此处没有通过 NVLink 互联的卡"))
    mute = [name for name, v in links.items() if any(link.speed is None for link in v.up)]
    if mute:
        raise NotKnown(
            "missing_source",
            Text("no speed of the links of {c}", "未给出以下卡的链路速率：{c}").fill(c=", ".join(mute[:8])),
        )
    all_seen(facts, len(found))
    return passed(tally([str(v) for v in links.values()]))


@nvidia_node_check(
    "nvidia.nvlink_errors",
    title=Text("NVLinks had no errors", "NVLink 无错误"),
    method=method("NVLink error counters (nvidia-smi nvlink -e)", "NVLink 错误计数（nvidia-smi nvlink -e）"),
    # DCGM's health watch complains of one replay or recovery; CRC errors are caught and sent again, and it tolerates a
    # hundred a second: they are shown, not judged.
    criterion=Text(
        "no replay and no recovery on any link; one is a warning", "所有链路 replay 与 recovery 均为 0；出现则告警"
    ),
    suggestion=Text(
        "watch whether the count grows under load (nvidia-smi nvlink -e); if it does, reset the cards, then field"
        " diagnostic",
        "在负载下观察计数是否增长（nvidia-smi nvlink -e）；若增长则复位 GPU 并做现场诊断",
    ),
    reads=LINKS,
    severity=Severity.MINOR,
    action=Action.MONITOR,
)
def nvlink_errors(facts: FactView) -> Outcome:
    found = linked(facts)
    counted = {c.address: [link for link in c.links or () if link.up] for c in found}
    cited(
        facts,
        {
            name: " ".join(f"{link.link}:{link.replays}/{link.recoveries}/{link.crc_errors}" for link in links) or "-"
            for name, links in counted.items()
        },
    )
    wrong = [
        f"{name} link {link.link}: {link.replays} replays, {link.recoveries or 0} recoveries"
        for name, links in counted.items()
        for link in links
        if link.replays or link.recoveries
    ]
    if wrong:
        return warned(", ".join(wrong[:8]))
    every = [link for links in counted.values() for link in links]
    with_crc = any(link.crc_errors is not None for link in every)

    def whole(link: NvLink) -> bool:
        return None not in (link.replays, link.recoveries) and (not with_crc or link.crc_errors is not None)

    known_of(found, {name: True if links and all(map(whole, links)) else None for name, links in counted.items()})
    all_seen(facts, len(found))
    return passed(f"0 / {len(every)}, CRC {sum(link.crc_errors or 0 for link in every)}")


# DCGM's health watch: one replay or recovery more between two looks fails, and so do CRC errors at this rate.
CRC_RATE = 100.0


@nvidia_node_check(
    "nvidia.nvlink_growth",
    title=Text("NVLink errors do not grow", "NVLink 错误计数不增长"),
    method=Text(
        "nvmlDeviceGetNvLinkErrorCounter (DL_REPLAY, DL_RECOVERY, DL_CRC_FLIT) of each link, twice, a second apart",
        "逐链路两次读取 nvmlDeviceGetNvLinkErrorCounter（DL_REPLAY、DL_RECOVERY、DL_CRC_FLIT），间隔一秒",
    ),
    criterion=Text(
        "no replay and no recovery in between, and fewer than {c:g} CRC errors a second on any link",
        "期间无 replay 与 recovery，且每条链路的 CRC 错误低于每秒 {c:g} 次",
    ).fill(c=CRC_RATE),
    suggestion=Text(
        "the link is bad now: drain the node, reset all its cards; if it comes back, field diagnostic, card or"
        " baseboard",
        "链路当前异常：排空节点并复位全部 GPU；若复现则做现场诊断，更换该卡或基板",
    ),
    reads=CARDS,
    severity=Severity.MAJOR,
    action=Action.RESET,
    needs=("nvidia-ml-py",),
    tool_optional=True,
)
def nvlink_growth(facts: FactView) -> Outcome:
    found = cards(facts)
    told = nvml(facts)
    if told is None:
        raise NotKnown(
            "missing_tool",
            Text("nvidia-smi tells the counts but once: NVML is needed", "nvidia-smi 仅给出一次计数，需要 NVML"),
        )
    if not any(link.up for c in found for link in c.links or ()):
        raise DoesNotApply(Text("no NVLink is up here", "没有在线的 NVLink"))
    if told.looked <= 0:
        raise NotKnown("missing_source", Text("the errors were read but once", "错误计数仅读取了一次"))
    grown = {f"{c.address} link {link.link}": _growth(link) for c in found for link in c.links or () if link.up}
    if not any(grown.values()):
        raise DoesNotApply(Text("these links do not count their errors", "这些链路不提供错误计数"), "unsupported")
    cited(facts, {name: _shown(g) for name, g in grown.items()})
    wrong = [
        f"{name}: {_shown(g)}"
        for name, g in grown.items()
        if g.get("replays") or g.get("recoveries") or g.get("CRC", 0) / told.looked >= CRC_RATE
    ]
    if wrong:
        return failed(", ".join(wrong[:8]))
    if silent := [name for name, g in grown.items() if not g]:
        raise NotKnown(
            "missing_source", Text("no answer from {c}", "以下链路未返回：{c}").fill(c=", ".join(silent[:8]))
        )
    all_seen(facts, len(found))
    return passed(f"{len(grown)} links, +0, {told.looked} s")


def _growth(link: NvLink) -> dict[str, int]:
    """By kind of error, how many came in between, of those that were told twice.

    A count that went down was reset, and what it says since is all that is known to have come.
    """
    later = link.later or NvLinkErrors()
    pairs = {
        "replays": (link.replays, later.replays),
        "recoveries": (link.recoveries, later.recoveries),
        "CRC": (link.crc_errors, later.crc_errors),
    }
    return {
        kind: after - before if after >= before else after
        for kind, (before, after) in pairs.items()
        if before is not None and after is not None
    }


def _shown(grown: dict[str, int]) -> str:
    return " ".join(f"+{n} {kind}" for kind, n in grown.items()) or "-"


# DCGM's health watch takes each effective or symbol bit error rate for a fault that is above what a link without errors
# says: mantissa 15, exponent 255.
BER_OF_NONE = 1.5e-254


def worst_ber(card: SteadyCard) -> float | None:
    """The worst bit error rate of the card's links that are up; None where one of them tells none."""
    told = [(link.effective_ber, link.symbol_ber) for link in card.links or () if link.up]
    rates = [rate for pair in told for rate in pair if rate is not None]
    return max(rates) if rates and all(any(rate is not None for rate in pair) for pair in told) else None


@nvidia_node_check(
    "nvidia.nvlink_bit_errors",
    title=Text("NVLinks have no bit errors left after correction", "NVLink 纠错后无误码"),
    method=Text(
        "NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER and …_SYMBOL_BER of each link (NVLink 5 and newer)",
        "逐链路读取 NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER 与 …_SYMBOL_BER（NVLink 5 及以上）",
    ),
    criterion=Text(
        "at most {b:g}, which is what a link says that had none; more is a warning (set a limit of your own with"
        " nvidia.nvlink_ber)",
        "不高于 {b:g}（即无误码时的读数）；更高则告警（可用 nvidia.nvlink_ber 自定门限）",
    ).fill(b=BER_OF_NONE),
    suggestion=Text(
        "see whether it grows under load, and nvidia.nvlink_growth; reset the cards; field diagnostic",
        "在负载下观察是否增长，并查看 nvidia.nvlink_growth；复位 GPU；做现场诊断",
    ),
    reads=CARDS,
    severity=Severity.MINOR,
    action=Action.MONITOR,
    needs=("nvidia-ml-py",),
)
def nvlink_bit_errors(facts: FactView) -> Outcome:
    # Powers of ten are not exact: what says 1.5e-254 may be told a little above it.
    return judge_cards(facts, worst_ber, mild=lambda rate: rate > BER_OF_NONE * 1.01, show=lambda rate: f"{rate:.2g}")


@nvidia_yours(
    "nvidia.nvlink_ber",
    title=Text("Worst bit error rate of each card's NVLinks", "各 GPU NVLink 最差误码率"),
    method=Text(
        "NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER and …_SYMBOL_BER (NVLink 5 and newer)",
        "NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER 与 …_SYMBOL_BER（NVLink 5 及以上）",
    ),
    suggestion=Text("see nvidia.nvlink_bit_errors", "见 nvidia.nvlink_bit_errors"),
    reads=CARDS,
    unit="1",
)
def nvlink_ber(facts: FactView) -> dict[str, float]:
    return by_card(facts, worst_ber, cards)


# ------------------------------------------------------------------------------------------- past the host's memory

PEERMEM = ("nvidia_peermem", "nv_peer_mem")
_LOADED = {name: File(f"sys/module/{name}/initstate") for name in (*PEERMEM, "gdrdrv")}
DMA_BUF_KERNEL = (5, 12)
"""GPU Operator documentation, GPUDirect RDMA: DMA-BUF needs Linux 5.12 and the open kernel module."""


def loaded(facts: FactView, name: str) -> bool:
    return (facts.maybe(_LOADED[name].path) or "").strip() == "live"


def rdma_path(facts: FactView) -> str:
    """How NICs reach the memory of the cards: the name of the module, ``dma-buf``, or nothing; DoesNotApply where
    there is no RDMA NIC."""
    installed(facts)
    found = facts.call("network", SteadyNetwork).rdma
    facts.cite(Call("network"), f"rdma devices: {', '.join(found) or '-'}")
    if not found:
        raise DoesNotApply(Text("no RDMA NIC here", "没有 RDMA 网卡"))
    for name in PEERMEM:
        if loaded(facts, name):
            return name
    module = module_version(facts)
    if module is None:
        raise NotKnown("cause", Text("no module is loaded: see item nvidia.driver", "模块未加载，见 nvidia.driver"))
    release = facts.call("host", SteadyHost).release
    version = re.match(r"(\d{1,4})\.(\d{1,4})", release)
    recent = version is not None and (int(version[1]), int(version[2])) >= DMA_BUF_KERNEL
    return "dma-buf" if module[1] and recent else ""


RDMA_PATH = (*HERE, Call("network"), Call("host"), MODULE, *(_LOADED[name] for name in PEERMEM))


@nvidia_node_check(
    "nvidia.gpudirect",
    title=Text("NICs reach the memory of the cards (GPUDirect RDMA)", "网卡可直接访问显存（GPUDirect RDMA）"),
    method=Text(
        "/sys/module/nvidia_peermem/initstate; else the open kernel module and Linux 5.12 (dma-buf)",
        "/sys/module/nvidia_peermem/initstate；否则要求开源内核模块与 Linux 5.12（dma-buf）",
    ),
    criterion=Text(
        "nvidia_peermem (nv_peer_mem) is live, or dma-buf is possible, on a node with RDMA NICs",
        "有 RDMA 网卡的节点上 nvidia_peermem（nv_peer_mem）已加载，或可使用 dma-buf",
    ),
    suggestion=Text(
        "modprobe nvidia_peermem, and load it at boot; if it refuses, install the driver again after the RDMA stack",
        "modprobe nvidia_peermem 并设置开机加载；若加载失败，在安装 RDMA 软件栈之后重新安装驱动",
    ),
    reads=RDMA_PATH,
    severity=Severity.MAJOR,
)
def gpudirect(facts: FactView) -> Outcome:
    path = rdma_path(facts)
    return passed(path) if path else failed("-")


GDRCOPY = Command("modinfo", "-F", "version", "gdrdrv")


@nvidia_node_check(
    "nvidia.gdrcopy",
    title=Text("GDRCopy is loaded where it is installed", "已安装的 GDRCopy 已加载"),
    method=Text(
        "/sys/module/gdrdrv/initstate; modinfo -F version gdrdrv",
        "/sys/module/gdrdrv/initstate；modinfo -F version gdrdrv",
    ),
    criterion=Text("gdrdrv is live, where it is installed; else a warning", "若已安装，gdrdrv 应已加载；否则告警"),
    suggestion=Text(
        "modprobe gdrdrv, and load it at boot (gdrcopy.service)", "modprobe gdrdrv 并设置开机加载（gdrcopy.service）"
    ),
    reads=(*HERE, _LOADED["gdrdrv"], GDRCOPY),
    severity=Severity.MINOR,
)
def gdrcopy(facts: FactView) -> Outcome:
    installed(facts)
    if loaded(facts, "gdrdrv"):
        return passed("live")
    reading = facts.command(*GDRCOPY.argv)
    if reading.exit_code != 0 or not reading.text.strip():
        raise DoesNotApply(Text("GDRCopy is not installed here", "未安装 GDRCopy"))
    return warned(f"{reading.text.strip()[:40]}, not loaded")
