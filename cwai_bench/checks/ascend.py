"""Ascend NPUs: the driver, the chips, their memory, and the links between them. The RoCE ports: ``ascend_roce.py``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import wraps
from statistics import median
from typing import TypeVar

from cwai_bench.checks import (
    DoesNotApply,
    FactView,
    NotKnown,
    Outcome,
    configurable_check,
    consistency_check,
    failed,
    node_check,
    parsed,
    passed,
    warned,
)
from cwai_bench.checks.kernel_log import LOG, recent
from cwai_bench.checks.kind import ACCELERATOR
from cwai_bench.model import Action, Reading, ReasonCode, Severity, Status
from cwai_bench.readers import ascend
from cwai_bench.sources import Call, Command, Container, Each, File, Pci, PciDevice, SteadyHost
from cwai_bench.text import Text, plain

T = TypeVar("T")

PCI = Call("pci")
HUAWEI = "19e5"
WITHOUT_HBM = ("d100", "d105", "d500")
"""PCI devices of Ascend 310, 310B and 310P: cards for inference, with neither HBM nor HCCS nor a RoCE port."""
SMI_TIMEOUT = 6.0
"""npu-smi asks the management unit of each card in turn: a second or two with eight of them."""
DEVICES = "dev/davinci[0-9]*"


def _smi(*words: str) -> Each:
    return Each("npu-smi", "info", *words, over=DEVICES, timeout=SMI_TIMEOUT)


INFO = Command("npu-smi", "info", timeout=SMI_TIMEOUT)
MAP = Command("npu-smi", "info", "-m", timeout=SMI_TIMEOUT)
NPUS = (PCI, MAP, Call("container"))
"""What tells which cards there should be, and which there are."""
ECC = _smi("-t", "ecc", "-i", "{}")
BOARD = _smi("-t", "board", "-i", "{}")
# One for each chip that a card may have.
HEALTH = _smi("-t", "health", "-i", "{}", "-c", "0"), _smi("-t", "health", "-i", "{}", "-c", "1")
HCCS = _smi("-t", "hccs", "-i", "{}", "-c", "0"), _smi("-t", "hccs", "-i", "{}", "-c", "1")
# The chips of a card are in one pod.
SUPER_POD = _smi("-t", "spod-info", "-i", "{}", "-c", "0")
DRIVER_FILE = File("usr/local/Ascend/driver/version.info")
FIRMWARE_FILE = File("usr/local/Ascend/firmware/version.info")

NO_NPU = Text("no Ascend NPU here", "没有昇腾 NPU")
NO_HBM = Text("these cards have no HBM, HCCS or RoCE port", "该型号没有 HBM、HCCS 与 RoCE 网口")
SEE_DRIVER = Text("the driver does not answer: see ascend.driver", "驱动无响应：见 ascend.driver")


# ------------------------------------------------------------------------------------------------------------ asking


def npus(facts: FactView) -> list[PciDevice]:
    """The NPUs on PCI. Raises DoesNotApply when there is none."""
    found = [
        d
        for d in facts.call("pci", Pci).devices
        if d.model.startswith(f"{HUAWEI}:") and d.class_code >> 8 == ACCELERATOR
    ]
    facts.cite(PCI, "\n".join(f"{d.address} {d.model} {d.driver or '-'}" for d in found) or NO_NPU.en)
    if not found:
        raise DoesNotApply(NO_NPU)
    return found


def training(facts: FactView) -> None:
    """Raises DoesNotApply where the cards have no HBM, HCCS and RoCE."""
    if all(d.model.partition(":")[2] in WITHOUT_HBM for d in npus(facts)):
        raise DoesNotApply(NO_HBM, "unsupported")


def words_of(reading: Reading) -> str:
    """What a tool said, on one line: its complaint, if it had one."""
    return " ".join((reading.text.strip() or reading.detail).split())[:160]


def chips(facts: FactView) -> list[ascend.Mapped]:
    """The chips that the driver knows. Raises NotKnown(cause) where it does not answer."""
    npus(facts)
    reading = facts.command(*MAP.argv)
    if reading.exit_code not in (0, None):
        raise NotKnown("cause", SEE_DRIVER)
    return parsed(ascend.mapping, reading.text, "npu-smi info -m")


def of_all_cards(judge: Callable[[FactView], Outcome]) -> Callable[[FactView], Outcome]:
    """A PASS of fewer cards than there are on PCI is none: the others were not asked."""

    @wraps(judge)
    def whole(facts: FactView) -> Outcome:
        outcome = judge(facts)
        if outcome.status is not Status.PASS:
            return outcome
        lost = len(npus(facts)) - len(chips(facts))
        if lost > 0 and not facts.call("container", Container).kind:
            raise NotKnown(
                "cause", Text("{n} cards are lost: see ascend.count", "{n} 张卡丢失：见 ascend.count").fill(n=lost)
            )
        return outcome

    return whole


_UNSUPPORTED = re.compile(r"not support|unsupport|invalid option|invalid type|does not support", re.I)
_REFUSED = re.compile(r"permission|only root|root user|not permitted", re.I)


def answers(readings: Mapping[str, Reading], reader: Callable[[str], T], where: str) -> dict[str, T]:
    """What the tool says of each. Raises DoesNotApply when it supports none of them, NotKnown when it refused some."""
    refused = {name: words_of(r) for name, r in readings.items() if r.exit_code not in (0, None)}
    if refused:
        name, said = next(iter(refused.items()))
        if len(refused) == len(readings) and all(_UNSUPPORTED.search(words) for words in refused.values()):
            raise DoesNotApply(
                Text("{w} is not supported here: {s}", "此处不支持 {w}：{s}").fill(w=where, s=said), "unsupported"
            )
        code: ReasonCode = "permission" if _REFUSED.search(said) else "error"
        raise NotKnown(code, Text("{w}, {n}: {s}", "{w}，{n}：{s}").fill(w=where, n=name, s=said or "?"))
    return {name: parsed(reader, r.text, f"{where} ({name})") for name, r in readings.items()}


def by_card(facts: FactView, each: Each) -> dict[str, Reading]:
    """What a tool said of each card, in their order."""
    found = facts.each(*each.argv)
    return {name: found[name] for name in sorted((n for n in found if n.isdecimal()), key=int)}


def worst_first(facts: FactView, each: Each, outcome: Outcome, cards: Mapping[str, int]) -> Outcome:
    """``outcome``; in its evidence, which is cut at its end, the cards that it names come first.

    ``cards``: the number that ``each`` has put into its command, by the name that ``outcome`` uses.
    """
    named = {str(card) for name, card in cards.items() if f"{name} " in f"{outcome.observed} "}
    readings = by_card(facts, each)
    order = sorted(readings, key=lambda card: card not in named)
    facts.cite(each, "\n".join(f"[{card}] {readings[card].text.rstrip()}" for card in order))
    return outcome


def of_chips(facts: FactView, families: tuple[Each, ...], reader: Callable[[str], T]) -> dict[str, T]:
    """The answer for each chip, by its label; ``families`` holds the command for the first and the second of a card."""
    readings: dict[str, Reading] = {}
    for chip in chips(facts):
        if chip.chip >= len(families):
            raise NotKnown("unsupported", Text("{c} is not asked", "未查询 {c}").fill(c=chip.label))
        found = by_card(facts, families[chip.chip]).get(str(chip.npu))
        if found is None:
            raise _not_asked(chip.label)
        readings[chip.label] = found
    return answers(readings, reader, _words(families[0]))


def of_cards(facts: FactView, each: Each, reader: Callable[[str], T]) -> dict[str, T]:
    """The answer for each card, by its label."""
    readings = by_card(facts, each)
    labels = {f"NPU {n}": str(n) for n in sorted({c.npu for c in chips(facts)})}
    if missing := [label for label, card in labels.items() if card not in readings]:
        raise _not_asked(missing[0])
    return answers({label: readings[card] for label, card in labels.items()}, reader, _words(each))


def _words(each: Each) -> str:
    """As a person would type it, but for the card."""
    return each.key.removeprefix("$ ").replace("{}", "N")


def _not_asked(name: str) -> NotKnown:
    return NotKnown("missing_source", Text("{n} was not asked", "未查询 {n}").fill(n=name))


def known(found: Mapping[str, T | None], what: Text) -> dict[str, T]:
    """``found`` when all of them tell. Raises DoesNotApply when none does, NotKnown when some do not."""
    told = {name: value for name, value in found.items() if value is not None}
    if not told:
        raise DoesNotApply(Text("{w} is not told here", "此处不提供{w}").fill(w=what), "unsupported")
    if len(told) < len(found):
        silent = ", ".join([name for name in found if name not in told][:8])
        raise NotKnown("parse", Text("{n}: {w} is not told", "{n}：未给出{w}").fill(n=silent, w=what))
    return told


def judged(
    found: Mapping[str, T], bad: Callable[[T], str], mild: Callable[[T], str] = lambda _: "", good: str = ""
) -> Outcome:
    """FAIL or WARN naming those of which ``bad`` or ``mild`` has something to say; else PASS with the count."""
    for status, fault in ((Status.FAIL, bad), (Status.WARN, mild)):
        named = [f"{name} {said}" for name, value in found.items() if (said := fault(value))]
        if named:
            return Outcome(status, f"{', '.join(named[:8])}{' …' if len(named) > 8 else ''}"[:400])
    return passed(good or f"{len(found)} / {len(found)}")


def shown(facts: FactView) -> dict[str, ascend.Shown]:
    """The chips of the table of ``npu-smi info``, by label: all that the mapping lists."""
    return {c.label: c for c in whole_table(facts).chips}


def whole_table(facts: FactView) -> ascend.Table:
    listed = {c.label for c in chips(facts)}
    reading = facts.command(*INFO.argv)
    if reading.exit_code not in (0, None):
        raise NotKnown("cause", SEE_DRIVER)
    found = parsed(ascend.table, reading.text, "npu-smi info")
    if missing := sorted(listed - {c.label for c in found.chips}):
        raise NotKnown(
            "cause",
            Text("{m} is not in the table: see ascend.count", "表中没有 {m}：见 ascend.count").fill(m=missing[0]),
        )
    return found


SMI = plain("npu-smi info")


# ------------------------------------------------------------------------------------------------- driver and count


@node_check(
    "ascend.driver",
    title=Text("NPU driver health", "NPU 驱动健康状态"),
    method=Text("npu-smi info -m answers", "npu-smi info -m 能够返回结果"),
    criterion=Text("it ends with exit code 0 and lists the chips", "退出码为 0，且列出芯片"),
    suggestion=Text(
        "dmesg | grep ascend; check /var/log/ascend_seclog and the installed driver, then reboot the node. Error -8020:"
        " another container holds the cards",
        "查看 dmesg | grep ascend、/var/log/ascend_seclog 及驱动安装状态，然后重启节点。"
        "错误 -8020 表示 NPU 已被其他容器占用",
    ),
    reads=NPUS,
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
    scope="ascend",
)
@of_all_cards
def driver(facts: FactView) -> Outcome:
    npus(facts)
    reading = facts.command(*MAP.argv)
    said = words_of(reading)
    if reading.exit_code not in (0, None):
        # -8002: DCMI_ERR_CODE_OPER_NOT_PERMITTED
        if "-8002" in said or _REFUSED.search(said):
            raise NotKnown("permission", Text("npu-smi: {s}", "npu-smi：{s}").fill(s=said))
        return failed(said or f"exit code {reading.exit_code}")
    return passed(f"{len(parsed(ascend.mapping, reading.text, 'npu-smi info -m'))} chips")


@node_check(
    "ascend.count",
    title=Text("All NPUs are there", "NPU 数量与映射一致"),
    method=Text(
        "/sys/bus/pci/devices, /dev/davinci*, npu-smi info -m, npu-smi info",
        "/sys/bus/pci/devices、/dev/davinci*、npu-smi info -m、npu-smi info",
    ),
    criterion=Text(
        "each NPU on PCI has a device file and is known to the driver, under its own bus address (in a container: those"
        " handed to it)",
        "PCI 上的每个 NPU 均有设备文件，且驱动以其总线地址识别（容器内：仅限映射进来的 NPU）",
    ),
    suggestion=Text(
        "a card is lost: dmesg | grep ascend, lspci -d 19e5:; reboot; if it stays away, have it replaced",
        "可能掉卡：查看 dmesg | grep ascend 与 lspci -d 19e5:；重启；若仍缺失则更换",
    ),
    reads=(*NPUS, INFO, HEALTH[0]),
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
    scope="ascend",
)
def count(facts: FactView) -> Outcome:
    cards = npus(facts)
    contained = facts.call("container", Container).kind != ""
    listed = chips(facts)
    files = list(by_card(facts, HEALTH[0]))
    reading = facts.command(*INFO.argv)
    if reading.exit_code not in (0, None):
        raise NotKnown("cause", SEE_DRIVER)
    buses = {c.bus for c in parsed(ascend.table, reading.text, "npu-smi info").chips} - {"na"}
    observed = f"{len(cards)} PCI, {len(files)} /dev, {len(listed)} npu-smi"
    faults = [f"no /dev/davinci{c.device}" for c in listed if str(c.device) not in files]
    faults += [f"davinci{n} unknown to npu-smi" for n in files if int(n) not in {c.device for c in listed}]
    if not contained:
        faults += [f"{d.address} unknown to npu-smi" for d in cards if buses and d.address not in buses]
    if not contained and len(listed) < len(cards) and not faults:
        faults.append(f"{len(cards) - len(listed)} lost")
    return failed(f"{observed}: {', '.join(faults[:8])}") if faults else passed(observed)


# ----------------------------------------------------------------------------------------------------------- versions


def _version(facts: FactView, file: File) -> dict[str, str]:
    npus(facts)
    text = facts.maybe(file.path)
    if text is None:
        raise NotKnown(
            "missing_source",
            Text(
                "/{p} is not there (installed elsewhere, or not handed to this container)",
                "/{p} 不存在（安装在其他路径，或未映射进容器）",
            ).fill(p=file.path),
        )
    return parsed(ascend.version_file, text, f"/{file.path}")


def _dotted(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d{1,6}", version)[:8])


@node_check(
    "ascend.firmware",
    title=Text("NPU driver and firmware fit each other", "NPU 驱动与固件版本匹配"),
    method=Text(
        "compatible_version_fw of driver/version.info, Version of firmware/version.info (/usr/local/Ascend);"
        " Compatibility of npu-smi info -t board -i N",
        "/usr/local/Ascend 下 driver/version.info 的 compatible_version_fw 与 firmware/version.info 的 Version；"
        "npu-smi info -t board -i N 的 Compatibility",
    ),
    criterion=Text(
        "the firmware lies within the range that the driver names, and npu-smi says OK",
        "固件版本在驱动声明的范围内，且 npu-smi 显示 OK",
    ),
    suggestion=Text(
        "install driver and firmware of one HDK release, firmware first when upgrading, then reboot",
        "安装同一 HDK 版本的驱动与固件（升级时先固件后驱动），然后重启",
    ),
    reads=(*NPUS, BOARD, DRIVER_FILE, FIRMWARE_FILE),
    severity=Severity.MAJOR,
    scope="ascend",
)
@of_all_cards
def firmware(facts: FactView) -> Outcome:
    drive, firm = _version(facts, DRIVER_FILE), _version(facts, FIRMWARE_FILE)
    observed = f"driver {drive['version']}, firmware {firm['version']}"
    boards = of_cards(facts, BOARD, ascend.board)
    told = {name: b.compatible for name, b in boards.items() if b.compatible is not None}
    bad = judged(told, lambda said: "" if said.upper() == "OK" else f"compatibility {said}")
    if bad.status is not Status.PASS:
        return worst_first(facts, BOARD, bad, {f"NPU {c.npu}": c.npu for c in chips(facts)})
    spans = re.findall(r"\[([\d.]+),([\d.]+)\]", drive.get("compatible_version_fw", ""))
    if not spans:
        if not told:
            raise NotKnown("unsupported", Text("neither says what fits", "两者均未声明兼容范围"))
        return passed(observed)
    here = _dotted(firm["version"])
    for low, high in ((_dotted(low), _dotted(high)) for low, high in spans):
        if low <= here[: len(low)] and here[: len(high)] <= high:
            return passed(observed)
    return failed(observed, expected=plain(drive["compatible_version_fw"]))


@node_check(
    "ascend.running",
    title=Text("NPU driver and firmware run as installed", "NPU 驱动与固件的运行版本与安装版本一致"),
    method=Text(
        "Software Version and Firmware Version of npu-smi info -t board -i N, against driver/version.info and"
        " firmware/version.info in /usr/local/Ascend",
        "npu-smi info -t board -i N 的 Software Version 与 Firmware Version，对照 /usr/local/Ascend 下 "
        "driver/version.info 与 firmware/version.info",
    ),
    criterion=Text("equal on every card", "每张卡均一致"),
    suggestion=Text(
        "an upgrade was not finished: reboot the node (firmware may need a power cycle)",
        "升级未完成：重启节点（固件可能需要下电重启）",
    ),
    reads=(*NPUS, BOARD, DRIVER_FILE, FIRMWARE_FILE),
    severity=Severity.MAJOR,
    action=Action.REBOOT,
    scope="ascend",
)
@of_all_cards
def running(facts: FactView) -> Outcome:
    drive, firm = _version(facts, DRIVER_FILE)["version"], _version(facts, FIRMWARE_FILE)["version"]
    boards = of_cards(facts, BOARD, ascend.board)
    versions = known({name: b.driver for name, b in boards.items()}, Text("the driver's version", "驱动版本"))
    firmwares = known({name: b.firmware for name, b in boards.items()}, Text("the firmware's version", "固件版本"))
    pairs = {name: (versions[name], firmwares[name]) for name in boards}

    def differs(pair: tuple[str, str]) -> str:
        parts = []
        if pair[0].lower() != drive.lower():
            parts.append(f"driver {pair[0]} / {drive}")
        if pair[1].lower() != firm.lower():
            parts.append(f"firmware {pair[1]} / {firm}")
        return "; ".join(parts)

    outcome = judged(pairs, differs, good=f"driver {drive}, firmware {firm}")
    return worst_first(facts, BOARD, outcome, {f"NPU {c.npu}": c.npu for c in chips(facts)})


CANN = (
    File("usr/local/Ascend/ascend-toolkit/latest/*/ascend_toolkit_install.info"),
    File("usr/local/Ascend/cann/*/ascend_toolkit_install.info"),
    File("usr/local/Ascend/nnae/latest/*/ascend_nnae_install.info"),
    File("usr/local/Ascend/nnrt/latest/*/ascend_nnrt_install.info"),
)
CANN_WHERE = Text(
    "ascend_toolkit_install.info (nnae, nnrt) below /usr/local/Ascend",
    "/usr/local/Ascend 下的 ascend_toolkit_install.info（或 nnae、nnrt）",
)


def cann_files(facts: FactView) -> dict[str, dict[str, str]]:
    """What is installed of CANN, by path. Raises DoesNotApply when nothing is."""
    npus(facts)
    texts = {path: text for file in CANN for path, text in facts.glob(file.path).items()}
    if not texts:
        raise DoesNotApply(
            Text(
                "no CANN below /usr/local/Ascend (it may live in the job's image)",
                "/usr/local/Ascend 下没有 CANN（可能位于作业镜像中）",
            )
        )
    return {path: parsed(ascend.version_file, text, f"/{path}") for path, text in texts.items()}


def _families(versions: str) -> set[str]:
    """``[V100R001C29],[V100R001C30]`` as names."""
    return set(re.findall(r"V\d{3}R\d{3}C\d{2}", versions))


@node_check(
    "ascend.cann",
    title=Text("CANN fits the driver and the machine", "CANN 与驱动及主机架构匹配"),
    method=Text(
        "innerversion, compatible_version and arch of {w}; Innerversion and compatible_version of driver/version.info",
        "{w} 的 innerversion、compatible_version 与 arch；driver/version.info 的 Innerversion 与 compatible_version",
    ).fill(w=CANN_WHERE),
    criterion=Text(
        "one of the two names the other's version as compatible (else a warning); CANN is built for this architecture",
        "两者之一声明与对方版本兼容（否则告警）；CANN 的架构与本机一致",
    ),
    suggestion=Text(
        "install the CANN release that Huawei's version table pairs with this driver",
        "按华为版本配套表安装与该驱动配套的 CANN",
    ),
    reads=(PCI, DRIVER_FILE, Call("host"), *CANN),
    severity=Severity.MAJOR,
    seen="container",
    scope="ascend",
)
def cann(facts: FactView) -> Outcome:
    found = cann_files(facts)
    drive = _version(facts, DRIVER_FILE)
    machine = facts.call("host", SteadyHost).machine
    foreign = [f"{f['version']} {f['arch']}" for f in found.values() if f.get("arch", machine) != machine]
    if foreign:
        return failed(f"{', '.join(foreign[:4])} / {machine}")
    observed = f"CANN {', '.join(sorted({f['version'] for f in found.values()}))}, driver {drive['version']}"
    mine = _families(drive.get("innerversion", "")[:12])
    for one in found.values():
        theirs = _families(one.get("innerversion", "")[:12])
        if not mine or not theirs:
            raise NotKnown("parse", Text("an inner version is not told", "未给出 innerversion"))
        accepted = _families(one.get("compatible_version", "")) & mine
        if not accepted and not _families(drive.get("compatible_version", "")) & theirs and mine != theirs:
            return warned(f"{observed}: {min(theirs)} / {min(mine)}")
    return passed(observed)


# ---------------------------------------------------------------------------------------------------------- chip health

# What the codes mean is said in the fault knowledge base of MindCluster's ascend-fd; what to do, in our own words.
CODES: dict[str, Text] = {
    "80E01801": Text(
        "HBM: double-bit error whose page could not be isolated; reset the card", "HBM 多比特错误且隔离失败；请复位该卡"
    ),
    "80E18400": Text("HBM: double-bit error; run the HBM stress test", "HBM 多比特错误；请运行 HBM 压测"),
    "80E18401": Text("HBM: 16 rows or more isolated; reset the card", "HBM 隔离行达到 16 个；请复位该卡"),
    "80E18402": Text("HBM: 64 rows isolated; have the NPU replaced", "HBM 隔离行达到 64 个；请更换 NPU"),
    "8C084E00": Text("a service on the chip does not answer; reset the card", "芯片侧服务心跳异常；请复位该卡"),
}


def healths(facts: FactView) -> dict[str, ascend.Health]:
    return of_chips(facts, HEALTH, ascend.health)


def _advice(ill: Mapping[str, ascend.Health]) -> Text | None:
    """What the first code that we know asks for; else the tool's own words."""
    for code in (code for h in ill.values() for code in h.codes if code in CODES):
        return Text("{c}: {w}", "{c}：{w}").fill(c=code, w=CODES[code])
    words = next((h.words for h in ill.values() if h.words), "")
    return plain(words[:200]) if words else None


