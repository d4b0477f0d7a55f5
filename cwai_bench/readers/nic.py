"""What the tools of NICs print: ethtool, mlxlink, mlnx_qos, ibv_devinfo, lldpcli, ofed_info and others, and sysfs.

Formats: ethtool 5 and 6 (sff-common.c, qsfp.c, cmis.c, sfpdiag.c), mlnx_qos of MLNX_OFED 5 and 24 (NVIDIA's manual,
"Quality of Service"), mlxlink of MFT 4 (its manual), ibv_devinfo of rdma-core (devinfo.c), lldpd 1.0 (lldpcli(8), -f
json), Linux Documentation/ABI/stable/sysfs-class-infiniband (rate; the traffic class is MLNX_OFED's), wpa_cli(8),
hca_self_test.ofed of MLNX_OFED (outputs on the Open MPI users' list), fi_info(1) of libfabric, UFM's event.log (the
entries that imbue-ai/cluster-health reads).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import msgspec

from cwai_bench.readers import Unreadable

LINES_LIMIT = 20_000


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").split("\n")[:LINES_LIMIT]


def _whole_lines(text: str) -> list[str]:
    """Lines of a text in which each ends with a newline; Unreadable when the last one does not: it may be cut."""
    if not text.endswith("\n"):
        raise Unreadable("the last line is not whole")
    return _lines(text)[:-1]


# ------------------------------------------------------------------------------------------------ sysfs: one line


class Rate(NamedTuple):
    bits: float
    """Bits per second."""
    lanes: int


_RATE = re.compile(r"(\d{1,5}(?:\.\d{1,3})?) Gb/sec \((\d{1,2})X[^()]*\)")


def rate(text: str) -> Rate:
    """``400 Gb/sec (4X NDR)``."""
    found = _RATE.fullmatch(text.strip())
    if not found:
        raise Unreadable(f"no rate: {text[:40]!r}")
    return Rate(float(found[1]) * 1e9, int(found[2]))


def traffic_class(text: str) -> int:
    """``Global tclass=106``."""
    found = re.search(r"^\s*Global tclass=(\d{1,3})\s*$", text, re.M)
    if not found or int(found[1]) > 255:
        raise Unreadable(f"no traffic class: {text[:40]!r}")
    return int(found[1])


# ---------------------------------------------------------------------------------------------------- ethtool


def statistics(text: str) -> dict[str, int]:
    """``ethtool -S``: counters by name."""
    lines = _whole_lines(text)
    if not lines or lines[0].strip() != "NIC statistics:":
        raise Unreadable("'NIC statistics:' is not its first line")
    found: dict[str, int] = {}
    for line in lines[1:]:
        name, colon, value = line.rpartition(":")
        if colon and re.fullmatch(r"-?\d{1,20}", value.strip()):
            found[name.strip()] = int(value.strip())
        elif line.strip():
            raise Unreadable(f"no counter: {line[:60]!r}")
    if not found:
        raise Unreadable("it holds no counter")
    return found


class Pause(NamedTuple):
    receive: bool
    send: bool


def pause(text: str) -> Pause:
    """``ethtool -a``."""
    said = dict(re.findall(r"^(RX|TX):[ \t]*(on|off)[ \t]*$", "\n".join(_whole_lines(text)), re.M))
    if set(said) != {"RX", "TX"}:
        raise Unreadable("it does not say RX and TX on or off")
    return Pause(said["RX"] == "on", said["TX"] == "on")


class Limits(NamedTuple):
    """A module's own thresholds of one quantity."""

    high_alarm: float
    low_alarm: float
    high_warning: float
    low_warning: float


class Module(NamedTuple):
    """A transceiver or cable. ``copper``: it has no optics. Powers in dBm (None where no light at all is told), by
    channel; ``flags``: the alarms and warnings that the module raises itself.
    """

    identifier: str
    part: str | None
    copper: bool
    receive: dict[str, float]
    send: dict[str, float]
    bias: dict[str, float]
    temperature: float | None
    receive_limits: Limits | None
    send_limits: Limits | None
    bias_limits: Limits | None
    temperature_limits: Limits | None
    flags: list[str]


