"""NVIDIA: ``nvidia-smi``, ``dcgmi health`` and the kernel modules, as values.

Formats: nvidia-smi(1) and the nvsmi_device DTD (v10 to v13), seen with drivers 430 to 580; ``nvidia-smi nvlink -h``;
DCGM User Guide, Health Monitor; /proc/driver/nvidia/version of nv-procfs.c in open-gpu-kernel-modules.
"""

from __future__ import annotations

import re
from typing import TypeVar
from xml.etree import ElementTree

from cwai_bench.readers import Unreadable
from cwai_bench.sources import EccCounts, Nvidia, NvidiaCard, NvidiaFabric, NvidiaProcess, NvLink

T = TypeVar("T")
_END = "</nvidia_smi_log>"
_BUS = re.compile(r"([0-9A-Fa-f]{4,8}):([0-9A-Fa-f]{2}):([0-9A-Fa-f]{2})\.([0-7])")
_NUMBER = re.compile(r"(-?\d{1,18}(?:\.\d{1,9})?)(?: *(?:[kKMGT]?i?B|KB/s|C|W|MHz|us|%|x))?")
# What nvidia-smi writes in place of a value; all else is one.
_UNSAID = re.compile(
    r"|\[?(?:N/A|Unknown Error|Unknown|GPU is lost|GPU requires reset|Not Supported|Insufficient Permissions|ERR!)\]?|"
    r"Requested functionality has been deprecated"
)
_BOOLEANS = {
    "Yes": True,
    "No": False,
    "Enabled": True,
    "Disabled": False,
    "Active": True,
    "Not Active": False,
}
MIB = 1 << 20


def address(bus: str) -> str:
    """``00000000:19:00.0`` as the kernel writes it: ``0000:19:00.0``."""
    found = _BUS.fullmatch(bus.strip())
    if found is None:
        raise Unreadable(f"no PCI address: {bus[:40]!r}")
    return f"{int(found[1], 16):04x}:{found[2]}:{found[3]}.{found[4]}".lower()


# ------------------------------------------------------------------------------------------------ nvidia-smi -q -x


def smi(text: str) -> Nvidia:
    """``nvidia-smi -q -x``: one XML document; warnings of corrupt InfoROMs may follow it."""
    document, end, rest = text.partition(_END)
    if not end:
        raise Unreadable(f"no {_END}: not the output of nvidia-smi -q -x, or cut short")
    # The document names a DTD and never declares an entity; one that does is not from nvidia-smi.
    if "<!ENTITY" in document:
        raise Unreadable("the document declares entities")
    try:
        log = ElementTree.fromstring(document[document.find("<") :] + end)
    except (ElementTree.ParseError, ValueError) as e:
        raise Unreadable(f"no XML: {e}") from e
    gpus = log.findall("gpu")
    attached = _whole(log, "attached_gpus")
    if attached != len(gpus):
        raise Unreadable(f"{attached} GPUs are attached, {len(gpus)} are listed")
    driver = _said(log, "driver_version")
    if driver is None:
        raise Unreadable("no driver_version")
    corrupt = {address(m[0]) for m in _BUS.finditer(rest) if "infoROM is corrupted" in rest}
    cards = [_card(gpu, corrupt) for gpu in gpus]
    if len({c.address for c in cards}) != len(cards):
        raise Unreadable("a GPU is listed twice")
    return Nvidia(driver, _said(log, "cuda_version") or "", cards)


