"""What NVIDIA's tools print, as values; and whatever else a text may be, values or Unreadable."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwai_bench.checks.nvidia import NVLINK_ERRORS, NVLINK_STATUS, SMI
from cwai_bench.checks.nvidia_driver import HEALTH
from cwai_bench.discover.recorded import slug
from cwai_bench.readers import Unreadable
from cwai_bench.readers import nvidia as reader
from cwai_bench.sources import EccCounts, NvidiaFabric, NvidiaProcess, NvLink

GOOD = Path(__file__).resolve().parent.parent / "fixtures/nodes/good"


def recorded(command: object) -> str:
    return (GOOD / "commands" / slug(command) / "stdout").read_text()  # type: ignore[arg-type]


TEXTS = {
    "smi": (reader.smi, recorded(SMI)),
    "nvlink_status": (reader.nvlink_status, recorded(NVLINK_STATUS)),
    "nvlink_errors": (reader.nvlink_errors, recorded(NVLINK_ERRORS)),
    "module_version": (reader.module_version, (GOOD / "proc/driver/nvidia/version").read_text()),
    "dcgm_health": (reader.dcgm_health, recorded(HEALTH)),
}


def log(gpu: str, *, head: str = "", count: int = 1) -> str:
    return (
        '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n<nvidia_smi_log>'
        f"<driver_version>535.54.03</driver_version>{head}<attached_gpus>{count}</attached_gpus>"
        f'<gpu id="00000000:01:00.0">{gpu}</gpu></nvidia_smi_log>\n'
    )


def test_eight_cards_of_a_driver_550() -> None:
    told = reader.smi(TEXTS["smi"][1])
    assert (told.driver, told.cuda, len(told.cards)) == ("550.127.08", "12.4", 8)
    first = told.cards[0]
    assert (first.address, first.name, first.serial) == ("0000:19:00.0", "NVIDIA H100 80GB HBM3", "1651023000417")
    assert first.fabric == NvidiaFabric("Completed", "Success", "00000000-0000-0000-0000-000000000000", 0, [])
    assert (first.margin, first.memory_temperature, first.power, first.power_limit) == (58.0, 42.0, 71.32, 700.0)
    assert (first.ecc, first.ecc_volatile, first.retired_pages) == (True, EccCounts(0, 0, 0, 0), None)
    assert (first.slowed_by, first.slowed_for, first.recovery) == (["gpu_idle"], {}, "None")
    assert (first.memory_total, first.processes, first.links) == (81559 << 20, [], None)


def test_what_is_not_said_is_none() -> None:
    card = reader.smi(log("")).cards[0]
    assert card.address == "0000:01:00.0"
    silent = {f: getattr(card, f) for f in card.__struct_fields__ if f not in ("address", "name", "uuid")}
    assert {f: v for f, v in silent.items() if v not in (None, {}, EccCounts())} == {}
    card = reader.smi(
        log(
            "<remapped_rows>N/A</remapped_rows><ecc_mode><current_ecc>N/A</current_ecc></ecc_mode><temperature>"
            "<gpu_temp>Unknown Error</gpu_temp></temperature><fabric><state>N/A</state></fabric>"
            "<vbios_version>[GPU is lost]</vbios_version><pci><replay_counter>-</replay_counter></pci>"
        )
    ).cards[0]
    assert (card.remap_pending, card.ecc, card.temperature, card.fabric, card.vbios, card.pcie_replays) == (None,) * 6


def test_a_card_of_ampere_under_driver_535() -> None:
    card = reader.smi(
        log(
            "<ecc_errors><volatile><sram_correctable>1</sram_correctable><sram_uncorrectable>2</sram_uncorrectable>"
            "</volatile></ecc_errors><temperature><gpu_temp>27 C</gpu_temp><gpu_temp_tlimit>N/A</gpu_temp_tlimit>"
            "<gpu_temp_slow_threshold>89 C</gpu_temp_slow_threshold></temperature><clocks_event_reasons>"
            "<clocks_event_reason_hw_slowdown>Active</clocks_event_reason_hw_slowdown></clocks_event_reasons>"
        )
    ).cards[0]
    assert (card.ecc_volatile.sram_uncorrected, card.margin, card.slowed_by) == (2, 62.0, ["hw_slowdown"])


def test_a_card_of_volta_under_driver_470() -> None:
    card = reader.smi(
        log(
            "<ecc_errors><volatile><single_bit><device_memory>0</device_memory><total>7</total></single_bit>"
            "<double_bit><total>1</total></double_bit></volatile></ecc_errors><power_readings>"
            "<power_draw>42.1 W</power_draw><power_limit>300.00 W</power_limit>"
            "<enforced_power_limit>250.00 W</enforced_power_limit></power_readings><retired_pages>"
            "<multiple_single_bit_retirement><retired_count>2</retired_count></multiple_single_bit_retirement>"
            "<double_bit_retirement><retired_count>1</retired_count></double_bit_retirement>"
            "<pending_retirement>Yes</pending_retirement></retired_pages><clocks_throttle_reasons>"
            "<clocks_throttle_reason_gpu_idle>Not Active</clocks_throttle_reason_gpu_idle></clocks_throttle_reasons>"
        )
    ).cards[0]
    assert card.ecc_volatile == EccCounts(dram_corrected=7, dram_uncorrected=1)
    assert (card.power_limit, card.retired_pages, card.retirement_pending, card.slowed_by) == (250.0, 3, True, [])


def test_a_card_under_driver_575() -> None:
    card = reader.smi(
        log(
            "<gpu_reset_status><reset_required>Requested functionality has been deprecated</reset_required>"
            "</gpu_reset_status><gpu_recovery_action>Drain P2P</gpu_recovery_action><clocks_event_reasons_counters>"
            "<clocks_event_reasons_counters_hw_therm_slowdown>2500000 us"
            "</clocks_event_reasons_counters_hw_therm_slowdown>"
            "</clocks_event_reasons_counters><gpu_power_readings><average_power_draw>11.15 W</average_power_draw>"
            "</gpu_power_readings><fabric><state>Completed</state><status>Success</status><cliqueId>32766</cliqueId>"
            "<health><bandwidth>Degraded</bandwidth><route_unhealthy>True</route_unhealthy></health></fabric>"
            "<processes><process_info><pid>1890</pid><type>C</type>"
            "<process_name>/usr/bin/python3 train.py</process_name>"
            "<used_memory>23 MiB</used_memory></process_info></processes>"
        )
    ).cards[0]
    assert (card.recovery, card.slowed_for, card.power) == ("Drain P2P", {"hw_thermal_slowdown": 2.5}, 11.15)
    assert card.fabric is not None
    assert (card.fabric.clique, card.fabric.trouble) == (32766, ["bandwidth: Degraded", "route_unhealthy"])
    assert card.processes == [NvidiaProcess(1890, "python3", 23 << 20)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cut short"),
        ("Unable to determine the device handle for GPU 0000:19:00.0: GPU is lost.\n", "cut short"),
        (log("", count=2), "2 GPUs are attached, 1 are listed"),
        (log("").replace("<gpu id", "<gpu></gpu><gpu id").replace(">1</att", ">2</att"), "no PCI address"),
        (log("").replace("</gpu>", '</gpu><gpu id="00000000:01:00.0"></gpu>').replace(">1</att", ">2</att"), "twice"),
        (log("<a>"), "no XML"),
        (log("").replace("535.54.03", "N/A"), "no driver_version"),
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + log("&a;"), "entities"),
    ],
)
def test_what_is_no_log_is_unreadable(text: str, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        reader.smi(text)


def test_a_warning_of_a_corrupt_inforom_follows_the_log() -> None:
    warning = "WARNING: infoROM is corrupted at gpu 0000:01:00.0\n"
    assert reader.smi(log("") + warning).cards[0].inforom_corrupt is True
    assert reader.smi(log("") + "WARNING: something else at gpu 0000:01:00.0\n").cards[0].inforom_corrupt is None


GPU = "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-513536b6-7d19-9063-b049-1e69664bb298)\n"
UUID = "GPU-513536b6-7d19-9063-b049-1e69664bb298"


def test_links_up_down_and_absent() -> None:
    found = reader.nvlink_status(GPU + "\t Link 0: 25 GB/s\n         Link 1: <inactive>\n")
    assert found == {UUID: [NvLink(0, True, 25e9), NvLink(1, False)]}
    assert reader.nvlink_status(GPU + "NVML: Unable to retrieve NVLink information as all links are inActive\n") == {
        UUID: []
    }
    newer = GPU + "\t NVML: Unable to retrieve Nvlink information: Not Supported\n"
    assert (reader.nvlink_status(newer), reader.nvlink_errors(newer)) == ({UUID: []}, {UUID: {}})
    assert reader.nvlink_errors(GPU + "\t Link 0: Replay Errors: 3\n\t Link 0: CRC Errors: N/A\n\n") == {
        UUID: {0: {"Replay": 3}}
    }


@pytest.mark.parametrize("text", ["Link 0: 25 GB/s\n", GPU + "Link 0: fast\n", GPU + GPU, GPU.replace("(UUID", "")])
def test_what_is_no_list_of_links_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        reader.nvlink_status(text)
    with pytest.raises(Unreadable):
        reader.nvlink_errors(text)


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVIDIA UNIX x86_64 Kernel Module  550.127.08  Tue Oct  8", ("550.127.08", False)),
        ("NVIDIA UNIX Open Kernel Module for aarch64  570.124.06  Release Build  (dvs-builder)", ("570.124.06", True)),
        ("NVIDIA UNIX x86_64 Kernel Module  580.95  Wed", ("580.95", False)),
    ],
)
def test_versions_of_the_module(line: str, version: tuple[str, bool]) -> None:
    assert reader.module_version(f"NVRM version: {line}\nGCC version:  gcc\n") == version


def test_the_health_that_dcgm_saw() -> None:
    assert reader.dcgm_health(TEXTS["dcgm_health"][1]) == ("Healthy", [])
    rows = (
        ("Overall Health", "Warning"),
        ("GPU", ""),
        ("-> 0", "Warning"),
        ("   -> Errors", ""),
        ("      -> PCIe", "replay rate of 12 per minute"),
    )
    line = f"+{'-' * 18}+{'-' * 34}+\n"
    text = line + "".join(f"| {name:16} | {value:32} |\n" for name, value in rows) + line
    assert reader.dcgm_health(text) == ("Warning", ["0 Warning", "PCIe replay rate of 12 per minute"])


junk = st.text(max_size=60) | st.binary(max_size=60).map(lambda b: b.decode("utf-8", "backslashreplace"))


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(TEXTS)), at=st.floats(0, 1), to=st.floats(0, 1), put=junk, crlf=st.booleans())
def test_a_text_with_anything_in_it_gives_values_or_is_unreadable(
    name: str, at: float, to: float, put: str, crlf: bool
) -> None:
    read, good = TEXTS[name]
    begin, end = sorted((int(at * len(good)), int(to * len(good))))
    text = good[:begin] + put + good[end:]
    try:
        read(text.replace("\n", "\r\n") if crlf else text)
    except Unreadable:
        pass


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(TEXTS)), text=st.text(max_size=300))
def test_any_text_gives_values_or_is_unreadable(name: str, text: str) -> None:
    try:
        TEXTS[name][0](text)
    except Unreadable:
        pass


@settings(max_examples=60, deadline=None)
@given(keep=st.floats(0, 0.999))
def test_a_log_cut_short_is_unreadable(keep: float) -> None:
    good = TEXTS["smi"][1].rstrip()
    with pytest.raises(Unreadable):
        reader.smi(good[: int(len(good) * keep)])


@pytest.mark.parametrize("name", TEXTS)
def test_windows_line_ends_change_nothing(name: str) -> None:
    read, good = TEXTS[name]
    assert read(good.replace("\n", "\r\n")) == read(good)