_NUMBER = r"(-?\d{1,6}(?:\.\d{1,6})?|-inf)"
_UNITS = {
    "power": re.compile(rf"{_NUMBER} mW / {_NUMBER} dBm"),
    "bias": re.compile(rf"{_NUMBER} mA"),
    "temperature": re.compile(rf"{_NUMBER} degrees C / {_NUMBER} degrees F"),
}
_MEASURED = {
    "receive": (
        re.compile(r"Rcvr signal avg optical power ?\(Channel (\d+)\)|Receiver signal .*optical power"),
        "power",
    ),
    "send": (re.compile(r"Transmit avg optical power ?\(Channel (\d+)\)|Laser output power"), "power"),
    "bias": (re.compile(r"Laser tx bias current ?\(Channel (\d+)\)|Laser bias current"), "bias"),
}
_LIMITED = {
    "receive": ("Laser rx power", "power"),
    "send": ("Laser output power", "power"),
    "bias": ("Laser bias current", "bias"),
    "temperature": ("Module temperature", "temperature"),
}
_THRESHOLDS = {
    quantity: [f"{name} {edge} threshold" for edge in ("high alarm", "low alarm", "high warning", "low warning")]
    for quantity, (name, _) in _LIMITED.items()
}
_KINDS = {name: kind for quantity, (_, kind) in _LIMITED.items() for name in _THRESHOLDS[quantity]}
_KINDS["Module temperature"] = "temperature"
_NAMES = ("Identifier", "Vendor PN", "Transmitter technology")
_COPPER = re.compile(r"copper|passive cu|active cu", re.I)
NO_LIGHT = -40.0
"""dBm: what a module says that receives nothing (SFF-8472 counts in units of 0.1 uW; ethtool prints -inf or -40)."""


def _measure(value: str, kind: str) -> float | None:
    found = _UNITS[kind].fullmatch(value)
    if not found:
        return None
    said = found[2 if kind == "power" else 1]
    return NO_LIGHT if said == "-inf" else float(said)


class _Meaning(NamedTuple):
    """What a line of ``ethtool -m`` can tell, by its name.

    ``quantity`` and ``channel``: what it measures, if it does; ``kind``: the unit of that, or of a threshold. ``flag``:
    an alarm or a warning that may be on; ``signal``: one that may be lost.
    """

    quantity: str
    channel: str
    kind: str
    copper: bool
    threshold: bool
    flag: bool
    signal: bool


@lru_cache(maxsize=1024)
def _meaning(name: str) -> _Meaning | None:
    quantity, channel, kind = "", "", _KINDS.get(name, "")
    for candidate, (pattern, unit) in _MEASURED.items():
        if found := pattern.fullmatch(name):
            quantity, channel, kind = candidate, found[1] or "1", unit
    meaning = _Meaning(
        quantity,
        channel,
        kind,
        copper=_COPPER.match(name) is not None,
        threshold=name.endswith("threshold"),
        flag=re.search(r" (alarm|warning)\b", name) is not None,
        signal=re.fullmatch(r"(Rx|Tx) loss of signal|Tx fault", name) is not None,
    )
    return meaning if any(meaning) or name in _NAMES else None


class _Field(NamedTuple):
    """A line from which something is learned of the module. ``number``: in the unit of what it means."""

    name: str
    value: str
    number: float | None
    means: _Meaning
    bad: bool
    """An alarm or a warning is on, or a signal is lost."""


@lru_cache(maxsize=4096)  # like modules say the same in nearly all of their hundred lines, over and over
def _field(line: str) -> _Field | None:
    name, colon, value = line.partition(" :")
    if not colon or (means := _meaning(name.strip())) is None:
        return None
    name, value = name.strip(), value.strip()
    bad = (means.flag and value == "On") or (means.signal and re.search(r"\bYes\b", value) is not None)
    learned = bad or means.kind or name in _NAMES or means.copper or means.threshold
    number = _measure(value, means.kind) if means.kind else None
    return _Field(name, value, number, means, bad) if learned else None