def _card(gpu: ElementTree.Element, corrupt: set[str]) -> NvidiaCard:
    where = address(_said(gpu, "pci/pci_bus_id") or gpu.get("id") or "")
    margin = _less(
        _number(gpu, "temperature/gpu_temp_tlimit"), _number(gpu, "temperature/gpu_temp_slow_tlimit_threshold")
    )
    if margin is None:
        margin = _less(_number(gpu, "temperature/gpu_temp_slow_threshold"), _number(gpu, "temperature/gpu_temp"))
    # Until driver 530 it was called power_readings, and the limit in force enforced_power_limit.
    power = "gpu_power_readings" if gpu.find("gpu_power_readings") is not None else "power_readings"
    return NvidiaCard(
        address=where,
        name=_said(gpu, "product_name") or "",
        uuid=_said(gpu, "uuid") or "",
        serial=_said(gpu, "serial"),
        vbios=_said(gpu, "vbios_version"),
        gsp=_said(gpu, "gsp_firmware_version"),
        inforom=_said(gpu, "inforom_version/img_version"),
        inforom_corrupt=True if where in corrupt else None,
        persistence=_boolean(gpu, "persistence_mode"),
        mig=_boolean(gpu, "mig_mode/current_mig"),
        mig_pending=_boolean(gpu, "mig_mode/pending_mig"),
        ecc=_boolean(gpu, "ecc_mode/current_ecc"),
        ecc_pending=_boolean(gpu, "ecc_mode/pending_ecc"),
        ecc_volatile=_ecc(gpu, "volatile"),
        ecc_aggregate=_ecc(gpu, "aggregate"),
        sram_threshold_exceeded=_boolean(gpu, "ecc_errors/aggregate/sram_threshold_exceeded"),
        remapped_corrected=_whole(gpu, "remapped_rows/remapped_row_corr"),
        remapped_uncorrected=_whole(gpu, "remapped_rows/remapped_row_unc"),
        remap_pending=_boolean(gpu, "remapped_rows/remapped_row_pending"),
        remap_failed=_boolean(gpu, "remapped_rows/remapped_row_failure"),
        retired_pages=_sum(
            _whole(gpu, "retired_pages/multiple_single_bit_retirement/retired_count"),
            _whole(gpu, "retired_pages/double_bit_retirement/retired_count"),
        ),
        retirement_pending=_first(
            _boolean(gpu, "retired_pages/pending_retirement"), _boolean(gpu, "retired_pages/pending_blacklist")
        ),
        recovery=_recovery(gpu),
        memory_total=_mebibytes(gpu, "fb_memory_usage/total"),
        memory_used=_mebibytes(gpu, "fb_memory_usage/used"),
        temperature=_number(gpu, "temperature/gpu_temp"),
        margin=margin,
        memory_temperature=_number(gpu, "temperature/memory_temp"),
        power=_first(
            *(_number(gpu, f"{power}/{n}") for n in ("power_draw", "instant_power_draw", "average_power_draw"))
        ),
        power_limit=_first(
            *(_number(gpu, f"{power}/{n}") for n in ("current_power_limit", "enforced_power_limit", "power_limit"))
        ),
        power_default=_number(gpu, f"{power}/default_power_limit"),
        max_sm_clock=_number(gpu, "max_clocks/sm_clock"),
        max_memory_clock=_number(gpu, "max_clocks/mem_clock"),
        application_clock=_number(gpu, "applications_clocks/graphics_clock"),
        default_application_clock=_number(gpu, "default_applications_clocks/graphics_clock"),
        slowed_by=_slowed_by(gpu),
        slowed_for=_slowed_for(gpu),
        pcie_replays=_whole(gpu, "pci/replay_counter"),
        fabric=_fabric(gpu),
        processes=_processes(gpu),
    )


def _ecc(gpu: ElementTree.Element, scope: str) -> EccCounts:
    at = f"ecc_errors/{scope}"
    if gpu.find(f"{at}/double_bit") is not None:  # Volta and older: one count for the device memory
        return EccCounts(
            dram_corrected=_whole(gpu, f"{at}/single_bit/total"), dram_uncorrected=_whole(gpu, f"{at}/double_bit/total")
        )
    return EccCounts(
        _whole(gpu, f"{at}/sram_correctable"),
        _sum(
            _whole(gpu, f"{at}/sram_uncorrectable"),
            _whole(gpu, f"{at}/sram_uncorrectable_parity"),
            _whole(gpu, f"{at}/sram_uncorrectable_secded"),
        ),
        _whole(gpu, f"{at}/dram_correctable"),
        _whole(gpu, f"{at}/dram_uncorrectable"),
    )


