"""NVIDIA cards: who is asked, and the shape of an item that looks at every card.

NVML is asked first. Where its library is not, ``nvidia-smi -q -x`` says the same, and an item sees no difference. A
driver that does not answer fails ``nvidia.driver``; the items that then have nothing to judge name it as their cause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from cwai_bench.checks import (
    Command,
    DoesNotApply,
    FactView,
    File,
    NotKnown,
    Outcome,
    Source,
    configurable_check,
    consistency_check,
    failed,
    node_check,
    parsed,
    passed,
    warned,
)
from cwai_bench.checks.kind import accelerators
from cwai_bench.readers import nvidia as reader
from cwai_bench.sources import (
    NO_DRIVER_LIBRARY,
    NO_PYTHON_LIBRARY,
    Call,
    Container,
    Nvidia,
    NvidiaProcess,
    NvLink,
    Pci,
    PciDevice,
    SteadyCard,
    SteadyNvidia,
)
from cwai_bench.text import Text


class Card(Protocol):
    """A card, whatever is told of it."""

    @property
    def address(self) -> str: ...

    @property
    def name(self) -> str: ...


T = TypeVar("T")
C = TypeVar("C", bound=Card)
SCOPE = "nvidia"
VENDOR = "10de"
PASSED_THROUGH = "vfio-pci"
PCI = Call("pci")
# Without persistence mode the driver initialises every card anew for each of these: seconds for eight.
NVML = Call("nvml", timeout=15.0)
SMI = Command("nvidia-smi", "-q", "-x", timeout=20.0, unless=NVML.key)
HERE: tuple[Source, ...] = (PCI,)
"""What an item reads that only has to know whether there are NVIDIA cards."""
CARDS: tuple[Source, ...] = (PCI, Call("container"), NVML, SMI)
NVLINK_STATUS = Command("nvidia-smi", "nvlink", "-s", timeout=20.0, unless=NVML.key)
NVLINK_ERRORS = Command("nvidia-smi", "nvlink", "-e", timeout=20.0, unless=NVML.key)
# nvidia-smi(1), RETURN VALUE
EXIT_CODES = {
    2: "invalid argument",
    3: "not supported",
    4: "no permission",
    6: "query unsuccessful",
    8: "external power cables not attached",
    9: "driver not loaded",
    10: "interrupt issue",
    12: "NVML library not found",
    13: "NVML function not found",
    14: "infoROM corrupted",
    15: "GPU fell off the bus",
    18: "driver and library versions differ",
    255: "internal driver error",
}
CORRUPT_INFOROM = 14
SAYS = Text("NVML, else nvidia-smi -q -x: {w}", "NVML（缺失时用 nvidia-smi -q -x）：{w}")

nvidia_node_check = partial(node_check, scope=SCOPE)
nvidia_same = partial(consistency_check, scope=SCOPE)
nvidia_yours = partial(configurable_check, scope=SCOPE)


def method(en: str, zh: str = "") -> Text:
    """How an item asks about each card: ``en`` names the fields."""
    return Text(SAYS.en.replace("{w}", en), SAYS.zh.replace("{w}", zh or en))


class DriverDown(NotKnown):
    """The driver could not be asked. ``said`` is what came instead."""

    def __init__(self, said: str) -> None:
        super().__init__(
            "cause", Text("the driver does not answer: see item nvidia.driver", "驱动无响应，见 nvidia.driver")
        )
        self.said = said


def installed(facts: FactView) -> list[PciDevice]:
    """The NVIDIA cards on PCI that are not given away to virtual machines; raises DoesNotApply when there is none."""
    found = facts.made("pci", Pci, _installed)
    facts.cite(PCI, lambda: "\n".join(f"{d.address} {d.model} {d.driver or '-'}" for d in found) or "(no NVIDIA card)")
    if not found:
        raise DoesNotApply(Text("no NVIDIA GPU here", "没有 NVIDIA GPU"))
    return found


def _installed(pci: Pci) -> list[PciDevice]:
    return [d for d in accelerators(pci) if d.model.split(":")[0] == VENDOR and d.driver != PASSED_THROUGH]


def nvml(facts: FactView) -> SteadyNvidia | None:
    """What NVML says; None where it cannot be asked: its library is not here, or breaks."""
    if facts.absent(NVML.key):
        return None
    try:
        told = facts.call(NVML.name, SteadyNvidia)
    except NotKnown as e:
        if e.reason_code == "error":
            return None
        raise
    facts.cite(NVML, told.error)
    return None if told.code in (NO_PYTHON_LIBRARY, NO_DRIVER_LIBRARY) else told


def answer(facts: FactView) -> SteadyNvidia:
    """What the driver says: all of it (``Nvidia``) where nvidia-smi said it. Raises DriverDown when it says nothing."""
    told = nvml(facts)
    if told is not None and told.error:
        raise DriverDown(told.error)
    if told is not None:
        facts.cite(NVML, f"driver {told.driver}, CUDA {told.cuda}, {len(told.cards)} cards")
        return told
    reading = facts.command(*SMI.argv)
    if reading.exit_code not in (0, CORRUPT_INFOROM):
        last = (reading.text.strip() or reading.detail).splitlines()[-1:]
        facts.cite(SMI, (reading.text.strip() or reading.detail)[-1000:])
        meaning = EXIT_CODES.get(reading.exit_code or 0, "")
        raise DriverDown(": ".join(filter(None, [f"nvidia-smi: {reading.exit_code}", meaning, *last]))[:300])
    whole = parsed(reader.smi, reading.text + "\n" + reading.detail, SMI.key.removeprefix("$ "))
    facts.cite(SMI, f"driver {whole.driver}, CUDA {whole.cuda}, {len(whole.cards)} cards")
    return whole


def cards(facts: FactView) -> list[SteadyCard]:
    """The cards that the driver knows, in order of the bus."""
    installed(facts)  # first: where there is no card, nobody has to answer
    return _sorted(answer(facts).cards)


class Heat(NamedTuple):
    """What of a card changes by the minute, in degrees Celsius (see ``NvidiaCard``)."""

    address: str
    name: str
    temperature: float | None
    margin: float | None
    memory_temperature: float | None


class Use(NamedTuple):
    """Who uses a card, and how many bytes of its memory."""

    address: str
    name: str
    memory_used: int | None
    processes: tuple[NvidiaProcess, ...] | None


class Identity(NamedTuple):
    address: str
    name: str
    uuid: str


def temperatures(answer: Nvidia) -> tuple[Heat, ...]:
    return tuple(Heat(c.address, c.name, c.temperature, c.margin, c.memory_temperature) for c in answer.cards)


def uses(answer: Nvidia) -> tuple[Use, ...]:
    return tuple(
        Use(c.address, c.name, c.memory_used, None if c.processes is None else tuple(c.processes)) for c in answer.cards
    )


def identities(answer: Nvidia) -> tuple[Identity, ...]:
    return tuple(Identity(c.address, c.name, c.uuid) for c in answer.cards)


def cards_now(facts: FactView, of: Callable[[Nvidia], tuple[C, ...]]) -> list[C]:
    """As ``cards``: of each what changes by the minute, or what no other card has (``temperatures``, ``uses``,
    ``identities``)."""
    installed(facts)
    told = answer(facts)
    return _sorted(of(told) if isinstance(told, Nvidia) else facts.only(NVML.name, Nvidia, of))


def _sorted(told: Sequence[C]) -> list[C]:
    found = sorted(told, key=lambda c: c.address)
    if not found:
        raise NotKnown(
            "cause", Text("the driver sees no card: see item nvidia.count", "驱动未识别到任何卡，见 nvidia.count")
        )
    return found


def cited(facts: FactView, values: Mapping[str, object]) -> None:
    """Show what was judged of each card, as the evidence from whoever said it."""
    source: Source = SMI if nvml(facts) is None else NVML
    facts.cite(source, lambda: "\n".join(f"{name} {value}" for name, value in values.items()))


def all_seen(facts: FactView, seen: int) -> None:
    """Raises NotKnown when the driver knows fewer cards than are on PCI: what it says of the others is not all.

    A container may have been given some of the cards on purpose.
    """
    if seen < len(installed(facts)) and not facts.call("container", Container).kind:
        raise NotKnown(
            "cause", Text("not all cards were seen: see item nvidia.count", "部分卡未被识别，见 nvidia.count")
        )


def tally(values: list[str]) -> str:
    """``7 × On, 1 × Off``; only the value when all have the same."""
    counted = Counter(values)
    if len(counted) == 1:
        return values[0]
    return ", ".join(f"{n} × {value}" for value, n in counted.most_common(8))


def known_of(found: Sequence[Card], values: Mapping[str, T | None]) -> dict[str, T]:
    """The values that are known; DoesNotApply when none is, NotKnown when a card of the same model gives none."""
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        raise DoesNotApply(Text("these cards or their driver do not say", "这些卡或其驱动不提供该信息"), "unsupported")
    models = {c.name for c in found if c.address in known}
    silent = [c.address for c in found if c.address not in known and c.name in models]
    if silent:
        raise NotKnown("missing_source", Text("no answer from {c}", "以下卡未返回：{c}").fill(c=", ".join(silent[:8])))
    return known


def judge_cards(
    facts: FactView,
    value: Callable[[SteadyCard], T | None],
    *,
    bad: Callable[[T], bool] = lambda _: False,
    mild: Callable[[T], bool] = lambda _: False,
    show: Callable[[T], str] = str,
) -> Outcome:
    """FAIL when ``value`` of any card is ``bad``, WARN when it is ``mild``; each bad card is named."""
    return _judge(facts, cards(facts), value, bad, mild, show)


def judge_cards_now(
    facts: FactView,
    of: Callable[[Nvidia], tuple[C, ...]],
    value: Callable[[C], T | None],
    *,
    bad: Callable[[T], bool] = lambda _: False,
    mild: Callable[[T], bool] = lambda _: False,
    show: Callable[[T], str] = str,
) -> Outcome:
    """As ``judge_cards``, of what ``cards_now`` tells."""
    return _judge(facts, cards_now(facts, of), value, bad, mild, show)


def _judge(
    facts: FactView,
    found: list[C],
    value: Callable[[C], T | None],
    bad: Callable[[T], bool],
    mild: Callable[[T], bool],
    show: Callable[[T], str],
) -> Outcome:
    values = {c.address: value(c) for c in found}
    cited(facts, {name: "-" if v is None else show(v) for name, v in values.items()})
    for wrong, verdict in ((bad, failed), (mild, warned)):
        named = [f"{name} {show(v)}" for name, v in values.items() if v is not None and wrong(v)]
        if named:
            return verdict(", ".join(named[:8]))
    known = known_of(found, values)
    all_seen(facts, len(found))
    shown = [show(v) for v in known.values()]
    return passed(
        f"{len(known)} / {len(found)}: {tally(shown)}" if len(set(shown)) <= 3 else f"{len(known)} / {len(found)}"
    )


def alike(facts: FactView, value: Callable[[SteadyCard], T | None], show: Callable[[T], str] = str) -> str:
    """For comparing nodes: the value, or each value and how many cards have it. That a card is missing is said once,
    by ``nvidia.count``."""
    found = cards(facts)
    values = {c.address: value(c) for c in found}
    cited(facts, {name: "-" if v is None else show(v) for name, v in values.items()})
    return tally(sorted(show(v) for v in known_of(found, values).values()))


def by_card(
    facts: FactView,
    value: Callable[[C], float | None],
    ask: Callable[[FactView], list[C]],
) -> dict[str, float]:
    """For a person's criterion: the value of each card by its address."""
    found = ask(facts)
    values = {c.address: value(c) for c in found}
    cited(facts, values)
    known = known_of(found, values)
    all_seen(facts, len(found))
    return {name: float(v) for name, v in known.items()}


