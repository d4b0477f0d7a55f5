"""What npu-smi, hccn_tool and the version files of Ascend say.

Formats as they are printed by npu-smi and hccn_tool of the drivers 23.0 to 25.5 (their sources are published in the
"driver" repository of the CANN project) and as shown in Huawei's npu-smi and HCCN Tool references, in the log
collection guide of MindCluster, and in public issues of vllm-ascend and 1Panel. Two dialects differ:

- one chip on a card (910A, 910B): the mapping has a ``Chip Logic ID``, a card counts as it is numbered in /dev;
- two chips on a card (910_93, "A3"): there is a ``Chip Phy-ID`` as well, which is the number in /dev.

Both tools end what they print with a new line. A text that does not is cut short, and no reader takes it.
"""

from __future__ import annotations

import ipaddress
import re
import time
from calendar import timegm
from dataclasses import dataclass

from cwai_bench.readers import Unreadable

_UNSAID = {"", "-", "na", "n/a", "[n/a]", "not supported", "unknown", "unknown!", "failed", "get failed"}
_NUMBER = re.compile(r"[-+]?\d{1,18}(?:\.\d{1,9})?")
_MANY = 100_000
"""Lines looked at: no answer is longer."""


def _lines(text: str) -> list[str]:
    """The lines that hold something, without their ends. Raises Unreadable when the last one was cut."""
    if not text.strip():
        raise Unreadable("nothing was printed")
    if not text.endswith("\n"):
        raise Unreadable("it ends in the middle of a line")
    return [line for line in text.replace("\r\n", "\n").split("\n")[:_MANY] if line.strip()]


def _said(value: str) -> str | None:
    """``value``, or None where the tool says that it does not know."""
    value = value.strip()
    return None if value.lower() in _UNSAID else value


def _number(value: str | None, what: str) -> float | None:
    """The number that ``value`` begins with (``38 C``, ``1.0213 mW``); None where the tool does not know."""
    if value is None or _said(value) is None:
        return None
    found = _NUMBER.match(value.strip())
    if found is None:
        raise Unreadable(f"{what} is {value.strip()[:40]!r}, no number")
    return float(found[0])


def _whole(value: str | None, what: str) -> int | None:
    number = _number(value, what)
    return None if number is None else int(number)


def fields(text: str) -> dict[str, str]:
    """``Key : value`` lines, keys in lower case with single blanks. A line that begins with ``:`` goes on."""
    found: dict[str, str] = {}
    last = ""
    for line in _lines(text):
        key, colon, value = line.partition(":")
        name = " ".join(key.lower().split())
        if colon and name:
            found[name] = value.strip()
            last = name
        elif colon and last:
            found[last] = f"{found[last]}; {value.strip()}"
    if not found:
        raise Unreadable("no line reads “name : value”")
    return found


def _need(found: dict[str, str], name: str) -> str:
    if name not in found:
        raise Unreadable(f"there is no {name!r}")
    return found[name]


# ------------------------------------------------------------------------------------------------------------- npu-smi


@dataclass(frozen=True)
class Mapped:
    """A line of ``npu-smi info -m``: chip ``chip`` of card ``npu`` is /dev/davinci``device``."""

    npu: int
    chip: int
    device: int
    name: str

    @property
    def label(self) -> str:
        return f"NPU {self.npu}" if self.chip == 0 else f"NPU {self.npu}.{self.chip}"


def mapping(text: str) -> list[Mapped]:
    """``npu-smi info -m``, without the chips that do not compute (``Mcu``)."""
    lines = _lines(text)
    head: list[str] = []
    found: list[Mapped] = []
    for line in lines:
        cells = re.split(r"\s{2,}|\t", line.strip())
        if cells[0] == "NPU ID":
            head = cells
        elif head and len(cells) == len(head):
            row = dict(zip(head, cells, strict=True))
            device = row.get("Chip Phy-ID") or row.get("Chip Logic ID")
            numbers = (row["NPU ID"], row.get("Chip ID", "0"), device or "-")
            if device == "-":
                continue
            if not all(re.fullmatch(r"\d{1,4}", n) for n in numbers):
                raise Unreadable(f"{line.strip()[:60]!r} is no line of the mapping")
            npu, chip, number = map(int, numbers)
            found.append(Mapped(npu, chip, number, row.get("Chip Name", "")))
        elif head:
            raise Unreadable(f"{line.strip()[:60]!r} is no line of the mapping")
    if not found:
        raise Unreadable("no chip is listed")
    if len({c.device for c in found}) != len(found):
        raise Unreadable("two chips have one number")
    return found