@node_check(
    "ascend.health",
    title=Text("NPU chip health", "NPU 芯片健康状态"),
    method=plain("npu-smi info -t health -i N -c M"),
    criterion=Text("OK on every chip; Warning is a warning", "每个芯片均为 OK；Warning 则告警"),
    suggestion=Text(
        "look the error code up in Huawei's health management fault reference; reset the chip (npu-smi set -t reset),"
        " reboot, and if it comes back have the card replaced",
        "在华为《健康管理故障定义》中查询错误码；复位芯片（npu-smi set -t reset）或重启，若复现则更换",
    ),
    reads=(*NPUS, *HEALTH),
    severity=Severity.CRITICAL,
    action=Action.ISOLATE,
    scope="ascend",
)
@of_all_cards
def chip_health(facts: FactView) -> Outcome:
    found = healths(facts)

    def words(h: ascend.Health) -> str:
        return f"{h.status} {' '.join(h.codes[:4])}".strip()

    outcome = judged(
        found,
        lambda h: "" if h.status.upper() in ("OK", "WARNING") else words(h),
        lambda h: words(h) if h.status.upper() == "WARNING" else "",
        good=f"OK × {len(found)}",
    )
    ill = {name: h for name, h in found.items() if h.status.upper() != "OK"}
    return outcome if not ill else Outcome(outcome.status, outcome.observed, _advice(ill))


