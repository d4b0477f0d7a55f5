"""NVIDIA: the driver answers, knows every card, is the one that is installed, and leaves the cards to the next job."""

from __future__ import annotations

from collections.abc import Callable

from cwai_bench.checks import Command, DoesNotApply, FactView, NotKnown, Outcome, failed, parsed, passed, warned
from cwai_bench.checks.nvidia import (
    CARDS,
    EXIT_CODES,
    HERE,
    MODULE,
    DriverDown,
    Use,
    answer,
    cards,
    cards_now,
    cited,
    installed,
    judge_cards,
    judge_cards_now,
    known_of,
    method,
    module_version,
    nvidia_node_check,
    tally,
    uses,
)
from cwai_bench.checks.processes import NO_SYSTEMD
from cwai_bench.model import Action, Severity
from cwai_bench.readers import nvidia as reader
from cwai_bench.sources import Call, Container, CudaEnvironment, NvidiaProcess, SteadyCard
from cwai_bench.text import Text


@nvidia_node_check(
    "nvidia.driver",
    title=Text("The NVIDIA driver answers", "NVIDIA 驱动响应正常"),
    method=Text(
        f"/{MODULE.path}; nvmlInit, else nvidia-smi -q -x", f"/{MODULE.path}；nvmlInit，缺失时用 nvidia-smi -q -x"
    ),
    criterion=Text(
        "the module is loaded, NVML or nvidia-smi answers (exit codes of nvidia-smi: {c})",
        "内核模块已加载，NVML 或 nvidia-smi 正常返回（nvidia-smi 退出码：{c}）",
    ).fill(c=", ".join(f"{n} {meaning}" for n, meaning in EXIT_CODES.items() if n in (9, 15, 18))),
    suggestion=Text(
        "not loaded: modprobe nvidia, dmesg | grep NVRM; versions differ: reboot after the upgrade; a card off the bus:"
        " power-cycle the node",
        "未加载：modprobe nvidia 并查看 dmesg | grep NVRM；版本不一致：升级后重启；掉卡：将节点断电重启",
    ),
    reads=(*CARDS, MODULE),
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
)
def driver(facts: FactView) -> Outcome:
    found = installed(facts)
    loaded = module_version(facts)
    if loaded is None:
        return failed(f"not loaded, {len(found)} cards", Text("/{p} is not there", "/{p} 不存在").fill(p=MODULE.path))
    try:
        told = answer(facts)
    except DriverDown as down:
        return failed(down.said)
    return passed(f"{told.driver}, CUDA {told.cuda or '-'}")


@nvidia_node_check(
    "nvidia.count",
    title=Text("The driver knows every card on PCI", "PCI 上的 GPU 均被驱动识别"),
    method=method(
        "pci.bus_id of each card, against /sys/bus/pci/devices", "各卡的 pci.bus_id，与 /sys/bus/pci/devices 比较"
    ),
    criterion=Text("the same cards; fewer in a container is a warning", "两者一致；容器内偏少则告警"),
    suggestion=Text(
        "dmesg | grep NVRM tells why the card was refused; reset it or reboot; if it stays away, power-cycle, re-seat",
        "dmesg | grep NVRM 会给出原因；复位该卡或重启；仍无法识别则断电重启并重新插拔",
    ),
    reads=CARDS,
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
)
def count(facts: FactView) -> Outcome:
    here = {d.address for d in installed(facts)}
    told = answer(facts)
    seen = {c.address for c in told.cards}
    cited(facts, {c.address: c.name for c in told.cards} | {"lost": ", ".join(told.lost) or "-"})
    missing = sorted(here - seen)
    observed = f"{len(here & seen)} / {len(here)}"
    if not missing and not told.lost:
        return passed(observed)
    observed = f"{observed}; {', '.join(missing[:8]) or ', '.join(told.lost[:8])}"
    if facts.call("container", Container).kind and seen and not told.lost:
        return warned(observed, Text("a container: it may have been given only these", "容器：可能只分配了部分卡"))
    return failed(observed)


INSTALLED = Command("modinfo", "-F", "version", "nvidia")