def module(text: str) -> Module:
    """``ethtool -m``. A text that tells of optics but not of all that belongs to them is Unreadable: it was cut."""
    fields = [field for line in _whole_lines(text) if (field := _field(line)) is not None]
    said = {field.name: field for field in fields}
    if "Identifier" not in said:
        raise Unreadable("it names no module")
    measured: dict[str, dict[str, float]] = {quantity: {} for quantity in _MEASURED}
    copper, thresholds = False, False
    for _, _, number, means, _ in fields:
        if means.quantity and number is not None:
            measured[means.quantity][means.channel] = number
        copper = copper or means.copper
        thresholds = thresholds or means.threshold
    limits: dict[str, Limits | None] = {}
    for quantity, names in _THRESHOLDS.items():
        told = [said[name].number for name in names if name in said]
        known = [t for t in told if t is not None]
        limits[quantity] = Limits(*known) if len(known) == len(names) else None
    if (technology := said.get("Transmitter technology")) is not None:
        copper = copper or _COPPER.search(technology.value) is not None
    if not copper and not measured["receive"]:
        raise Unreadable("it tells neither of copper nor of light received")
    if thresholds and None in limits.values():
        raise Unreadable("its list of thresholds is not whole")
    part, temperature = said.get("Vendor PN"), said.get("Module temperature")
    raised = [field.name for field in fields if field.bad and field.means.flag]
    lost = [field.name for field in fields if field.bad and not field.means.flag]
    return Module(
        identifier=said["Identifier"].value,
        part=(part.value or None) if part is not None else None,
        copper=copper,
        receive=measured["receive"],
        send=measured["send"],
        bias=measured["bias"],
        temperature=temperature.number if temperature is not None else None,
        receive_limits=limits["receive"],
        send_limits=limits["send"],
        bias_limits=limits["bias"],
        temperature_limits=limits["temperature"],
        flags=[re.sub(r"\s+", " ", n) for n in raised + lost],
    )


# ---------------------------------------------------------------------------------------------------- mlxlink


class BitErrors(NamedTuple):
    """Shares of bits that are wrong: ``raw`` before, ``effective`` after error correction; ``symbol`` where told."""

    recommendation: str
    raw: float
    effective: float
    symbol: float | None


_COLOUR = re.compile(r"\x1b\[[0-9;]{0,8}m")
_SHARE = re.compile(r"\d{1,3}(?:\.\d{1,6})?(?:[eE]-\d{1,3})?")
CLEAN = "No issue was observed"


def bit_errors(text: str) -> BitErrors:
    """``mlxlink -d DEV -c``. No error at all is ``15E-255``."""
    said: dict[str, str] = {}
    for line in _whole_lines(_COLOUR.sub("", text)):
        name, colon, value = line.partition(":")
        if colon:
            said[name.strip()] = value.strip()

    def share(name: str) -> float | None:
        value = said.get(name, "")
        return float(value) if _SHARE.fullmatch(value) else None

    raw, effective = share("Raw Physical BER"), share("Effective Physical BER")
    if raw is None or effective is None or not said.get("Recommendation"):
        raise Unreadable("it does not tell Recommendation, Effective Physical BER and Raw Physical BER")
    return BitErrors(said["Recommendation"].rstrip("."), raw, effective, share("Symbol BER"))


# --------------------------------------------------------------------------------------------------- mlnx_qos


class Qos(NamedTuple):
    """``trust``: ``pcp`` or ``dscp``. ``priority_of``: by DSCP; None when the driver does not map it (trust pcp).

    ``lossless``: the priorities for which PFC is on.
    """

    trust: str
    priority_of: dict[int, int] | None
    lossless: tuple[int, ...]