@node_check(
    "ascend.codes",
    title=Text("No fault codes on healthy NPU chips", "健康的 NPU 芯片无故障码"),
    method=Text("Error Code of npu-smi info -t health -i N -c M", "npu-smi info -t health -i N -c M 的 Error Code"),
    criterion=Text("none; one is a warning", "无；出现则告警"),
    suggestion=Text(
        "look the code up in Huawei's health management fault reference; npu-smi clears it once the cause is gone",
        "在华为《健康管理故障定义》中查询该码；原因消除后故障码会自动清除",
    ),
    reads=(*NPUS, *HEALTH),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    scope="ascend",
)
@of_all_cards
def codes(facts: FactView) -> Outcome:
    found = healths(facts)
    well = {name: h for name, h in found.items() if h.status.upper() == "OK"}
    outcome = judged(well, lambda _: "", lambda h: " ".join(h.codes[:4]), good=f"0 / {len(found)}")
    if outcome.status is Status.PASS and len(well) < len(found):
        raise NotKnown("cause", Text("chips are not well: see ascend.health", "芯片异常：见 ascend.health"))
    return Outcome(outcome.status, outcome.observed, _advice({n: h for n, h in well.items() if h.codes}))


# ------------------------------------------------------------------------------------------------------------------ HBM


def eccs(facts: FactView) -> dict[str, ascend.Ecc]:
    """The HBM errors of each chip."""
    training(facts)
    found: dict[str, ascend.Ecc] = {}
    listed = chips(facts)
    for label, blocks in of_cards(facts, ECC, ascend.ecc).items():
        mine = [c for c in listed if f"NPU {c.npu}" == label]
        if len(blocks) != len(mine):
            raise NotKnown(
                "parse",
                Text("{n}: {b} of {c} chips tell", "{n}：{c} 个芯片中仅 {b} 个给出结果").fill(
                    n=label, b=len(blocks), c=len(mine)
                ),
            )
        found.update(zip((c.label for c in mine), blocks, strict=True))
    return found