@dataclass(frozen=True)
class Shown:
    """A chip in the table of ``npu-smi info``. Watts, °C, per cent, bytes."""

    npu: int
    chip: int
    name: str
    bus: str
    health: str
    power: float | None
    temperature: float | None
    ai_core: float | None
    memory_used: int | None
    memory_total: int | None

    @property
    def label(self) -> str:
        return f"NPU {self.npu}" if self.chip == 0 else f"NPU {self.npu}.{self.chip}"


@dataclass(frozen=True)
class Running:
    npu: int
    pid: int
    name: str


@dataclass(frozen=True)
class Table:
    """``npu-smi info``. ``processes`` is None when the tool has no such part (some cards without HBM)."""

    version: str
    chips: list[Shown]
    processes: list[Running] | None


_BORDER = re.compile(r"\+[-=+]{20,}\+")
_VERSION = re.compile(r"npu-smi (\S+)\s.*Version: (\S+)")
_FIRST = re.compile(r"(\d{1,4})\s+(\S.*)")
_SECOND = re.compile(r"(\d{1,4})(?:\s+(\d{1,4}))?")
_BUS = re.compile(r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]|NA")
_USED = re.compile(r"(\d{1,9})\s*/\s*(\d{1,9})")
_NOBODY = re.compile(r"No running processes found in NPU (\d{1,4})")


def table(text: str) -> Table:
    """``npu-smi info``: two lines for each chip, then the processes of each card."""
    lines = _lines(text)
    while lines and lines[-1].lstrip().startswith("[WARNING]"):
        lines.pop()
    if not lines or not _BORDER.fullmatch(lines[-1].strip()):
        raise Unreadable("the table does not end")
    rows = [[c.strip() for c in line.strip().strip("|").split("|")] for line in lines if line.strip().startswith("|")]
    version = next((m[2] for row in rows[:2] if (m := _VERSION.search(" ".join(row)))), "")
    heads = [i for i, row in enumerate(rows) if row[0].startswith("NPU")]
    if not version or not heads:
        raise Unreadable("it is no table of NPUs")
    at = next((i for i in heads if "Process id" in rows[i]), None)
    chips = _chips(rows[heads[0] + 2 : at])
    if at is None and "HBM-Usage" in " ".join(rows[heads[0] + 1]):
        raise Unreadable("the processes are not told")
    if at is None:
        return Table(version, chips, None)
    processes, cards = _processes(rows[at + 1 :])
    if missing := {c.npu for c in chips} - cards:
        raise Unreadable(f"the processes of NPU {min(missing)} are not told")
    return Table(version, chips, processes)


def _chips(rows: list[list[str]]) -> list[Shown]:
    if not rows or len(rows) % 2:
        raise Unreadable("a chip has two lines in the table, and one is missing")
    return [_chip(first, second) for first, second in zip(rows[::2], rows[1::2], strict=True)]


def _chip(first: list[str], second: list[str]) -> Shown:
    name, place = _FIRST.fullmatch(first[0]), _SECOND.fullmatch(second[0])
    if name is None or place is None or len(first) != 3 or len(second) != 3 or not _BUS.fullmatch(second[1]):
        raise Unreadable(f"{' | '.join(first)[:60]!r} is no chip of the table")
    power, temperature = [*first[2].split(), "-", "-"][:2]
    pairs = _USED.findall(second[2])
    # 310P has DDR only; a 910B prints 0 / 0 for DDR before its HBM
    used, total = (int(n) << 20 for n in pairs[-1]) if pairs else (None, None)
    return Shown(
        int(name[1]),
        int(place[1]),
        name[2].strip(),
        second[1].lower(),
        first[1],
        _number(power, "the power"),
        _number(temperature, "the temperature"),
        _number([*second[2].split(), "-"][0], "the AI core's use"),
        used,
        total or None,
    )