def qos(text: str) -> Qos:
    """``mlnx_qos -i DEV``."""
    lines = _lines(text)
    trust = next((m[1] for line in lines if (m := re.fullmatch(r"Priority trust state: (\w+)\s*", line))), None)
    if trust is None:
        raise Unreadable("it does not say the trust state")
    mapped: dict[int, int] = {}
    for line in lines:
        if m := re.fullmatch(r"\s*prio:([0-7])\s+dscp:((?:\d\d,)+)\s*", line):
            mapped |= {int(dscp): int(m[1]) for dscp in m[2].split(",") if dscp}
    if mapped and set(mapped) != set(range(64)):
        raise Unreadable("its map from DSCP to priority is not whole")
    enabled = next(
        (m[1].split() for line in lines if (m := re.fullmatch(r"\s*enabled((?:\s+[01]){8})\s*", line))), None
    )
    if enabled is None:
        raise Unreadable("it does not say of 8 priorities whether PFC is on")
    served = {int(m[1]) for line in lines if (m := re.fullmatch(r"\s*priority:\s+([0-7])\s*", line))}
    if served != set(range(8)):
        raise Unreadable("its list of traffic classes is not whole")
    return Qos(trust, mapped or None, tuple(i for i, on in enumerate(enabled) if on == "1"))


# ------------------------------------------------------------------------------------------------- ibv_devinfo


_DEVINFO = re.compile(r"^[ \t]*(hca_id|port|active_mtu)[ \t]*:[ \t]*(.*?)[ \t]*$", re.M)


def active_mtus(text: str) -> dict[tuple[str, int], int]:
    """``ibv_devinfo``: the active MTU in bytes by device and port."""
    found: dict[tuple[str, int], int] = {}
    device, port = "", 0
    for name, value in _DEVINFO.findall("\n".join(_whole_lines(text))):
        if name == "hca_id":
            device, port = value, 0
        elif name == "port" and value.isdecimal() and len(value) < 4:
            port = int(value)
        elif name == "active_mtu" and device and port:
            told = re.fullmatch(r"(\d{3,5}) \(\d\)", value)
            if not told:
                raise Unreadable(f"no MTU: {value[:60]!r}")
            found[device, port] = int(told[1])
    if not found:
        raise Unreadable("it names no port")
    return found


# ---------------------------------------------------------------------------------------------------- lldpcli


class Neighbour(NamedTuple):
    """``chassis``: the name of the switch, else its id. ``port``: the switch's port."""

    chassis: str
    port: str


NAME_LIMIT = 80


def _word(value: object) -> str:
    return " ".join(value.split())[:NAME_LIMIT] if isinstance(value, str) else ""


def _identity(value: object) -> str:
    return _word(value.get("value")) if isinstance(value, dict) else ""


def _neighbour(told: dict[str, object]) -> Neighbour:
    chassis, port = told.get("chassis"), told.get("port")
    if not isinstance(chassis, dict) or not isinstance(port, dict):
        raise Unreadable("a neighbour without chassis and port")
    # a chassis that tells its name stands under it; one that does not, stands for itself
    name = _identity(chassis["id"]) if "id" in chassis else next((_word(n) for n in chassis), "")
    there = _identity(port.get("id")) or _word(port.get("descr"))
    if not name or not there:
        raise Unreadable("a neighbour without a name")
    return Neighbour(name, there)


def neighbours(text: str) -> dict[str, list[Neighbour]]:
    """``lldpcli -f json show neighbors``: by interface."""
    try:
        answer = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as e:
        raise Unreadable(f"no JSON: {e}") from e
    top = answer.get("lldp") if isinstance(answer, dict) else None
    if not isinstance(top, dict):
        raise Unreadable("no object 'lldp'")
    listed = top.get("interface", [])
    # lldpcli writes a list, or one object when there is but one
    entries = listed if isinstance(listed, list) else [listed]
    found: dict[str, list[Neighbour]] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            raise Unreadable("an interface that is no object")
        for name, told in entry.items():
            if not isinstance(told, dict):
                raise Unreadable("an interface that is no object")
            found.setdefault(_word(name), []).append(_neighbour(told))
    return found


# ---------------------------------------------------------------------------------------------------- wpa_cli