@node_check(
    "ascend.hbm",
    title=Text("HBM health", "HBM 健康状态"),
    method=Text(
        "HBM Double Bit Error Count of npu-smi info -t ecc -i N (since the chip was reset)",
        "npu-smi info -t ecc -i N 的 HBM Double Bit Error Count（自芯片复位以来）",
    ),
    criterion=Text("0 on every chip", "每个芯片均为 0"),
    suggestion=Text(
        "reset the card so that the bad pages are isolated, then run the HBM stress test (ascend-dmi --dg -i hbm); if"
        " it comes back, replace the NPU",
        "复位该卡以隔离坏页，再运行 HBM 压测（ascend-dmi --dg -i hbm）；若复现则更换 NPU",
    ),
    reads=(*NPUS, ECC),
    severity=Severity.CRITICAL,
    action=Action.RESET,
    scope="ascend",
)
@of_all_cards
def hbm(facts: FactView) -> Outcome:
    return judged(eccs(facts), lambda e: f"{e.double} double-bit" if e.double else "")


# Huawei's fault code 0x80E18402 is raised at 64 isolated rows (CODES).
PAGES_FAIL = 64


@node_check(
    "ascend.hbm_pages",
    title=Text("HBM pages taken out of use", "HBM 隔离页"),
    method=Text(
        "Double Bit Isolated Pages Count and Next-Isolated Pages Count of npu-smi info -t ecc -i N",
        "npu-smi info -t ecc -i N 的 Double Bit Isolated Pages Count 与 Next-Isolated Pages Count",
    ),
    criterion=Text(
        "fewer than {n} isolated; any, or pages that wait for a reset, is a warning",
        "隔离页少于 {n}；存在隔离页或等待复位隔离的页则告警",
    ).fill(n=PAGES_FAIL),
    suggestion=Text(
        "pages that wait: reset the card; many isolated ones: replace the NPU",
        "存在待隔离页时复位该卡；隔离页过多时更换 NPU",
    ),
    reads=(*NPUS, ECC),
    severity=Severity.MAJOR,
    action=Action.RESET,
    scope="ascend",
)
@of_all_cards
def hbm_pages(facts: FactView) -> Outcome:
    return judged(
        eccs(facts),
        lambda e: f"{e.double_pages} isolated" if e.double_pages >= PAGES_FAIL else "",
        lambda e: f"{e.double_pages} isolated, {e.pending} pending" if e.double_pages or e.pending else "",
    )