def _recovery(gpu: ElementTree.Element) -> str | None:
    """Since driver 560 one word; before it, two flags."""
    told = _said(gpu, "gpu_recovery_action")
    if told is not None:
        return told
    reset = _boolean(gpu, "gpu_reset_status/reset_required")
    drain = _boolean(gpu, "gpu_reset_status/drain_and_reset_recommended")
    if reset is None and drain is None:
        return None
    return "Reset" if reset else "Drain and Reset" if drain else "None"


# The counters abbreviate what the reasons write in full.
_COUNTER_NAMES = {
    "sw_therm_slowdown": "sw_thermal_slowdown",
    "hw_therm_slowdown": "hw_thermal_slowdown",
    "hw_power_brake": "hw_power_brake_slowdown",
}


def _slowed_by(gpu: ElementTree.Element) -> list[str] | None:
    for word in ("clocks_event_reason", "clocks_throttle_reason"):  # the second until driver 535
        block = gpu.find(f"{word}s")
        if block is not None:
            told = {e.tag.removeprefix(f"{word}_"): _text(e) for e in block}
            if not told or any(text not in ("Active", "Not Active") for text in told.values()):
                return None
            return sorted(name for name, text in told.items() if text == "Active")
    return None


def _slowed_for(gpu: ElementTree.Element) -> dict[str, float]:
    found: dict[str, float] = {}
    for element in gpu.findall("clocks_event_reasons_counters/*"):
        name = element.tag.removeprefix("clocks_event_reasons_counters_")
        micros = _as_number(_text(element))
        if micros is not None:
            found[_COUNTER_NAMES.get(name, name)] = micros / 1e6
    return found


def _fabric(gpu: ElementTree.Element) -> NvidiaFabric | None:
    state = _said(gpu, "fabric/state")
    if state is None:
        return None
    told = {e.tag: _text(e) for e in gpu.findall("fabric/health/*")}
    trouble = [
        name if text == "True" else f"{name}: {text}"
        for name, text in told.items()
        if text == "True" or (name == "bandwidth" and text == "Degraded") or (name == "summary" and text == "Unhealthy")
    ]
    return NvidiaFabric(
        state,
        _said(gpu, "fabric/status") or "",
        _said(gpu, "fabric/clusterUuid") or "",
        _whole(gpu, "fabric/cliqueId"),
        trouble,
    )


def _processes(gpu: ElementTree.Element) -> list[NvidiaProcess] | None:
    block = gpu.find("processes")
    if block is None:
        return None
    found: list[NvidiaProcess] = []
    for element in block.findall("process_info"):
        pid = _whole(element, "pid")
        if pid is None:
            return None
        words = (_said(element, "process_name") or "?").split()
        found.append(NvidiaProcess(pid, words[0].rsplit("/", 1)[-1][:64], _mebibytes(element, "used_memory")))
    return found


def _text(element: ElementTree.Element | None) -> str:
    return "" if element is None or element.text is None else element.text.strip()


def _said(parent: ElementTree.Element, path: str) -> str | None:
    text = _text(parent.find(path))
    return None if _UNSAID.fullmatch(text) else text[:200]


def _as_number(text: str) -> float | None:
    found = _NUMBER.fullmatch(text)
    return None if found is None else float(found[1])


def _number(parent: ElementTree.Element, path: str) -> float | None:
    return _as_number(_text(parent.find(path)))


def _whole(parent: ElementTree.Element, path: str) -> int | None:
    text = _text(parent.find(path))
    return int(text) if re.fullmatch(r"\d{1,18}", text, re.A) else None


def _mebibytes(parent: ElementTree.Element, path: str) -> int | None:
    found = re.fullmatch(r"(\d{1,12}) MiB", _text(parent.find(path)), re.A)
    return None if found is None else int(found[1]) * MIB


def _boolean(parent: ElementTree.Element, path: str) -> bool | None:
    return _BOOLEANS.get(_text(parent.find(path)))


def _sum(*numbers: int | None) -> int | None:
    known = [n for n in numbers if n is not None]
    return sum(known) if known else None


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _first(*values: T | None) -> T | None:
    return next((v for v in values if v is not None), None)


# -------------------------------------------------------------------------------------- nvidia-smi nvlink -s, -e

