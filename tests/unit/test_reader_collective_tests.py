"""What hccl_test and nccl-tests print: figures in SI units, and above all what is wrong."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench.readers import Unreadable
from cwai_bench.readers.hccl_test import hccl_test
from cwai_bench.readers.nccl_tests import Device, nccl_tests

TEXTS = Path(__file__).resolve().parent.parent / "fixtures" / "collective"
ALL_REDUCE, WRONG, REFUSED, TABLE, OLD, ITERATIONS = (
    (TEXTS / f"{name}.txt").read_text()
    for name in ("hccl_all_reduce", "hccl_wrong", "hccl_refused", "nccl_all_reduce", "nccl_old", "nccl_iterations")
)
WELL = ALL_REDUCE.replace("NULL", "success")


# --------------------------------------------------------------------------------------------------------- hccl_test


def test_a_run_that_is_well() -> None:
    told = hccl_test(WELL)
    assert [row.size for row in told.rows] == [1 << 30, 2 << 30, 4 << 30, 8 << 30]
    assert told.rows[0].seconds == pytest.approx(14913.08e-6)
    assert told.rows[0].bandwidth == pytest.approx(72e9)
    assert told.rows[0].bandwidth == pytest.approx(told.rows[0].size / told.rows[0].seconds, rel=1e-3)
    assert (told.smallest, told.largest, told.iterations, told.warmup) == (1 << 30, 8 << 30, 20, 5)
    assert told.wrong is False
    assert told.wrong_ranks == []
    assert told.failures == ()


def test_what_was_not_compared_is_not_right() -> None:
    assert [row.correct for row in hccl_test(ALL_REDUCE).rows] == [True, True, None, True]
    assert hccl_test(ALL_REDUCE).wrong is None


def test_the_row_says_success_and_another_rank_does_not() -> None:
    """The root looks at its own buffer alone."""
    told = hccl_test(WRONG)
    assert told.wrong is True
    assert told.wrong_ranks == [5]
    assert [(row.correct, row.wrong_ranks) for row in told.rows] == [(False, (5,)), (True, ())]
    assert told.failures == ("check buf[511] error, exp:16.000000, act:14.000000", "total err is 1537")


def test_the_root_itself_is_wrong() -> None:
    told = hccl_test(WELL.replace("success", "failed", 1))
    assert told.wrong is True
    assert told.rows[0].correct is False


def test_the_newer_heading_and_windows_line_ends() -> None:
    assert hccl_test(WELL.replace("aveg_time(us):", "avg_time(us): ").replace("\n", "\r\n")) == hccl_test(WELL)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "it says: nothing that is known"),
        (REFUSED, "it says: hccl interface return err .*retcode: 9"),
        (WELL.replace("data_size", "data_sizes"), "expected a table"),
        (WELL + WELL, "told twice"),
        (WRONG.replace("failed, 8192 ", "failed, 4096 "), "wrong data of 4096 bytes"),
    ],
)
def test_what_is_no_report_of_hccl_test_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(Unreadable, match=complaint):
        hccl_test(text)


def test_a_run_that_broke_off_tells_its_rows_and_why() -> None:
    told = hccl_test(WELL + "hccl_op_base execute failed, Detailed logs are stored at the default path: /root/log/\n")
    assert len(told.rows) == 4
    assert "execute failed" in told.failures[0]


# -------------------------------------------------------------------------------------------------------- nccl-tests


def test_the_table_of_nccl_tests() -> None:
    told = nccl_tests(TABLE)
    assert (told.operation, told.version) == ("all_reduce", "2.19.6")
    assert told.devices[1] == Device(1, "gpu01", 1, "0000:2a:00", "NVIDIA H100 80GB HBM3")
    assert [row.size for row in told.rows] == [1 << 20, 2 << 20, 4 << 20]
    first = told.rows[0]
    assert (first.elements, first.dtype, first.reduction, first.root) == (262144, "float", "sum", -1)
    assert first.out_of_place is not None
    assert first.out_of_place[:3] == pytest.approx((38.21e-6, 27.44e9, 27.44e9))
    assert first.out_of_place.wrong == 0
    assert [row.in_place.wrong for row in told.rows if row.in_place] == [0, 3, None]
    assert told.wrong == 3
    assert told.mean_bus == pytest.approx(48.8767e9)
    assert told.unread == 0


def test_the_old_column_error_is_no_count() -> None:
    told = nccl_tests(OLD)
    assert told.operation == ""
    assert [row.out_of_place.wrong for row in told.rows if row.out_of_place] == [None, None]
    assert (told.wrong, told.mean_bus) == (None, None), "it did not come to its end"
    assert told.devices[0].card == "A100-SXM4-40GB"


def test_columns_of_iterations_a_timestamp_and_a_count_in_short() -> None:
    told = nccl_tests(ITERATIONS)
    (row,) = told.rows
    assert told.operation == "sendrecv"
    assert row.out_of_place is not None
    assert row.in_place is not None
    assert (row.out_of_place.wrong, row.in_place.wrong) == (1_000_000, 0)
    assert row.in_place.bus == pytest.approx(27.67e9)


def test_placements_in_the_other_order_and_one_alone() -> None:
    other = "in-place                       out-of-place"
    turned = TABLE.replace("out-of-place                       in-place", other)
    assert turned != TABLE
    well, told = nccl_tests(TABLE).rows[0], nccl_tests(turned).rows[0]
    assert (told.in_place, told.out_of_place) == (well.out_of_place, well.in_place)
    alone = nccl_tests(TABLE.replace("   37.90   27.67   27.67       0", "")).rows[0]
    assert alone.out_of_place is None
    assert alone.in_place == well.out_of_place


def test_a_row_that_something_was_printed_into_is_left_out_and_counted() -> None:
    told = nccl_tests(TABLE.replace("   38.21", "gpu01:4101:4101 [0] NCCL INFO x\n   38.21"))
    assert len(told.rows) == 2
    assert told.unread == 2, "both halves"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected a table"),
        (TABLE + TABLE, "built without MPI"),
        (TABLE.replace("Rank  1", "Rank  0"), "built without MPI"),
        (OLD.replace("Rank", "Runs") * 2, "several tables"),
        (TABLE.replace("busbw  #wrong \n", "busbw  furlong \n"), "other columns"),
        (TABLE.split("     1048576")[0], "its table is empty"),
        (TABLE.replace("   algbw   busbw  #wrong \n", "   busbw  #wrong \n"), "not the same columns"),
    ],
)
def test_what_is_no_table_of_nccl_tests_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(Unreadable, match=complaint):
        nccl_tests(text)


@given(st.text(), st.integers(0, 3000))
def test_junk_is_unreadable_and_nothing_worse(junk: str, at: int) -> None:
    for read, whole in ((hccl_test, WRONG), (nccl_tests, TABLE)):
        for text in (junk, whole[:at] + junk + whole[at:]):
            with contextlib.suppress(Unreadable):
                read(text)
