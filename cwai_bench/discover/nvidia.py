"""What the NVIDIA driver says through NVML (nvidia-ml-py), and the environment that CUDA would see.

Everything here only reads. A call that the driver of this card does not support gives None; a card that is lost while
it is asked is listed as lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from ctypes import byref
from typing import Any

import msgspec

from cwai_bench.discover import call
from cwai_bench.readers.nvidia import address
from cwai_bench.sources import (
    NO_PYTHON_LIBRARY,
    CudaEnvironment,
    EccCounts,
    Nvidia,
    NvidiaCard,
    NvidiaFabric,
    NvidiaProcess,
    NvLink,
    NvLinkErrors,
)

PROCESSES_KEPT = 64
LOOK = 1.0
"""Seconds, at least, between both readings of the errors of the links."""


class _Lost(Exception):
    """The card cannot be reached any more."""


class _Asker:
    """NVML's functions on one card: the value, or None where the driver has no such value for it."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.nvml = nvml
        self.handle = handle

    def __call__(self, name: str, *arguments: Any) -> Any:
        return self.ask(lambda: getattr(self.nvml, f"nvmlDeviceGet{name}")(self.handle, *arguments))

    def ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except self.nvml.NVMLError as e:
            if e.value in (self.nvml.NVML_ERROR_GPU_IS_LOST, self.nvml.NVML_ERROR_RESET_REQUIRED):
                raise _Lost(str(e)) from e
            return None
        # An older nvidia-ml-py has no such function, or an older driver not this version of it.
        except (AttributeError, self.nvml.NVMLLibraryMismatchError):
            return None

    def text(self, name: str) -> str | None:
        told = self(name)
        return None if told is None else _decoded(told)

    def flag(self, name: str) -> bool | None:
        told = self(name)
        return None if told is None else bool(told)

    def flags(self, name: str) -> tuple[bool | None, bool | None]:
        """Current and pending."""
        told = self(name)
        return (None, None) if told is None else (bool(told[0]), bool(told[1]))

    def process_name(self, pid: int) -> str:
        told = self.ask(lambda: self.nvml.nvmlSystemGetProcessName(pid))
        return "?" if told is None else _decoded(told)

    def number(self, name: str, *arguments: Any, scale: float = 1.0) -> float | None:
        told = self(name, *arguments)
        return None if told is None else float(told) * scale

    def field(self, field: int, scope: int = 0) -> int | float | None:
        """A field value (NVML_FI_*), by the type that came with it."""
        values = self("FieldValues", [(field, scope)])
        if not values or values[0].nvmlReturn != self.nvml.NVML_SUCCESS:
            return None
        kinds = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # in order of NVML_VALUE_TYPE_*
        kind = int(values[0].valueType)
        return getattr(values[0].value, kinds[kind], None) if 0 <= kind < len(kinds) else None


def _decoded(told: Any) -> str:
    return told.decode("utf-8", "backslashreplace") if isinstance(told, bytes) else str(told)


@call("nvml")
def nvidia() -> Nvidia:
    try:
        import pynvml
    except ImportError:
        return Nvidia("", "", [], error="nvidia-ml-py is not installed", code=NO_PYTHON_LIBRARY)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as e:
        return Nvidia("", "", [], error=str(e), code=int(e.value))
    cards: list[NvidiaCard] = []
    askers: list[_Asker] = []
    lost: list[str] = []
    try:
        driver = _decoded(pynvml.nvmlSystemGetDriverVersion())
        try:
            cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        except pynvml.NVMLError:
            cuda = 0
        started = time.monotonic()
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                ask = _Asker(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index))
                cards.append(_card(ask))
                askers.append(ask)
            except (_Lost, pynvml.NVMLError) as e:
                lost.append(f"{index}: {e}"[:200])
        looked = 0
        if any(link.up for card in cards for link in card.links or ()):
            # From the last card's first reading on: no link is looked at for less.
            time.sleep(LOOK)
            looked = max(1, round(time.monotonic() - started))
            cards = [_looked_at_again(ask, card) for ask, card in zip(askers, cards, strict=True)]
        return Nvidia(driver, f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "", cards, lost, looked=looked)
    except pynvml.NVMLError as e:
        return Nvidia("", "", [], error=str(e), code=int(e.value))
    finally:
        pynvml.nvmlShutdown()


