"""Readers of what host tools, NVMe tools and amd-smi say: values or Unreadable, whatever the text."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench.readers import Unreadable, amd, host, nvme, smart
from cwai_bench.readers.json_answer import count

UNITS = """\
Id=ssh.service
LoadState=loaded
ActiveState=active
UnitFileState=enabled
ConditionResult=yes

Id=crio.service
LoadState=not-found
ActiveState=inactive
UnitFileState=
ConditionResult=no
"""
RPM = "rdma-core|51mlnx1-1.2310055\nlibnccl|2.21.5-1+cuda12.4\n"
DPKG = "ii |libnccl2|2.21.5-1+cuda12.4\nun |mlnx-ofed-all|\nrc |nvidia-driver-535|535.1\nhi |rdma-core|39.0-1\n"
PS = "    0       1  789634  13908  0.0 systemd\n 1000  913477    5209 2097152 99.5 my prog (x)\n"
LAST = """\
reboot   system boot  5.15.0-130-generic 2025-12-22T20:39:26+00:00   still running
reboot   system boot  5.15.0-130-generic 2025-12-09T08:11:02+0000 - 2025-12-22T20:35:50+0000 (13+12:24)

wtmp begins 2025-12-01T06:25:11+00:00
"""
CHRONY = "A29FC87B,162.159.200.123,4,1767225391.5,-0.000011874,0,0,-18.2,0,0.02,0.0004,0.0002,1027.2,Normal\n"
SMART = '{"critical_warning":1,"avail_spare":"3","spare_thresh":10,"percent_used":104,"media_errors":12}'
SMARTCTL = """{"smartctl": {"exit_status": 0}, "nvme_smart_health_information_log": {"critical_warning": 0,
 "available_spare": 100, "available_spare_threshold": 5, "percentage_used": 0, "media_errors": 0}}"""
ECC = json.dumps({"gpu_data": [{"gpu": 0, "ecc": {"total_correctable_count": 5, "total_uncorrectable_count": "N/A"}}]})
PAGE = {"page_address": "0x1", "page_size": "4096", "status": "RESERVED"}
BAD_PAGES = json.dumps(
    [
        {"gpu": 0, "retired": [PAGE, PAGE], "pending": PAGE, "un_res": "No bad pages found."},
        {"gpu": 1, "retired": "N/A", "pending": "N/A", "un_res": "N/A"},
    ]
)
FIRMWARE = json.dumps([{"gpu": 0, "fw_list": [{"fw_id": "RLC", "fw_version": "58"}]}, {"gpu": 1, "fw_list": "N/A"}])
VERSION = '[{"tool": "AMDSMI Tool", "version": "24.6", "amdsmi_library_version": "24.6.3.0", "rocm_version": "6.2.4"}]'
LISTED = '[{"gpu": 0, "bdf": "0000:C9:00.0", "uuid": "x"}]'
ROCMINFO = "Agent 1\n  Device Type:             CPU   \nAgent 2\n  Device Type:             GPU   \n*** Done ***\n"


def test_units() -> None:
    ssh, crio = host.units(UNITS)
    assert (ssh.name, ssh.load, ssh.active, ssh.file) == ("ssh.service", "loaded", "active", "enabled")
    assert (crio.load, crio.file, crio.condition) == ("not-found", "", False)


def test_packages_that_are_installed() -> None:
    assert host.packages(RPM) == {"rdma-core": "51mlnx1-1.2310055", "libnccl": "2.21.5-1+cuda12.4"}
    assert host.packages(DPKG) == {"libnccl2": "2.21.5-1+cuda12.4", "rdma-core": "39.0-1"}
    assert host.packages("") == {}
    with pytest.raises(Unreadable):
        host.packages("iF |libnccl2|2.21\n")


def test_processes() -> None:
    first, second = host.processes(PS)
    assert (first.uid, first.pid, first.name) == (0, 1, "systemd")
    assert (second.memory, second.cpu, second.name) == (2 << 30, 0.995, "my prog (x)")


def test_boots_in_either_way_to_write_an_offset() -> None:
    times, since = host.boots(LAST)
    assert times == [1766435966.0, 1765267862.0]
    assert since == 1764570311.0


def test_tracking() -> None:
    found = host.tracking(CHRONY)
    assert (found.source, found.stratum, found.updated, found.leap) == ("162.159.200.123", 4, 1767225391.5, "Normal")


def test_drive_health_by_either_tool() -> None:
    assert nvme.drive_health(SMART) == nvme.DriveHealth(1, 3, 10, 104, 12)
    assert nvme.drive_health(SMARTCTL) == nvme.DriveHealth(0, 100, 5, 0, 0)
    assert nvme.drive_health('{"critical_warning": 0}') == nvme.DriveHealth(0, None, None, None, None)


def test_amd() -> None:
    assert amd.ecc(ECC) == {0: amd.Ecc(5, None, None)}
    assert amd.bad_pages(BAD_PAGES) == {0: amd.BadPages(2, 1, 0), 1: amd.BadPages(None, None, None)}
    assert amd.firmware(FIRMWARE) == {0: {"RLC": "58"}, 1: {}}
    assert amd.versions(VERSION) == {"amdsmi_library": "24.6.3.0", "rocm": "6.2.4"}
    assert amd.addresses(LISTED) == {0: "0000:c9:00.0"}
    assert amd.gpu_agents(ROCMINFO) == 1


@pytest.mark.parametrize(
    "text", ["[]", "{}", "null", '[{"gpu": 0}, {"gpu": 0}]', '[{"gpu": true}]', "[1]", "[" * 5000, '{"gpu_data": {}}']
)
def test_rows_that_are_none(text: str) -> None:
    with pytest.raises(Unreadable):
        amd.rows(text)


@pytest.mark.parametrize("value", ["N/A", "", None, True, -1, 1.5, "١", "9" * 41, float("inf"), [], {}])
def test_what_is_no_count(value: object) -> None:
    assert count(value) is None


SEL = """   1 |  Pre-Init  |0000000123| System Event #0x01 | Timestamp Clock Sync | Asserted
   2 | 06/14/2023 | 10:01:17 | Power Supply PS2 Status | Power Supply AC lost | Asserted
  3a | 12/14/22 | 23:09:44 CET | Memory #0x88 | Correctable ECC (CPU0_G1) | Deasserted
  34 | 02/25/2025 | 04:50:09 PM EST | Memory #0x02 | Uncorrectable ECC (UnCorrectable ECC |  DIMMD7) | Asserted