class Supplicant(NamedTuple):
    """802.1X on an interface. ``port``: ``Authorized`` or ``Unauthorized``; ``state`` as in ``AUTHENTICATED``."""

    port: str
    state: str
    method: str


def supplicant(text: str) -> Supplicant:
    """``wpa_cli -i DEV status`` of wpa_supplicant (ctrl_iface.txt): ``name=value`` lines."""
    said = dict(line.split("=", 1) for line in _whole_lines(text) if "=" in line)
    port, state = (said.get(name, "").strip() for name in ("suppPortStatus", "Supplicant PAE state"))
    if not port or not state:
        raise Unreadable("it does not tell suppPortStatus and Supplicant PAE state")
    return Supplicant(port[:40], state[:40], said.get("EAP state", "-").strip()[:40])


# -------------------------------------------------------------------------------------------- hca_self_test.ofed


def self_test(text: str) -> dict[str, str]:
    """``hca_self_test.ofed``: what was looked at (``PCI Device Check``) and what came of it (``PASS``, ``FAIL``, …)."""
    lines = _whole_lines(_COLOUR.sub("", text))
    if not any(re.fullmatch(r"-{3,}\s*DONE\s*-{3,}", line.strip()) for line in lines):
        raise Unreadable("it does not end with DONE")
    rows = [m for line in lines if (m := re.fullmatch(r"(\S[^.]{0,78}?) ?\.{3,} ?(\S.{0,200})", line.strip()))]
    found = {m[1].strip(): m[2].strip() for m in rows}
    if not any(value in ("PASS", "FAIL") for value in found.values()):
        raise Unreadable("it names no check that passed or failed")
    return found


# ---------------------------------------------------------------------------------------------------- fi_info


def domains(text: str) -> list[str]:
    """``fi_info -p PROVIDER`` (libfabric): its domains, ``rdmap16s27-rdm`` without the kind of end point, once each."""
    found = [m[1] for line in _whole_lines(text) if (m := re.fullmatch(r"\s*domain: ([\w.:-]{1,64})\s*", line))]
    if not found:
        raise Unreadable("it names no domain")
    return sorted({re.sub(r"-(?:rdm|dgrm)$", "", name) for name in found})


# ---------------------------------------------------------------------------------------------------------- UFM


class UfmEvent(NamedTuple):
    """``when`` as UFM's host writes it, in its own time: ``2025-12-31 07:46:24``. ``about``: what it names."""

    when: str
    code: int
    level: str
    about: str
    message: str


_UFM = re.compile(
    r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d{1,6})? \[\d{1,12}\] \[(\d{1,6})\] (\w{1,12}) \[\w{1,40}\] \w{1,40}"
    r" \[([^\]]{1,200})\](?: \[dev_id: \w{1,40}\])?: (.{0,400})"
)


def ufm_events(text: str) -> list[UfmEvent]:
    """UFM's event.log: time, number, code, level, topic, kind of device, device, and what happened. The first line of
    the end of a file may be cut, and so may be a message of several lines; a text without any event is Unreadable."""
    found = [m for line in _whole_lines(text) if (m := _UFM.match(line.rstrip()))]
    if not found:
        raise Unreadable("it holds no event")
    return [UfmEvent(m[1], int(m[2]), m[3], m[4].strip(), m[5].strip()) for m in found]


# -------------------------------------------------------------------------------------------------- versions


def ofed(text: str) -> str:
    """``ofed_info -s``: ``MLNX_OFED_LINUX-24.10-1.1.4.0:`` without its colon."""
    found = re.fullmatch(r"([A-Za-z_-]*OFED[\w.-]{1,60}):", text.strip())
    if not found:
        raise Unreadable(f"no version of OFED: {text.strip()[:60]!r}")
    return found[1]


def module_version(text: str) -> str:
    """``modinfo -F version NAME``."""
    lines = [line.strip() for line in _whole_lines(text) if line.strip()]
    if len(lines) != 1 or not re.fullmatch(r"[\w.+~-]{1,80}", lines[0]):
        raise Unreadable(f"no version: {text.strip()[:60]!r}")
    return lines[0]