@nvidia_node_check(
    "nvidia.upgrade",
    title=Text("The driver that runs is the one that is installed", "运行中的驱动与已安装版本一致"),
    method=Text(f"/{MODULE.path}; modinfo -F version nvidia", f"/{MODULE.path}；modinfo -F version nvidia"),
    criterion=Text("the same version", "版本相同"),
    suggestion=Text(
        "an upgrade has not been finished: drain the node and reboot it", "驱动升级尚未完成：排空节点后重启"
    ),
    reads=(*HERE, MODULE, INSTALLED),
    severity=Severity.MAJOR,
    action=Action.REBOOT,
)
def upgrade(facts: FactView) -> Outcome:
    installed(facts)
    loaded = module_version(facts)
    if loaded is None:
        raise NotKnown("cause", Text("no module is loaded: see item nvidia.driver", "模块未加载，见 nvidia.driver"))
    reading = facts.command(*INSTALLED.argv)
    on_disk = reading.text.strip()
    if reading.exit_code != 0:
        if "not found" in reading.detail:
            raise DoesNotApply(
                Text(
                    "the module is not on disk here: a driver container brought it",
                    "本机磁盘上没有该模块：由驱动容器提供",
                )
            )
        raise NotKnown("error", Text("modinfo said: {e}", "modinfo 返回：{e}").fill(e=reading.detail[:200] or "-"))
    if not on_disk[:1].isdigit():
        raise NotKnown("parse", Text("modinfo gave no version", "modinfo 未给出版本"))
    observed = f"{loaded[0]} / {on_disk[:40]}"
    return passed(observed) if loaded[0] == on_disk else failed(observed)


@nvidia_node_check(
    "nvidia.processes",
    title=Text("Nobody uses the cards", "GPU 上无残留进程"),
    method=method("compute and graphics processes", "计算与图形进程"),
    criterion=Text("none; one is a warning", "无；存在则告警"),
    suggestion=Text(
        "a job still runs, or left something behind: end it (nvidia-smi names the process) before the next one starts",
        "作业仍在运行或有残留：在下一个作业开始前结束这些进程（nvidia-smi 会列出进程）",
    ),
    reads=CARDS,
    severity=Severity.MAJOR,
)
def processes(facts: FactView) -> Outcome:
    def who(card: Use) -> tuple[NvidiaProcess, ...] | None:
        return card.processes

    return judge_cards_now(
        facts,
        uses,
        who,
        mild=bool,
        show=lambda found: " ".join(f"{p.name[:24]}({p.pid})" for p in found[:4]) or "0",
    )


LEFTOVER = 1 << 30
"""Bytes. An idle card holds a few MiB with persistence mode and a few hundred where the reserved part is counted."""


@nvidia_node_check(
    "nvidia.leftover_memory",
    title=Text("No memory of the cards is held by nobody", "显存无残留占用"),
    method=method("memory used of cards without a process", "无进程的卡的已用显存"),
    criterion=Text(
        "less than {g:g} GiB on a card that nobody uses; more is a warning", "空闲卡的已用显存少于 {g:g} GiB；否则告警"
    ).fill(g=LEFTOVER / (1 << 30)),
    suggestion=Text(
        "a process of another container or one that is dying holds it: fuser -v /dev/nvidia*; else reset the card",
        "可能被其他容器或正在退出的进程占用：fuser -v /dev/nvidia*；否则复位该卡",
    ),
    reads=CARDS,
    severity=Severity.MAJOR,
    action=Action.RESET,
)
def leftover_memory(facts: FactView) -> Outcome:
    if any(c.processes for c in cards_now(facts, uses)):
        raise DoesNotApply(Text("the cards are in use: see nvidia.processes", "GPU 正在使用，见 nvidia.processes"))

    def used(card: Use) -> int | None:
        return card.memory_used

    return judge_cards_now(
        facts,
        uses,
        used,
        mild=lambda n: n >= LEFTOVER,
        show=lambda n: f"{n / (1 << 20):.0f} MiB",
    )


def on_off(value: bool) -> str:
    return "on" if value else "off"


@nvidia_node_check(
    "nvidia.persistence",
    title=Text("The driver stays loaded between jobs", "驱动常驻（persistence mode）"),
    method=method("persistence_mode"),
    criterion=Text("on; off is a warning", "开启；关闭则告警"),
    suggestion=Text(
        "systemctl enable --now nvidia-persistenced, or nvidia-smi -pm 1",
        "systemctl enable --now nvidia-persistenced，或 nvidia-smi -pm 1",
    ),
    reads=CARDS,
    severity=Severity.MINOR,
)
def persistence(facts: FactView) -> Outcome:
    return judge_cards(facts, lambda c: c.persistence, mild=lambda on: not on, show=on_off)