fe3c | 04/10/2008 | 14:50:13 | Power Unit Power Redundancy | Fully Redundant
   9 | 12/14/22 | 23:09:44 UTC | OEM record c0 | 000137 | 0a0b0c0d0e0f
"""
IBMC = """ID   | Generation Time     | Severity | Event Code | Status   | Event Description
1    | 2025-12-31 10:00:01 | Critical | 0x12000023 | Asserted | Liquid cooling leak | cabinet 3
2    | -                   | Normal   | 0x2600000F | Deasserted | The power button was pressed
"""


def test_event_logs_of_a_bmc() -> None:
    found = host.event_log(SEL)
    assert [(e.sensor, e.what, e.asserted) for e in found] == [
        ("System Event #0x01", "Timestamp Clock Sync", True),
        ("Power Supply PS2 Status", "Power Supply AC lost", True),
        ("Memory #0x88", "Correctable ECC (CPU0_G1)", False),
        ("Memory #0x02", "Uncorrectable ECC (UnCorrectable ECC | DIMMD7)", True),
        ("Power Unit Power Redundancy", "Fully Redundant", True),
    ]
    assert [e.when for e in found[:3]] == [None, 1686736877.0, 1671059384.0]
    assert host.event_log("") == []
    first, second = host.huawei_event_log(IBMC)
    assert (first.code, first.what, first.when) == ("0x12000023", "Liquid cooling leak | cabinet 3", 1767175201.0)
    assert (second.code, second.when, second.asserted) == ("0x2600000f", None, False)
    for text in ("Get SEL Info command failed\n", " 1 | 06/14/2023\n", "   1 | 06/14/2023 | 10:01:17 | Po"):
        with pytest.raises(Unreadable):
            host.event_log(text)


READERS: list[tuple[Callable[[str], object], str]] = [
    (host.event_log, SEL),
    (host.huawei_event_log, IBMC),
    (host.units, UNITS),
    (host.packages, DPKG),
    (host.processes, PS),
    (host.boots, LAST),
    (host.tracking, CHRONY),
    (nvme.drive_health, SMART),
    (nvme.drive_health, SMARTCTL),
    (smart.smart_status, '{"smartctl": {"exit_status": 0}, "smart_status": {"passed": true}}'),
    (amd.ecc, ECC),
    (amd.bad_pages, BAD_PAGES),
    (amd.firmware, FIRMWARE),
    (amd.versions, VERSION),
    (amd.addresses, LISTED),
    (amd.gpu_agents, ROCMINFO),
]


@pytest.mark.parametrize(("reader", "good"), READERS)
@given(data=st.data())
def test_any_text_gives_values_or_is_unreadable(
    reader: Callable[[str], object], good: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(good)))
    junk = data.draw(
        st.text(max_size=12) | st.sampled_from(["\x00", "\r\n", "\ud800", "[[[[", "9" * 50, "NaN", "1e999"])
    )
    text = data.draw(st.sampled_from([good[:at], good[:at] + junk + good[at:], junk, good.replace("\n", "\r\n")]))
    with suppress(Unreadable):
        reader(text)


@pytest.mark.parametrize(("reader", "good"), READERS)
def test_a_cut_text_is_unreadable(reader: Callable[[str], object], good: str) -> None:
    if reader in (
        host.packages,
        host.processes,
        host.units,
        host.event_log,
        host.huawei_event_log,
    ):  # whole lines are whole answers; the checks count them
        cuts = [at for at in range(1, len(good)) if good[at - 1] != "\n"]
    else:
        cuts = list(range(len(good.rstrip()) - 1))
    for at in cuts:
        with pytest.raises(Unreadable):
            reader(good[:at])