_GPU_LINE = re.compile(r"GPU \d+: .{0,200}\(UUID: (GPU-[0-9a-f-]{8,64})\)")
_SPEED_LINE = re.compile(r"Link (\d{1,3}): (?:(\d{1,6}(?:\.\d{1,6})?) GB/s|<?inactive>?)")
# What it says of a card that has none. Newer drivers write “Nvlink”, and give the reason after a colon.
_NO_LINKS = re.compile("Unable to retrieve NVLink information", re.IGNORECASE)
_ERROR_LINE = re.compile(r"Link (\d{1,3}): (Replay|Recovery|CRC) Errors: (\d{1,18}|N/A)")


def _by_card(text: str) -> dict[str, list[str]]:
    """The lines of each card, by UUID."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        head = _GPU_LINE.fullmatch(line.strip())
        if head is not None:
            if head[1] in found:
                raise Unreadable(f"{head[1]} is listed twice")
            lines = found[head[1]] = []
        elif line.strip():
            if lines is None:
                raise Unreadable(f"expected “GPU 0: … (UUID: GPU-…)”, found {line.strip()[:60]!r}")
            lines.append(line.strip())
    return found


def nvlink_status(text: str) -> dict[str, list[NvLink]]:
    """``nvidia-smi nvlink -s``: the links of each card, by UUID; a card without NVLink has none."""
    found: dict[str, list[NvLink]] = {}
    for uuid, lines in _by_card(text).items():
        links: list[NvLink] = []
        for line in lines:
            told = _SPEED_LINE.fullmatch(line)
            if told is not None:
                links.append(
                    NvLink(int(told[1]), told[2] is not None, None if told[2] is None else float(told[2]) * 1e9)
                )
            elif not _NO_LINKS.search(line):
                raise Unreadable(f"expected “Link 0: 26.562 GB/s”, found {line[:60]!r}")
        found[uuid] = links
    return found


def nvlink_errors(text: str) -> dict[str, dict[int, dict[str, int]]]:
    """``nvidia-smi nvlink -e``: by UUID and link, the counts of ``Replay``, ``Recovery`` and ``CRC``."""
    found: dict[str, dict[int, dict[str, int]]] = {}
    for uuid, lines in _by_card(text).items():
        links: dict[int, dict[str, int]] = {}
        for line in lines:
            told = _ERROR_LINE.fullmatch(line)
            if told is None:
                if _NO_LINKS.search(line):
                    continue
                raise Unreadable(f"expected “Link 0: Replay Errors: 0”, found {line[:60]!r}")
            counts = links.setdefault(int(told[1]), {})
            if told[3] != "N/A":
                counts[told[2]] = int(told[3])
        found[uuid] = links
    return found


# --------------------------------------------------------------------------------------------------- kernel module

_MODULE = re.compile(
    r"NVRM version: NVIDIA UNIX (?:(Open) )?\S* ?Kernel Module(?: for \S+)? +(\d{2,4}(?:\.\d{1,4}){1,3})\s"
)


def module_version(text: str) -> tuple[str, bool]:
    """/proc/driver/nvidia/version: the version of the loaded module, and whether it is the open one."""
    found = _MODULE.match(text)
    if found is None:
        raise Unreadable("no line “NVRM version: NVIDIA UNIX … Kernel Module  VERSION”")
    return found[2], found[1] is not None


# ---------------------------------------------------------------------------------------------------- dcgmi health

_ROW = re.compile(r"\|([^|]*)\|([^|]*)\|")


def dcgm_health(text: str) -> tuple[str, list[str]]:
    """``dcgmi health -c``: the overall health (``Healthy``, ``Warning``, ``Failure``) and what it complains of."""
    rows = [(m[1].strip(), m[2].strip()) for m in map(_ROW.fullmatch, map(str.strip, text.splitlines())) if m]
    overall = next((value for name, value in rows if name == "Overall Health"), None)
    lines = text.split()
    if overall not in ("Healthy", "Warning", "Failure") or not lines[-1].startswith("+") or lines[-1] != lines[0]:
        raise Unreadable("no row “Overall Health” in a table that is whole")
    complaints = [f"{name.lstrip('-> ')} {value}".strip() for name, value in rows if value and name != "Overall Health"]
    return overall, complaints