# Corrected errors do no harm; so many since a reset foretell the other kind. Our own rule.
CORRECTED_MANY = 1000


@node_check(
    "ascend.hbm_corrected",
    title=Text("Corrected HBM errors are few", "HBM 可纠正错误数量"),
    method=Text(
        "HBM Single Bit Error Count of npu-smi info -t ecc -i N",
        "npu-smi info -t ecc -i N 的 HBM Single Bit Error Count",
    ),
    criterion=Text("fewer than {n} since the chip was reset", "自芯片复位以来少于 {n} 次").fill(n=CORRECTED_MANY),
    suggestion=Text("watch the count; a card whose count grows fast should be tested", "持续观察；增长快的卡应做压测"),
    reads=(*NPUS, ECC),
    severity=Severity.MINOR,
    action=Action.MONITOR,
    scope="ascend",
)
@of_all_cards
def hbm_corrected(facts: FactView) -> Outcome:
    return judged(eccs(facts), lambda _: "", lambda e: f"{e.single}" if e.single >= CORRECTED_MANY else "")


# ------------------------------------------------------------------------------------------- the table of npu-smi info

# Before a job the cards are idle: 30 to 50 °C in the outputs that people publish. Our own rule.
HOT_WARN, HOT_FAIL = 75.0, 95.0


