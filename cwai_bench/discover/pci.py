"""PCI devices that matter to training, their links, and the versions of kernel modules."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

from cwai_bench.discover import call
from cwai_bench.sources import Modules, Pci, PciDevice

DEVICES = Path("/sys/bus/pci/devices")
BASE_CLASSES = (0x01, 0x02, 0x03, 0x0B, 0x12)
"""PCI Code and ID Assignment: mass storage, network, display, processor, processing accelerator."""
BRIDGE = 0x0604
PCI_EXPRESS_CONFIG = 4096
CAPABILITIES, EXPRESS_CAPABILITY = 0x34, 0x10  # linux/pci_regs.h: PCI_CAPABILITY_LIST, PCI_CAP_ID_EXP
ACS_CAPABILITY = 0x000D  # linux/pci_regs.h: PCI_EXT_CAP_ID_ACS
SPEEDS = re.compile(r"([\d.]+) GT/s")


def _text(path: Path) -> str:
    """The content of an attribute; empty when it is not there or the device does not answer."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _speed(path: Path) -> float:
    found = SPEEDS.match(_text(path))
    return float(found[1]) * 1e9 if found else 0.0


def _width(path: Path) -> int:
    told = _text(path)
    # 0 and 255 are what the kernel shows for a device without a link
    return int(told) if told.isdecimal() and int(told) < 255 else 0


def _aer_total(path: Path, name: str) -> int:
    found = re.search(rf"^{name} (\d+)$", _text(path), re.M)
    return int(found[1]) if found else 0


def _acs(config: bytes) -> int | None:
    """The ACS control register, found by walking the extended capabilities (PCI Express Base Specification, 7.7.11)."""
    at, steps = 0x100, 0
    while at >= 0x100 and at + 8 <= len(config) and steps < 96:
        (header,) = struct.unpack_from("<I", config, at)
        if header in (0, 0xFFFFFFFF):
            return None
        if header & 0xFFFF == ACS_CAPABILITY:
            return int(struct.unpack_from("<H", config, at + 6)[0])
        at, steps = header >> 20 & 0xFFC, steps + 1
    return None


def _packet_sizes(config: bytes) -> tuple[int, int] | None:
    """Max_Payload_Size and Max_Read_Request_Size of Device Control, in bytes; None when there is no such register.

    Found by walking the capabilities (PCI Local Bus Specification 3.0, 6.7; PCI Express Base Specification, 7.5.3.4).
    """
    at, steps = config[CAPABILITIES] & 0xFC if len(config) > CAPABILITIES else 0, 0
    while at >= 0x40 and at + 10 <= min(len(config), 256) and steps < 48:
        if config[at] == EXPRESS_CAPABILITY:
            (control,) = struct.unpack_from("<H", config, at + 8)
            return 128 << (control >> 5 & 7), 128 << (control >> 12 & 7)
        at, steps = config[at + 1] & 0xFC, steps + 1
    return None


def _device(path: Path) -> tuple[PciDevice, bool] | None:
    """The device, and whether its extended configuration space could be read; None when it is of no interest."""
    told = _text(path / "class")
    if not told:
        return None
    class_code = int(told, 16) >> 8
    bridge = class_code == BRIDGE
    if not bridge and class_code >> 8 not in BASE_CLASSES:
        return None
    real = path.resolve()
    above = real.parent
    try:
        config = (real / "config").read_bytes()
    except OSError:
        config = b""
    readable = len(config) > 64  # without CAP_SYS_ADMIN the kernel gives the first 64 bytes
    acs = _acs(config) if bridge and len(config) == PCI_EXPRESS_CONFIG else None
    sizes = None if bridge else _packet_sizes(config)
    driver = real / "driver"
    port_speed, port_width = _speed(above / "max_link_speed"), _width(above / "max_link_width")
    own_speed, own_width = _speed(real / "max_link_speed"), _width(real / "max_link_width")
    numa = _text(real / "numa_node")
    return PciDevice(
        address=path.name,
        class_code=class_code,
        model=f"{_text(real / 'vendor').removeprefix('0x')}:{_text(real / 'device').removeprefix('0x')}",
        driver=driver.resolve().name if driver.exists() else "",
        numa_node=int(numa) if re.fullmatch(r"-?\d+", numa) else -1,
        speed=_speed(real / "current_link_speed"),
        width=_width(real / "current_link_width"),
        max_speed=min(own_speed, port_speed) if port_speed else own_speed,
        max_width=min(own_width, port_width) if port_width else own_width,
        aer_correctable=_aer_total(real / "aer_dev_correctable", "TOTAL_ERR_COR"),
        aer_nonfatal=_aer_total(real / "aer_dev_nonfatal", "TOTAL_ERR_NONFATAL"),
        aer_fatal=_aer_total(real / "aer_dev_fatal", "TOTAL_ERR_FATAL"),
        acs=acs,
        behind=above.name if (above / "class").exists() else "",
        max_payload=sizes[0] if sizes else None,
        max_read_request=sizes[1] if sizes else None,
    ), readable


@call("pci")
def pci() -> Pci:
    devices: list[PciDevice] = []
    readable = True
    for name in sorted(os.listdir(DEVICES)) if DEVICES.is_dir() else []:  # noqa: PTH208
        found = _device(DEVICES / name)
        if found is None:
            continue
        device, config_readable = found
        devices.append(device)
        if device.class_code == BRIDGE:
            readable = readable and config_readable
    groups: dict[str, int] = {}
    for path in sorted(Path("/sys/kernel/iommu_groups").glob("*/type")):
        kind = _text(path)
        groups[kind] = groups.get(kind, 0) + 1
    return Pci(devices, readable, groups)


@call("modules")
def modules() -> Modules:
    found: dict[str, str] = {}
    for path in sorted(Path("/sys/module").glob("*/version")):
        version = _text(path)
        if version and (path.parent / "initstate").exists():  # built into the kernel: no version of its own
            found[path.parent.name] = version[:100]
    return Modules(found)