def _card(ask: _Asker) -> NvidiaCard:
    n = ask.nvml
    memory = ask("MemoryInfo", n.nvmlMemory_v2) or ask("MemoryInfo")
    remapped = ask("RemappedRows") or (None, None, None, None)
    mig, mig_pending = ask.flags("MigMode")
    ecc, ecc_pending = ask.flags("EccMode")
    return NvidiaCard(
        address=address(_decoded(ask("PciInfo").busId)),
        name=ask.text("Name") or "",
        uuid=ask.text("UUID") or "",
        serial=ask.text("Serial"),
        vbios=ask.text("VbiosVersion"),
        gsp=ask.text("GspFirmwareVersion"),
        inforom=ask.text("InforomImageVersion"),
        inforom_corrupt=_inforom_corrupt(ask),
        persistence=ask.flag("PersistenceMode"),
        mig=mig,
        mig_pending=mig_pending,
        ecc=ecc,
        ecc_pending=ecc_pending,
        ecc_volatile=_ecc(ask, n.NVML_VOLATILE_ECC),
        ecc_aggregate=_ecc(ask, n.NVML_AGGREGATE_ECC),
        sram_threshold_exceeded=_sram_threshold_exceeded(ask),
        remapped_corrected=remapped[0],
        remapped_uncorrected=remapped[1],
        remap_pending=None if remapped[2] is None else bool(remapped[2]),
        remap_failed=None if remapped[3] is None else bool(remapped[3]),
        retired_pages=_retired_pages(ask),
        retirement_pending=ask.flag("RetiredPagesPendingStatus"),
        recovery=_recovery(ask),
        memory_total=None if memory is None else int(memory.total),
        memory_used=None if memory is None else int(memory.used),
        temperature=ask.number("Temperature", n.NVML_TEMPERATURE_GPU),
        margin=_margin(ask),
        memory_temperature=ask.field(n.NVML_FI_DEV_MEMORY_TEMP),
        power=ask.number("PowerUsage", scale=1e-3),
        power_limit=ask.number("EnforcedPowerLimit", scale=1e-3),
        power_default=ask.number("PowerManagementDefaultLimit", scale=1e-3),
        max_sm_clock=ask.number("MaxClockInfo", n.NVML_CLOCK_SM),
        max_memory_clock=ask.number("MaxClockInfo", n.NVML_CLOCK_MEM),
        application_clock=ask.number("ApplicationsClock", n.NVML_CLOCK_GRAPHICS),
        default_application_clock=ask.number("DefaultApplicationsClock", n.NVML_CLOCK_GRAPHICS),
        slowed_by=_slowed_by(ask),
        slowed_for=_slowed_for(ask),
        pcie_replays=ask("PcieReplayCounter"),
        fabric=_fabric(ask),
        links=_links(ask),
        processes=_processes(ask),
    )


def _inforom_corrupt(ask: _Asker) -> bool | None:
    """Reads the InfoROM and compares its checksums."""
    try:
        ask.nvml.nvmlDeviceValidateInforom(ask.handle)
        return False
    except ask.nvml.NVMLError as e:
        return True if e.value == ask.nvml.NVML_ERROR_CORRUPTED_INFOROM else None


def _ecc(ask: _Asker, counter: int) -> EccCounts:
    n = ask.nvml

    def count(kind: int, where: int) -> int | None:
        told = ask("MemoryErrorCounter", kind, counter, where)
        return None if told is None else int(told)

    corrected, uncorrected = n.NVML_MEMORY_ERROR_TYPE_CORRECTED, n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    sram, dram = n.NVML_MEMORY_LOCATION_SRAM, n.NVML_MEMORY_LOCATION_DRAM
    return EccCounts(count(corrected, sram), count(uncorrected, sram), count(corrected, dram), count(uncorrected, dram))


def _sram_threshold_exceeded(ask: _Asker) -> bool | None:
    def question() -> bool:
        status = ask.nvml.c_nvmlEccSramErrorStatus_v1_t()
        ask.nvml.nvmlDeviceGetSramEccErrorStatus(ask.handle, byref(status))
        return bool(status.bThresholdExceeded)

    told: bool | None = ask.ask(question)
    return told