def _processes(rows: list[list[str]]) -> tuple[list[Running], set[int]]:
    found: list[Running] = []
    cards: set[int] = set()
    for row in rows:
        if nobody := _NOBODY.match(row[0]):
            cards.add(int(nobody[1]))
            continue
        place = re.match(r"(\d{1,4})\b", row[0])
        if place is None or len(row) != 4 or not re.fullmatch(r"\d{1,10}", row[1]):
            raise Unreadable(f"{' | '.join(row)[:60]!r} is no process")
        cards.add(int(place[1]))
        found.append(Running(int(place[1]), int(row[1]), row[2]))
    return found, cards


@dataclass(frozen=True)
class Health:
    """``npu-smi info -t health -i N -c M``. ``codes`` are fault codes in hexadecimal."""

    status: str
    codes: list[str]
    words: str


def health(text: str) -> Health:
    found = fields(text)
    status = _said(found.get("health status") or found.get("health") or "")
    if status is None:
        raise Unreadable("there is no health status")
    codes = _said(_need(found, "error code"))
    words = _said(_need(found, "error information")) or ""
    listed = [] if codes is None else codes.upper().replace(",", " ").split()
    if not all(re.fullmatch(r"(?:0X)?[0-9A-F]{4,8}", code) for code in listed):
        raise Unreadable(f"{codes!r} are no fault codes")
    return Health(status, [code.removeprefix("0X") for code in listed], words)


@dataclass(frozen=True)
class Ecc:
    """HBM errors of a chip: since the last reset, in all, and the pages taken out of use for them."""

    single: int
    double: int
    single_total: int
    double_total: int
    single_pages: int
    double_pages: int
    pending: int
    """Pages that will be taken out of use at the next reset."""


def ecc(text: str) -> list[Ecc]:
    """``npu-smi info -t ecc -i N``: a block for each chip of the card, in order.

    Older drivers end a block with ``Chip ID``; newer ones with the pages that wait for a reset. A block with neither
    was cut short.
    """
    blocks: list[dict[str, str]] = []
    for line in _lines(text):
        key, colon, value = line.partition(":")
        name = " ".join(key.lower().split())
        if not colon or name in ("npu id", "chip count"):
            continue
        if name == "hbm single bit error count":
            blocks.append({})
        if blocks:
            blocks[-1].setdefault(name, value)
    if not blocks:
        raise Unreadable("no HBM is told of")
    return [_ecc(block) for block in blocks]


def _ecc(block: dict[str, str]) -> Ecc:
    def count(name: str) -> int:
        found = _whole(_need(block, f"hbm {name}"), name)
        if found is None or found < 0:
            raise Unreadable(f"{name} is not counted")
        return found

    waiting = "hbm double bit next-isolated pages count" in block
    if not waiting and "chip id" not in block:
        raise Unreadable("the list of HBM errors is cut short")
    pages = ("single bit next-isolated pages count", "double bit next-isolated pages count")
    return Ecc(
        count("single bit error count"),
        count("double bit error count"),
        count("single bit aggregate total err cnt"),
        count("double bit aggregate total err cnt"),
        count("single bit isolated pages count"),
        count("double bit isolated pages count"),
        sum(count(name) for name in pages) if waiting else 0,
    )


@dataclass(frozen=True)
class Board:
    """``npu-smi info -t board -i N``: the versions that run."""

    driver: str | None
    firmware: str | None
    compatible: str | None


def board(text: str) -> Board:
    found = fields(text)
    _need(found, "npu id")
    _need(found, "chip count")
    return Board(
        _said(_need(found, "software version")),
        _said(_need(found, "firmware version")),
        _said(found.get("compatibility", "")),
    )


@dataclass(frozen=True)
class Hccs:
    """``npu-smi info -t hccs``: the links between the chips of a node, a number for each link.

    ``lanes`` is None where the tool does not list them.
    """

    health: str
    lanes: list[int] | None
    retries: list[int]
    errors: list[int]