def linked(facts: FactView) -> list[SteadyCard]:
    """The cards with their NVLinks: NVML says them at once, nvidia-smi by two commands more."""
    found = cards(facts)
    if any(c.links is not None for c in found):
        return found
    uuids = {c.address: c.uuid for c in cards_now(facts, identities)}
    speeds = _nvlink(facts, NVLINK_STATUS, reader.nvlink_status)
    errors = _nvlink(facts, NVLINK_ERRORS, reader.nvlink_errors)
    if any(set(counts) - {link.link for link in speeds.get(uuid, ())} for uuid, counts in errors.items()):
        raise NotKnown(
            "parse", Text("nvidia-smi names other links with -e than with -s", "nvidia-smi -e 与 -s 给出的链路不一致")
        )
    return [
        msgspec.structs.replace(
            c,
            links=[
                NvLink(
                    link.link,
                    link.up,
                    link.speed,
                    counts.get("Replay"),
                    counts.get("Recovery"),
                    counts.get("CRC"),
                )
                for link in speeds[uuids[c.address]]
                for counts in [errors.get(uuids[c.address], {}).get(link.link, {})]
            ]
            if uuids[c.address] in speeds
            else None,
        )
        for c in found
    ]


def _nvlink(facts: FactView, source: Command, read: Callable[[str], dict[str, T]]) -> dict[str, T]:
    reading = facts.command(*source.argv)
    if reading.exit_code != 0:
        raise NotKnown(
            "error",
            Text("{c} ended with {n}: {e}", "{c} 退出码为 {n}：{e}").fill(
                c=source.key.removeprefix("$ "),
                n=reading.exit_code,
                e=(reading.detail or reading.text.strip())[:200] or "-",
            ),
        )
    return parsed(read, reading.text, source.key.removeprefix("$ "))


def module_version(facts: FactView) -> tuple[str, bool] | None:
    """The version of the loaded kernel module and whether it is the open one; None when none is loaded."""
    text = facts.maybe(MODULE.path)
    return None if text is None else parsed(reader.module_version, text, f"/{MODULE.path}")


MODULE = File("proc/driver/nvidia/version")