@node_check(
    "ascend.temperature",
    title=Text("NPU temperature", "NPU 温度"),
    method=SMI,
    criterion=Text("below {w:g} °C; {f:g} °C and more fails", "低于 {w:g} °C；达到 {f:g} °C 则不通过").fill(
        w=HOT_WARN, f=HOT_FAIL
    ),
    suggestion=Text("check fans, air ducts and liquid cooling of that slot", "检查该槽位的风扇、风道或液冷"),
    reads=(*NPUS, INFO),
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
    scope="ascend",
)
@of_all_cards
def temperature(facts: FactView) -> Outcome:
    told = known({n: c.temperature for n, c in shown(facts).items()}, Text("the temperature", "温度"))
    return judged(
        told,
        lambda t: f"{t:g} °C" if t >= HOT_FAIL else "",
        lambda t: f"{t:g} °C" if t >= HOT_WARN else "",
        good=f"max {max(told.values()):g} °C",
    )


# Our own rule: cards of one node at rest differ by a few watts.
POWER_SHARE, POWER_MORE = 1.5, 40.0


@node_check(
    "ascend.power",
    title=Text("NPU power at rest", "NPU 空闲功耗"),
    method=SMI,
    criterion=Text(
        "told by every card, and none draws more than {s:g} times the median and {m:g} W above it",
        "每张卡均给出，且无一超过中位数的 {s:g} 倍且高出 {m:g} W",
    ).fill(s=POWER_SHARE, m=POWER_MORE),
    suggestion=Text(
        "something still runs on that card, or its power supply is not well: see ascend.processes, ascend.ai_core",
        "该卡仍有任务，或供电异常：见 ascend.processes 与 ascend.ai_core",
    ),
    reads=(*NPUS, INFO),
    severity=Severity.MINOR,
    action=Action.MONITOR,
    scope="ascend",
)
@of_all_cards
def power(facts: FactView) -> Outcome:
    # The second chip of a card shares the meter of the first.
    told = known({n: c.power for n, c in shown(facts).items() if c.chip == 0}, Text("the power", "功耗"))
    middle = median(told.values())
    limit = max(middle * POWER_SHARE, middle + POWER_MORE)
    return judged(
        told,
        lambda w: f"{w:g} W" if w <= 0 else "",
        lambda w: f"{w:g} W / {middle:g} W" if w > limit else "",
        good=f"{min(told.values()):g} to {max(told.values()):g} W",
    )


BUSY = 5.0