def mig_mode(card: SteadyCard) -> tuple[bool, bool] | None:
    return None if card.mig is None else (card.mig, card.mig if card.mig_pending is None else card.mig_pending)


@nvidia_node_check(
    "nvidia.mig",
    title=Text("The cards are not split (MIG)", "GPU 未被切分（MIG）"),
    method=method("mig.mode.current, mig.mode.pending"),
    # NVIDIA Multi-Instance GPU User Guide: instances have no peer-to-peer, neither over PCIe nor over NVLink.
    criterion=Text(
        "off, and no change pending: a split card has no NVLink", "关闭且无待生效的变更：切分后的卡无法使用 NVLink"
    ),
    suggestion=Text(
        "nvidia-smi -mig 0 and a reset of the cards, unless this node is meant to be shared",
        "若该节点并非用于共享，执行 nvidia-smi -mig 0 并复位 GPU",
    ),
    reads=CARDS,
    severity=Severity.MAJOR,
)
def mig(facts: FactView) -> Outcome:
    return judge_cards(
        facts,
        mig_mode,
        mild=any,
        show=lambda modes: on_off(modes[0])
        if modes[0] == modes[1]
        else f"{on_off(modes[0])}, pending {on_off(modes[1])}",
    )


@nvidia_node_check(
    "nvidia.vbios",
    title=Text("Cards of one model have one VBIOS", "同型号 GPU 的 VBIOS 一致"),
    method=method("vbios_version"),
    criterion=Text("one version for each model; more is a warning", "同一型号只有一个版本；否则告警"),
    suggestion=Text(
        "bring the odd card to the version of the others with the vendor's firmware package",
        "使用厂商固件包将不一致的卡刷至相同版本",
    ),
    reads=CARDS,
    severity=Severity.MINOR,
    action=Action.CONTACT_VENDOR,
)
def vbios(facts: FactView) -> Outcome:
    found = cards(facts)
    known = known_of(found, {c.address: c.vbios for c in found})
    versions: dict[str, list[str]] = {}
    for card in found:
        if card.address in known:
            versions.setdefault(card.name, []).append(known[card.address])
    if any(len(set(v)) > 1 for v in versions.values()):
        cited(facts, known)
        usual = {name: max(set(v), key=v.count) for name, v in versions.items()}
        odd = [f"{c.address} {c.vbios}" for c in found if c.vbios is not None and c.vbios != usual[c.name]]
        most = tally(list(usual.values()))
        return warned(", ".join(odd[:8]), expected=Text(most, most))
    return judge_cards(facts, lambda c: c.vbios)


# ------------------------------------------------------------------------------------------------- the environment

# NVIDIA CUDA C++ Programming Guide, environment variables; DCGM refuses to diagnose under the injection, profiling and
# core-dump ones; NCCL User Guide, environment variables.
_HARMFUL: dict[str, Callable[[str], bool]] = {
    "CUDA_VISIBLE_DEVICES": lambda value: value.strip() in ("", "-1", "NoDevFiles"),
    "NVIDIA_TF32_OVERRIDE": lambda value: value == "0",
} | dict.fromkeys(
    (
        "CUDA_LAUNCH_BLOCKING",
        "CUDA_CACHE_DISABLE",
        "CUDA_INJECTION32_PATH",
        "CUDA_INJECTION64_PATH",
        "CUDA_ENABLE_COREDUMP_ON_EXCEPTION",
        "CUDA_DEVICE_WAITS_ON_EXCEPTION",
        "CUDA_PROFILE",
        "COMPUTE_PROFILE",
        "NSIGHT_CUDA_DEBUGGER",
        "NCCL_P2P_DISABLE",
        "NCCL_SHM_DISABLE",
    ),
    lambda value: value not in ("", "0"),
)


@nvidia_node_check(
    "nvidia.environment",
    title=Text("No variable hinders CUDA", "无影响 CUDA 的环境变量"),
    method=Text("environment of this process: " + ", ".join(_HARMFUL), "本进程的环境变量：" + "、".join(_HARMFUL)),
    criterion=Text(
        "none that hides the cards, makes CUDA wait, traces or dumps it, or turns peer-to-peer off",
        "没有隐藏 GPU、强制同步、跟踪、转储或关闭点对点的设置",
    ),
    suggestion=Text(
        "unset it, and look for where it comes from: a module, a profile, the container image, a debugging session",
        "取消该变量，并检查其来源：module、profile、容器镜像或遗留的调试设置",
    ),
    reads=(*HERE, Call("cuda_environment")),
    severity=Severity.MINOR,
    seen="container",
)
def environment(facts: FactView) -> Outcome:
    installed(facts)
    values = facts.call("cuda_environment", CudaEnvironment).values
    facts.cite(Call("cuda_environment"), "\n".join(f"{name}={v}" for name, v in values.items()) or "-")
    harmful = [f"{name}={v[:40]}" for name, v in values.items() if name in _HARMFUL and _HARMFUL[name](v)]
    return warned(", ".join(harmful[:8])) if harmful else passed("0")