def hccs(text: str) -> Hccs:
    found = fields(text)

    def numbers(name: str) -> list[int]:
        value = _need(found, name)
        if not re.fullmatch(r"\[[\d\s,]*\]", value):
            raise Unreadable(f"{name} is {value[:40]!r}, no list")
        return [int(n) for n in re.findall(r"\d{1,20}", value)]

    lanes = numbers("hccs lane mode") if "hccs lane mode" in found else None
    return Hccs(_need(found, "hccs health status"), lanes, numbers("hccs retry count"), numbers("hccs error count"))


@dataclass(frozen=True)
class SuperPod:
    pod: int
    size: int
    server: int


def super_pod(text: str) -> SuperPod:
    """``npu-smi info -t spod-info``."""
    found = fields(text)
    numbers = [_whole(_need(found, name), name) for name in ("super pod id", "super pod size", "server index")]
    if any(n is None for n in numbers):
        raise Unreadable("the super pod's numbers are not set")
    pod, size, server = (n or 0 for n in numbers)
    return SuperPod(pod, size, server)


# ----------------------------------------------------------------------------------------------------- version files


def version_file(text: str) -> dict[str, str]:
    """``name=value`` lines of version.info and of the install.info files. Raises Unreadable without a version."""
    found = {}
    for line in text.replace("\r\n", "\n").split("\n")[:_MANY]:
        name, sign, value = line.partition("=")
        if sign and name.strip():
            found[name.strip().lower()] = value.strip()
    if not re.match(r"\d", found.get("version", "")):
        raise Unreadable("there is no line “Version=…”")
    return found


# ------------------------------------------------------------------------------------------------------------ hccn_tool


def _one(text: str, pattern: str, what: str) -> re.Match[str]:
    """The one line that matches ``pattern``."""
    for line in _lines(text):
        found = re.fullmatch(pattern, line.strip(), re.I)
        if found is not None:
            return found
    raise Unreadable(f"it does not tell {what}")


def link(text: str) -> bool:
    """``-link -g``: True when up."""
    return _one(text, r"link status: (UP|DOWN)", "the link's status")[1].upper() == "UP"


def net_health(text: str) -> str:
    """``-net_health -g``: Success, Init, Fault, Socket fail, Receive timeout, Unreachable, Time exceeded …"""
    return _one(text, r"net health status: (\S.*)", "the net's health")[1]


def _address(value: str) -> str | None:
    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        raise Unreadable(f"{value[:40]!r} is no address") from None
    return None if found.is_unspecified else str(found)