@node_check(
    "ascend.ai_core",
    title=Text("AI cores are idle before the job", "作业前 AI Core 空闲"),
    method=SMI,
    criterion=Text("used less than {b:g} %", "利用率低于 {b:g} %").fill(b=BUSY),
    suggestion=Text("another job runs here: see ascend.processes", "有其他作业在运行：见 ascend.processes"),
    reads=(*NPUS, INFO),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    scope="ascend",
)
@of_all_cards
def ai_core(facts: FactView) -> Outcome:
    told = known({n: c.ai_core for n, c in shown(facts).items()}, Text("the AI core's use", "AI Core 利用率"))
    return judged(told, lambda _: "", lambda u: f"{u:g} %" if u >= BUSY else "")


# The driver keeps about 3.4 GB of 64 GB for itself (vllm-ascend issue 2534). Our own rule: twice that is a leftover.
MEMORY_SHARE = 0.10


@node_check(
    "ascend.memory",
    title=Text("NPU memory is free before the job", "作业前 NPU 显存空闲"),
    method=SMI,
    criterion=Text("used less than {s:.0%}", "占用低于 {s:.0%}").fill(s=MEMORY_SHARE),
    suggestion=Text(
        "end what was left over (ascend.processes); if nothing runs, reset the card: npu-smi set -t reset -i N -c M",
        "结束残留进程（见 ascend.processes）；若无进程则复位该卡：npu-smi set -t reset -i N -c M",
    ),
    reads=(*NPUS, INFO),
    severity=Severity.MAJOR,
    action=Action.RESET,
    scope="ascend",
)
@of_all_cards
def memory(facts: FactView) -> Outcome:
    shares = {
        n: c.memory_used / c.memory_total if c.memory_total and c.memory_used is not None else None
        for n, c in shown(facts).items()
    }
    told = known(shares, Text("the memory's use", "显存占用"))
    return judged(
        told, lambda _: "", lambda s: f"{s:.0%}" if s >= MEMORY_SHARE else "", good=f"max {max(told.values()):.1%}"
    )


@node_check(
    "ascend.processes",
    title=Text("No process holds an NPU before the job", "作业前无进程占用 NPU"),
    method=Text("the processes that npu-smi info lists", "npu-smi info 列出的进程"),
    criterion=Text("none; one is a warning", "无；出现则告警"),
    suggestion=Text(
        "see whose they are (ps -o user,pid,cmd -p PID), and end what a dead job left behind",
        "确认进程归属（ps -o user,pid,cmd -p PID），结束已终止作业的残留进程",
    ),
    reads=(*NPUS, INFO),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    scope="ascend",
)
@of_all_cards
def processes(facts: FactView) -> Outcome:
    found = whole_table(facts).processes
    if found is None:
        raise DoesNotApply(Text("npu-smi lists no processes here", "此处 npu-smi 不列出进程"), "unsupported")
    if not found:
        return passed("0")
    return warned(f"{len(found)}: {', '.join(f'NPU {p.npu} {p.name[:24]} ({p.pid})' for p in found[:8])}")


# ---------------------------------------------------------------------------------------------------------------- links


@node_check(
    "ascend.hccs",
    title=Text("HCCS links between the NPUs", "NPU 间 HCCS 链路"),
    method=plain("npu-smi info -t hccs -i N -c M"),
    criterion=Text(
        "health OK, no lane lost (as many as on the widest link), no errors; retries are a warning",
        "状态 OK、无丢失通道（与最宽链路一致）、无错误；有重试则告警",
    ),
    suggestion=Text(
        "reset all cards of the node, reboot; if the same link comes back, have the module or board replaced",
        "复位节点内全部 NPU 或重启；若同一链路复现则更换模组或主板",
    ),
    reads=(*NPUS, *HCCS),
    severity=Severity.CRITICAL,
    action=Action.RESET,
    scope="ascend",
)
@of_all_cards
def hccs(facts: FactView) -> Outcome:
    training(facts)
    found = of_chips(facts, HCCS, ascend.hccs)
    wide = max((lane for h in found.values() for lane in h.lanes or []), default=0)

    def bad(h: ascend.Hccs) -> str:
        if h.health.upper() != "OK":
            return h.health
        narrow = [f"link {i} ×{lane}" for i, lane in enumerate(h.lanes or []) if lane < wide]
        narrow += [f"link {i} {n} errors" for i, n in enumerate(h.errors) if n]
        return " ".join(narrow[:3])

    outcome = judged(found, bad, lambda h: f"{sum(h.retries)} retries" if any(h.retries) else "")
    for place, each in enumerate(HCCS):
        worst_first(facts, each, outcome, {c.label: c.npu for c in chips(facts) if c.chip == place})
    return outcome


# ----------------------------------------------------------------------------------------------------------- kernel log

# The driver's drv_err: printk("[ascend] [ERROR] [module] [function line] …")
_LOST = re.compile(
    r"\[ascend\].*(?:heart ?beat.{0,20}(?:lost|timeout)|device.{0,20}(?:lost|offline|not exist)|hot reset|"
    r"DMA copy failed|pcie.{0,20}(?:link down|disconnect)|drv_soft_fault)",
    re.I,
)
_COMPLAINT = re.compile(r"\[ascend\] \[ERROR\]")