def _retired_pages(ask: _Asker) -> int | None:
    n = ask.nvml
    causes = (
        n.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
        n.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
    )
    pages = [ask("RetiredPages", cause) for cause in causes]
    return None if all(p is None for p in pages) else sum(len(p) for p in pages if p is not None)


RECOVERY_ACTIONS = ("None", "Reset", "Reboot", "Drain P2P", "Drain and Reset")
"""In order of NVML_GPU_RECOVERY_ACTION_*, in the words of nvidia-smi."""


def _recovery(ask: _Asker) -> str | None:
    told = ask.field(ask.nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)
    if told is not None:
        code = int(told)
        return RECOVERY_ACTIONS[code] if 0 <= code < len(RECOVERY_ACTIONS) else f"action {code}"
    reset = ask.field(ask.nvml.NVML_FI_DEV_RESET_STATUS)
    drain = ask.field(ask.nvml.NVML_FI_DEV_DRAIN_AND_RESET_STATUS)
    if reset is None and drain is None:
        return None
    return "Reset" if reset else "Drain and Reset" if drain else "None"


def _margin(ask: _Asker) -> float | None:
    """Hopper and newer tell degrees to a limit, and where they slow down relative to it; others have thresholds."""
    n = ask.nvml
    to_limit = ask.number("MarginTemperature")
    slow = ask.field(n.NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT)
    if to_limit is not None and slow is not None:
        return to_limit - slow
    now = ask.number("Temperature", n.NVML_TEMPERATURE_GPU)
    threshold = ask.number("TemperatureThreshold", n.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
    return None if now is None or threshold is None else threshold - now


SLOWED_BY = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clocks_setting",
}
"""nvmlClocksEventReason*, in the words of nvidia-smi."""


def _slowed_by(ask: _Asker) -> list[str] | None:
    told = ask("CurrentClocksEventReasons")
    if told is None:  # driver 530 and older
        told = ask("CurrentClocksThrottleReasons")
    return None if told is None else sorted(name for bit, name in SLOWED_BY.items() if int(told) & bit)


def _slowed_for(ask: _Asker) -> dict[str, float]:
    n = ask.nvml
    fields = {
        "sw_power_cap": "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP",
        "sync_boost": "NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST",
        "sw_thermal_slowdown": "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN",
        "hw_thermal_slowdown": "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN",
        "hw_power_brake_slowdown": "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN",
    }
    told = {name: ask.field(getattr(n, field)) for name, field in fields.items() if hasattr(n, field)}
    return {name: nanos / 1e9 for name, nanos in told.items() if nanos is not None}


FABRIC_STATES = ("N/A", "Not Started", "In Progress", "Completed")
# Fields of the health mask that are true or not: name, shift; 1 is true (nvml.h, NVML_GPU_FABRIC_HEALTH_MASK_*).
FABRIC_TROUBLE = {
    "bandwidth: Degraded": 0,
    "route_recovery_in_progress": 2,
    "route_unhealthy": 4,
    "access_timeout_recovery": 6,
}


def _fabric(ask: _Asker) -> NvidiaFabric | None:
    def with_health() -> Any:
        info = ask.nvml.c_nvmlGpuFabricInfo_v2_t()
        ask.nvml.nvmlDeviceGetGpuFabricInfoV(ask.handle, byref(info))
        return info

    def without() -> Any:
        info = ask.nvml.c_nvmlGpuFabricInfo_t()
        ask.nvml.nvmlDeviceGetGpuFabricInfo(ask.handle, byref(info))
        return info

    info = ask.ask(with_health) or ask.ask(without)
    if info is None or info.state == 0 or not 0 < info.state < len(FABRIC_STATES):
        return None
    octets = bytes(info.clusterUuid).hex()
    uuid = "-".join((octets[:8], octets[8:12], octets[12:16], octets[16:20], octets[20:]))
    mask = int(getattr(info, "healthMask", 0))
    return NvidiaFabric(
        FABRIC_STATES[info.state],
        "Success" if info.status == ask.nvml.NVML_SUCCESS else f"error {info.status}",
        uuid,
        int(info.cliqueId),
        [name for name, shift in FABRIC_TROUBLE.items() if mask >> shift & 3 == 1],
    )


