"""The report of hccn_tool -roce_test: figures as they are told, and nothing of a report that is not whole."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench.readers import Unreadable
from cwai_bench.readers.roce_test import report

FOLDER = Path(__file__).resolve().parent.parent / "fixtures" / "roce_test"
SEND, WRITE, LATENCY = ((FOLDER / f"{n}.txt").read_text() for n in ("send_bw", "write_bw_duration", "write_lat"))


def test_bandwidth_in_bytes_per_second() -> None:
    """23361.25 MB/sec of 1 MiB: 0.023361 million messages a second, so MB is MiB."""
    told = report(SEND)
    assert (told.verb, told.two_way, told.mtu, told.gid) == ("send", False, 4096, "::ffff:192.0.2.11")
    (row,) = told.bandwidth
    assert (row.size, row.iterations) == (1 << 20, 5000)
    assert row.mean == pytest.approx(23361.25 * 2**20)
    assert row.peak == pytest.approx(23364.40 * 2**20)
    assert told.latency == []


def test_a_run_of_a_given_duration_tells_no_peak() -> None:
    (row,) = report(WRITE).bandwidth
    assert (row.size, row.peak) == (65536, None)
    assert row.mean == pytest.approx(23302.26 * 2**20)


def test_the_receiver_of_a_send_tells_a_peak_of_nothing() -> None:
    (row,) = report(SEND.replace("23364.40", "0.00    ")).bandwidth
    assert row.peak is None


def test_decimal_units_are_known_by_the_message_rate() -> None:
    (decimal,) = report(SEND.replace("0.023361", "0.022279")).bandwidth
    assert decimal.mean == pytest.approx(23361.25e6)
    (bits,) = report(SEND.replace("[MB/sec]", "[Gb/sec]").replace("23361.25", "195.97  ")).bandwidth
    assert bits.mean == pytest.approx(195.97e9 / 8)


def test_latency_in_seconds_as_it_is_told() -> None:
    told = report(LATENCY)
    assert (told.verb, told.bandwidth) == ("write", [])
    (row,) = told.latency
    assert (row.size, row.iterations) == (2, 1000)
    assert row.median == pytest.approx(4.62e-6)
    told_in_microseconds = [4.61, 13.10, 4.65, 0.28, 5.42, 13.10]
    assert [*row[3:]] == [pytest.approx(us / 1e6) for us in told_in_microseconds]


def test_several_sizes_windows_lines_and_warnings_between_rows() -> None:
    row = next(line for line in SEND.split("\n") if line.startswith(" 1048576"))
    more = f" Conflicting CPU frequency values detected: 2400.0 != 1873.4. CPU Frequency is not max.\n{row}\n{row}"
    assert len(report(SEND.replace(row, more).replace("\n", "\r\n")).bandwidth) == 2
    assert report(SEND.replace("Send BW Test", "Send Bidirectional BW Test")).two_way


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "it says: nothing"),
        ("Roce perftest is doing, please try later.\n", "it says: Roce perftest is doing"),
        ("hccn_tool is busy, please try again.\n", "is busy"),
        (
            "Dsmi get perftest status end. (status=3)\nroce_report:\n Couldn't connect to 192.0.2.12:18515\n",
            "Couldn't connect",
        ),
        (SEND.replace("0.023361", "0.900000"), "contradict"),
        (SEND.replace("BW average[MB/sec]", "BW average[furlongs]"), "other columns"),
        (SEND.replace("23361.25", "-nan    "), "no row"),
        (SEND.replace(" 1048576      5000 ", " hm           "), "its table is empty"),
        (LATENCY.replace("t_typical[usec]", "MsgRate[Mpps]"), "no typical time"),
    ],
)
def test_what_is_no_report_is_refused_with_what_it_says(text: str, complaint: str) -> None:
    with pytest.raises(Unreadable, match=complaint):
        report(text)


@pytest.mark.parametrize("whole", [SEND, WRITE, LATENCY])
def test_a_report_that_is_cut_short_gives_no_figures(whole: str) -> None:
    last = whole.rstrip("\n").rpartition("\n")[0]
    for end in range(0, len(last), 7):
        with pytest.raises(Unreadable):
            report(whole[:end])


@given(st.text(), st.integers(0, len(SEND)))
def test_junk_is_unreadable_and_nothing_worse(junk: str, at: int) -> None:
    with contextlib.suppress(Unreadable):
        report(SEND[:at] + junk + SEND[at:])
    with contextlib.suppress(Unreadable):
        report(junk)