def network(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    """``-ip -g``: address and mask; None where none was set."""
    if re.search(r"no ip was preset", text, re.I):
        return None
    address = _address(_one(text, r"ipaddr:\s*(\S+)", "the address")[1])
    mask = _one(text, r"netmask:\s*(\S+)", "the mask")[1]
    if address is None:
        return None
    try:
        return ipaddress.ip_interface(f"{address}/{mask}")
    except ValueError:
        raise Unreadable(f"{mask[:40]!r} is no mask") from None


def gateway(text: str) -> str | None:
    """``-gateway -g``; None where none was set."""
    if re.search(r"no (?:default )?gateway|gateway was not|not (?:set|preset)", text, re.I):
        return None
    return _address(_one(text, r"default gateway:\s*([0-9A-Fa-f.:]+)(?:\s*,.*)?", "the gateway")[1])


def net_detect(text: str) -> str | None:
    """``-netdetect -g``: the address whose answers make the net's health; None where none was set."""
    return _address(_one(text, r"netdetect addr(?:ess)?:\s*(\S+)", "the address to detect")[1])


def tls(text: str) -> bool:
    """``-tls -g``: whether the switch is on. Certificates may be listed beside it."""
    return _one(text, r".*\btls switch\[([01])\].*", "the TLS switch")[1] == "1"


def fec(text: str) -> str:
    """``-fec -g``: ``rs``, ``no`` …"""
    return _one(text, r"fec mode: (\S+)(?: FEC mode)?", "the FEC mode")[1].lower()


def speed(text: str) -> float | None:
    """``-speed -g`` in bits per second."""
    found = _one(text, r"speed: (?:(\d{1,9}) ?(Mb/s|G|Gb/s)|(unknown!?|NA))", "the speed")
    return None if found[3] else int(found[1]) * (1e6 if found[2].lower() == "mb/s" else 1e9)


def duplex(text: str) -> str | None:
    """``-duplex -g``: full, half."""
    return _said(_one(text, r"duplex: (full|half|unknown!?.*|NA)", "the duplex mode")[1].lower().partition(" ")[0])


def mtu(text: str) -> int:
    """``-mtu -g``."""
    return int(_one(text, r"mtu(?: size)?\s*:\s*(\d{1,6})(?: bytes?)?", "the MTU")[1])


def mac(text: str) -> str:
    """``-mac -g``."""
    return _one(text, r"mac addr(?:ess)?:\s*((?:[0-9a-f]{2}:){5}[0-9a-f]{2})", "the MAC address")[1].lower()


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of the link."""

    port: str
    system: str


def lldp(text: str) -> Peer | None:
    """``-lldp -g``: what the neighbour says of itself; None where nobody was heard."""
    if not text.strip():
        return None
    lines = _lines(text)
    blocks: dict[str, list[str]] = {}
    for line in lines:
        if line.strip().endswith("TLV"):
            blocks[line.strip()] = []
        elif blocks:
            blocks[next(reversed(blocks))].append(line.strip())
    if not blocks:
        raise Unreadable("no TLV is listed")
    if "End of LLDPDU TLV" not in blocks:
        raise Unreadable("the neighbour's words do not end")
    port = next((w.partition(":")[2].strip() for w in blocks.get("Port ID TLV", []) if ":" in w), "")
    return Peer(port, next(iter(blocks.get("System Name TLV", [])), "")) if port else None


@dataclass(frozen=True)
class LinkRecord:
    """``since``: seconds before the records were read."""

    since: float
    up: bool


@dataclass(frozen=True)
class LinkStat:
    """``downs`` is None where the driver counts only how often the link came up. Newest record first."""

    ups: int
    downs: int | None
    records: list[LinkRecord]


RECORDS = 5
"""Ups that are still listed of a link that came up more often."""
_STAMP = r"(\w{3} \w{3} +\d{1,2} \d\d:\d\d:\d\d \d{4})"


def link_stat(text: str) -> LinkStat:
    """``-link_stat -g``. The clock is that of the device, so all times are told against its ``current time``."""
    now: float | None = None
    counts: dict[str, int] = {}
    records: list[LinkRecord] = []
    listed = False
    for line in _lines(text):
        words = re.sub(r"^\[(?:devid|device) \d{1,4}\]", "", line.strip()).strip()
        if found := re.fullmatch(rf"current time\s*:\s*{_STAMP}", words):
            now = _seconds(found[1])
        elif found := re.fullmatch(r"link (up|down) count\s*:\s*(\d{1,9})", words):
            counts[found[1]] = int(found[2])
        elif re.fullmatch(r"link change records\s*:", words):
            listed = True
        elif found := re.fullmatch(rf"{_STAMP}\s+LINK (UP|DOWN)", words):
            if now is None:
                raise Unreadable("the records have no current time")
            records.append(LinkRecord(max(now - _seconds(found[1]), 0.0), found[2] == "UP"))
        else:
            raise Unreadable(f"{words[:60]!r} is no record of the link")
    if now is None or "up" not in counts or not listed:
        raise Unreadable("the link's history is not whole")
    # The oldest record is the first up; the driver keeps the latest ones only, and at least these.
    if sum(r.up for r in records) < min(counts["up"], RECORDS):
        raise Unreadable("the link's history is cut short")
    return LinkStat(counts["up"], counts.get("down"), records)


def _seconds(stamp: str) -> float:
    try:
        return float(timegm(time.strptime(stamp, "%a %b %d %H:%M:%S %Y")))
    except (ValueError, OverflowError):
        raise Unreadable(f"{stamp!r} is no time") from None


def statistics(text: str) -> dict[str, int]:
    """``-stat -g``: counters by name. The last that the tool prints is ``nic_rx_all_oct_num``."""
    lines = _lines(text)
    found: dict[str, int] = {}
    for line in lines:
        if match := re.fullmatch(r"([a-z0-9_]{1,60}):\s*(\d{1,20})", line.strip()):
            found[match[1]] = int(match[2])
    if "nic_rx_all_oct_num" not in found:
        raise Unreadable("the list of counters is cut short")
    return found


@dataclass(frozen=True)
class Optical:
    """``-optical -g``. Powers in mW, bias in mA, SNR in dB, temperature in °C, voltage in mV; a value for each lane.

    What the module or the driver does not tell is None or an empty list. ``flags`` are LOS and LOL, of TX and RX.
    """

    present: bool
    vendor: str
    high_power: bool | None
    temperature: float | None
    temperatures: tuple[float, float] | None
    voltage: float | None
    voltages: tuple[float, float] | None
    tx: list[float]
    tx_limits: tuple[float, float] | None
    rx: list[float]
    rx_limits: tuple[float, float] | None
    bias: list[float]
    flags: dict[str, int]
    host_snr: list[float]
    media_snr: list[float]


def optical(text: str) -> Optical:
    found = fields(text)
    present = _need(found, "present")
    if present not in ("present", "not present"):
        raise Unreadable(f"present is {present[:40]!r}")

    def lanes(name: str) -> list[float]:
        values = [_number(found.get(f"{name}{i}"), name) for i in ("", *range(8))]
        return [v for v in values if v is not None]

    def limits(name: str) -> tuple[float, float] | None:
        low, high = (_number(found.get(f"{name} {end} thres"), name) for end in ("low", "high"))
        return None if low is None or high is None else (low, high)

    flags = {}
    for name in ("tx los", "rx los", "tx lol", "rx lol"):
        value = _said(found.get(f"{name} flag", ""))
        if value is not None:
            if not re.fullmatch(r"0x[0-9a-f]{1,8}", value, re.I):
                raise Unreadable(f"{name} flag is {value[:40]!r}")
            flags[name] = int(value, 16)
    # The tool prints the limits whatever the module tells; then the flags, but for a module whose voltage is NA.
    _need(found, "rxpower low thres")
    if present == "present" and _said(found.get("vcc", "")) is not None and "rx los" not in flags:
        raise Unreadable("the module's values are cut short")
    told = [f"{side} snr lane{i}" in found for side in ("host", "media") for i in range(4)]
    if any(told) and not all(told):
        raise Unreadable("the SNR of the lanes is cut short")
    power = _said(found.get("high power enable reg", ""))
    return Optical(
        present == "present",
        found.get("vendor name", ""),
        None if power is None else power == "enabled",
        _number(found.get("temperature"), "the temperature"),
        limits("temp"),
        _number(found.get("vcc"), "the voltage"),
        limits("vcc"),
        lanes("tx power"),
        limits("txpower"),
        lanes("rx power"),
        limits("rxpower"),
        lanes("tx bias"),
        flags,
        lanes("host snr lane"),
        lanes("media snr lane"),
    )


def cdr_snr(text: str) -> list[float]:
    """``-scdr -t 5`` (``-cdr_snr -g``): SNR in dB of the lanes of the clock recovery chip, host side, then media side.

    Empty where the board has none, or where the chip tells no decibels (SD5901 prints plain numbers).
    """
    found = fields(text)
    names = [f"cdr {side} snr lane{i}" for side in ("host", "media") for i in range(1, 5)]
    values = [_said(_need(found, name)) for name in names]
    return [_number(v, n) or 0.0 for v, n in zip(values, names, strict=True) if v is not None and v.endswith("dB")]


@dataclass(frozen=True)
class Transmitter:
    """``-optical -g dfx_cfg``."""

    loopback: str
    disabled: int


def transmitter(text: str) -> Transmitter:
    found = fields(text)
    off = _need(found, "tx disable status")
    if not re.fullmatch(r"0x[0-9a-f]{1,8}", off, re.I):
        raise Unreadable(f"tx disable status is {off[:40]!r}")
    return Transmitter(_need(found, "loopback status"), int(off, 16))