# ----------------------------------------------------------------------------------------------------------- DCGM


def unit_state(facts: FactView, source: Command) -> tuple[str, str]:
    """LoadState and ActiveState of a unit; raises DoesNotApply where systemd does not run."""
    if not facts.call("container", Container).systemd:
        raise DoesNotApply(NO_SYSTEMD)
    reading = facts.command(*source.argv)
    told = dict(line.split("=", 1) for line in reading.text.splitlines() if "=" in line)
    if reading.exit_code != 0 or not told.get("LoadState") or not told.get("ActiveState"):
        raise NotKnown(
            "error",
            Text("systemctl said: {e}", "systemctl 返回：{e}").fill(e=reading.detail[:200] or reading.exit_code),
        )
    return told["LoadState"][:40], told["ActiveState"][:40]


def unit(name: str) -> Command:
    return Command("systemctl", "show", "--property=LoadState,ActiveState", name)


HOST_ENGINE = unit("nvidia-dcgm.service")


@nvidia_node_check(
    "nvidia.dcgm_service",
    title=Text("DCGM runs", "DCGM 服务运行中"),
    method=Text(HOST_ENGINE.key.removeprefix("$ "), HOST_ENGINE.key.removeprefix("$ ")),
    criterion=Text("active, where it is installed", "若已安装则应为 active"),
    suggestion=Text(
        "systemctl restart nvidia-dcgm; journalctl -u nvidia-dcgm",
        "systemctl restart nvidia-dcgm；journalctl -u nvidia-dcgm",
    ),
    reads=(*HERE, Call("container"), HOST_ENGINE),
    severity=Severity.MINOR,
    seen="container",
)
def dcgm_service(facts: FactView) -> Outcome:
    installed(facts)
    loaded, active = unit_state(facts, HOST_ENGINE)
    if loaded == "not-found":
        raise DoesNotApply(Text("DCGM is no service of this node", "该节点未安装 DCGM 服务"))
    return passed(active) if active == "active" else warned(active)


HEALTH = Command("dcgmi", "health", "-g", "0", "-c", timeout=10.0)


@nvidia_node_check(
    "nvidia.dcgm_health",
    title=Text("DCGM has nothing to complain of", "DCGM 健康监控无异常"),
    method=Text(HEALTH.key.removeprefix("$ "), HEALTH.key.removeprefix("$ ")),
    criterion=Text(
        "Healthy; Warning is a warning. Only what its watches have seen already is read",
        "Healthy；Warning 则告警。仅读取其监控已有的结果",
    ),
    suggestion=Text(
        "it names the card and the part; dcgmi diag -r 2 on the drained node tells more",
        "其中给出了卡号与部件；排空节点后可用 dcgmi diag -r 2 进一步诊断",
    ),
    reads=(*HERE, HEALTH),
    severity=Severity.MAJOR,
    action=Action.ISOLATE,
    seen="container",
)
def dcgm_health(facts: FactView) -> Outcome:
    installed(facts)
    if facts.absent(HEALTH.key):
        raise DoesNotApply(Text("there is no dcgmi here", "未安装 dcgmi"))
    reading = facts.command(*HEALTH.argv)
    said = f"{reading.text}\n{reading.detail}"
    if "watches not enabled" in said:
        raise DoesNotApply(Text("no health watch of DCGM is set up", "DCGM 未启用健康监控"))
    if "nable to connect" in said:
        raise NotKnown(
            "cause",
            Text(
                "its host engine does not answer: see nvidia.dcgm_service",
                "nv-hostengine 无响应，见 nvidia.dcgm_service",
            ),
        )
    overall, complaints = parsed(reader.dcgm_health, reading.text, HEALTH.key.removeprefix("$ "))
    if overall == "Healthy":
        return passed(overall)
    verdict = failed if overall == "Failure" else warned
    said = "; ".join(complaints)[:600]
    return verdict(overall, Text(said, said))