@node_check(
    "ascend.log",
    title=Text("The NPU driver logged no fault", "NPU 驱动日志无故障"),
    method=Text(
        "kernel log (/dev/kmsg) of the last 24 h: “[ascend] [ERROR] …”",
        "最近 24 小时的内核日志（/dev/kmsg）：“[ascend] [ERROR] …”",
    ),
    criterion=Text(
        "no lost heartbeat, lost device or failed DMA; any other error of the driver is a warning",
        "无心跳丢失、设备丢失或 DMA 失败；驱动的其他错误则告警",
    ),
    suggestion=Text(
        "the line names the module and the device (devid); collect msnpureport, reset or reboot, and open a ticket",
        "日志指明了模块与设备（devid）；用 msnpureport 收集日志，复位或重启后提交工单",
    ),
    reads=(PCI, LOG),
    severity=Severity.MAJOR,
    action=Action.REBOOT,
    needs=("permission to read the kernel log",),
    scope="ascend",
)
def log(facts: FactView) -> Outcome:
    npus(facts)
    lines, covered = recent(facts, _LOST, _COMPLAINT)
    observed = f"{len(lines)} in {covered:.1f} h"
    if not lines:
        return passed(observed)
    lost = [line for line in lines if _LOST.search(line.text[:1000])]
    detail = Text("last: {l}", "最近一条：{l}").fill(l=(lost or lines)[-1].text[:160])
    return failed(observed, detail) if lost else warned(observed, detail)


# ---------------------------------------------------------------------------------------------------------- consistency

ONE_IMAGE = Text("install the same HDK and CANN release on all nodes", "所有节点安装相同版本的 HDK 与 CANN")


@consistency_check(
    "same.ascend.driver",
    title=Text("NPU driver version", "NPU 驱动版本"),
    method=Text("Version of /{p}", "/{p} 的 Version").fill(p=DRIVER_FILE.path),
    suggestion=ONE_IMAGE,
    reads=(PCI, DRIVER_FILE),
    severity=Severity.MAJOR,
    scope="ascend",
)
def same_driver(facts: FactView) -> str:
    return _version(facts, DRIVER_FILE)["version"]


@consistency_check(
    "same.ascend.firmware",
    title=Text("NPU firmware version", "NPU 固件版本"),
    method=Text("Version of /{p}", "/{p} 的 Version").fill(p=FIRMWARE_FILE.path),
    suggestion=ONE_IMAGE,
    reads=(PCI, FIRMWARE_FILE),
    severity=Severity.MAJOR,
    scope="ascend",
)
def same_firmware(facts: FactView) -> str:
    return _version(facts, FIRMWARE_FILE)["version"]


@consistency_check(
    "same.ascend.cann",
    title=Text("CANN version", "CANN 版本"),
    method=Text("version of {w}", "{w} 的 version").fill(w=CANN_WHERE),
    suggestion=ONE_IMAGE,
    reads=(PCI, *CANN),
    severity=Severity.MAJOR,
    seen="container",
    scope="ascend",
)
def same_cann(facts: FactView) -> str:
    return ", ".join(sorted({f["version"] for f in cann_files(facts).values()}))


@consistency_check(
    "same.ascend.chip",
    title=Text("NPU model", "NPU 型号"),
    method=Text("Chip Name of npu-smi info -m", "npu-smi info -m 的 Chip Name"),
    suggestion=Text("do not mix chip models in one job", "同一作业不要混用不同型号的芯片"),
    reads=NPUS,
    severity=Severity.MAJOR,
    scope="ascend",
)
def same_chip(facts: FactView) -> str:
    names = [" ".join(c.name.split()) for c in chips(facts)]
    return ", ".join(f"{names.count(name)} × {name}" for name in sorted(set(names)))


@consistency_check(
    "same.ascend.super_pod",
    title=Text("Super pod of the NPUs", "NPU 所属超节点"),
    method=Text(
        "Super Pod ID and Super Pod Size of npu-smi info -t spod-info -i N -c 0",
        "npu-smi info -t spod-info -i N -c 0 的 Super Pod ID 与 Super Pod Size",
    ),
    suggestion=Text(
        "nodes of one super pod should share its id: set it in the BMC", "同一超节点的节点应具有相同 ID：在 BMC 中设置"
    ),
    reads=(*NPUS, SUPER_POD),
    severity=Severity.MAJOR,
    scope="ascend",
)
def same_super_pod(facts: FactView) -> str:
    training(facts)
    found = of_cards(facts, SUPER_POD, ascend.super_pod).values()
    return ", ".join(sorted({f"{s.pod} of {s.size}" for s in found}))


# --------------------------------------------------------------------------------------------------------- configurable


@configurable_check(
    "ascend.ecc_total",
    title=Text("HBM errors in all (single and double bit)", "HBM 累计错误数（单比特与多比特）"),
    method=Text(
        "HBM … Aggregate Total Err Cnt of npu-smi info -t ecc -i N",
        "npu-smi info -t ecc -i N 的 HBM … Aggregate Total Err Cnt",
    ),
    suggestion=Text("test the HBM of that card; replace it", "对该卡做 HBM 压测；更换该卡"),
    reads=(*NPUS, ECC),
    unit="1",
    scope="ascend",
)
def ecc_total(facts: FactView) -> dict[str, float]:
    return {name: float(e.single_total + e.double_total) for name, e in eccs(facts).items()}


@configurable_check(
    "ascend.celsius",
    title=Text("NPU temperature, °C", "NPU 温度（°C）"),
    method=SMI,
    suggestion=Text("check the cooling of that slot", "检查该槽位散热"),
    reads=(*NPUS, INFO),
    unit="1",
    scope="ascend",
)
def celsius(facts: FactView) -> dict[str, float]:
    return known({n: c.temperature for n, c in shown(facts).items()}, Text("the temperature", "温度"))