def _links(ask: _Asker) -> list[NvLink]:
    n = ask.nvml
    found: list[NvLink] = []
    for link in range(n.NVML_NVLINK_MAX_LINKS):
        up = ask("NvLinkState", link)
        if up is None:
            break
        speed = ask.field(n.NVML_FI_DEV_NVLINK_GET_SPEED, link) if up else None
        if up and speed is None:
            speed = ask.field(n.NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON)
        errors = _link_errors(ask, link)
        found.append(
            NvLink(
                link,
                bool(up),
                None if speed is None else speed * 1e6,
                errors.replays,
                errors.recoveries,
                errors.crc_errors,
                effective_ber=_bit_error_rate(ask, "NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER", link),
                symbol_ber=_bit_error_rate(ask, "NVML_FI_DEV_NVLINK_COUNT_SYMBOL_BER", link),
            )
        )
    return found


def _link_errors(ask: _Asker, link: int) -> NvLinkErrors:
    n = ask.nvml
    kinds = (n.NVML_NVLINK_ERROR_DL_REPLAY, n.NVML_NVLINK_ERROR_DL_RECOVERY, n.NVML_NVLINK_ERROR_DL_CRC_FLIT)
    replays, recoveries, crc = (ask("NvLinkErrorCounter", link, kind) for kind in kinds)
    if recoveries is None:  # NVLink 5 counts them elsewhere
        recoveries = ask.field(n.NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS, link)
    return NvLinkErrors(replays, recoveries, crc)


def _bit_error_rate(ask: _Asker, field: str, link: int) -> float | None:
    """Mantissa in bits 8 to 11, power of ten (negative) in bits 0 to 7 (nvml.h, NVML_NVLINK_BER_*)."""
    number = getattr(ask.nvml, field, None)
    told = None if number is None else ask.field(number, link)
    return None if told is None else (int(told) >> 8 & 0xF) * 10.0 ** -(int(told) & 0xFF)


def _looked_at_again(ask: _Asker, card: NvidiaCard) -> NvidiaCard:
    """``card`` with the errors of its links counted once more; as it was when it cannot be reached any more."""
    try:
        links = [
            msgspec.structs.replace(link, later=_link_errors(ask, link.link)) if link.up else link
            for link in card.links or ()
        ]
    except _Lost:
        return card
    return msgspec.structs.replace(card, links=links)


def _processes(ask: _Asker) -> list[NvidiaProcess] | None:
    told: list[Any] = []
    for kind in ("ComputeRunningProcesses", "GraphicsRunningProcesses"):
        running = ask(kind)
        if running is None:  # drivers before 510
            running = ask(f"{kind}_v2")
        if running is not None:
            told.append(running)
    if not told:
        return None
    by_pid = {int(process.pid): process for running in told for process in running}
    found: list[NvidiaProcess] = []
    for pid, process in list(by_pid.items())[:PROCESSES_KEPT]:
        words = ask.process_name(pid).split() or ["?"]
        memory = process.usedGpuMemory
        found.append(NvidiaProcess(pid, words[0].rsplit("/", 1)[-1][:64], None if memory is None else int(memory)))
    return found


CUDA_VARIABLES = (
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_INJECTION32_PATH",
    "CUDA_INJECTION64_PATH",
    "CUDA_ENABLE_COREDUMP_ON_EXCEPTION",
    "CUDA_DEVICE_WAITS_ON_EXCEPTION",
    "CUDA_PROFILE",
    "COMPUTE_PROFILE",
    "NSIGHT_CUDA_DEBUGGER",
    "CUDA_AUTO_BOOST",
    "CUDA_CACHE_DISABLE",
    "CUDA_MPS_PIPE_DIRECTORY",
    "NVIDIA_TF32_OVERRIDE",
    "NCCL_P2P_DISABLE",
    "NCCL_SHM_DISABLE",
)


@call("cuda_environment")
def cuda_environment() -> CudaEnvironment:
    return CudaEnvironment({name: os.environ[name][:200] for name in CUDA_VARIABLES if name in os.environ})
