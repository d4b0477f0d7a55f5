"""What the programs of Huawei's hccl_test (``all_reduce_test``, ``all_gather_test`` …) print.

Their exit code is 0 whether the data was right or not: what is wrong stands in the text alone. Format:
hicann/oam-tools, src/hccl_test/common/src: hccl_opbase_rootinfo_base.cc (``print_execution_time``), hccl_test_common.cc
and .h, hccl_check_common.cc, hccl_check_buf_init.cc. The column of the time is ``aveg_time`` in the source and
``avg_time`` in newer documents.

The root prints one row for each size, with its own time and whether its own buffer is right; every other rank whose
buffer is wrong prints a line of its own. ``NULL``: nothing was compared, by choice or since the sum would overflow.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cwai_bench.readers import Unreadable


class Row(NamedTuple):
    """One size in bytes. ``seconds``: mean of the root; ``bandwidth``: algorithm bandwidth, bytes per second, as it is
    printed. ``correct``: None where nothing was compared. ``wrong_ranks``: those that said so of themselves."""

    size: int
    seconds: float
    bandwidth: float
    correct: bool | None
    wrong_ranks: tuple[int, ...] = ()


class Report(NamedTuple):
    """``failures``: what else the program complained of, each text once. None: not told."""

    rows: list[Row]
    smallest: int | None
    largest: int | None
    iterations: int | None
    warmup: int | None
    failures: tuple[str, ...]

    @property
    def wrong(self) -> bool | None:
        """Whether any data was wrong; None where nothing was compared, of one size or more, and nothing was found."""
        if any(row.correct is False for row in self.rows):
            return True
        return None if any(row.correct is None for row in self.rows) else False

    @property
    def wrong_ranks(self) -> list[int]:
        return sorted({rank for row in self.rows for rank in row.wrong_ranks})


_LINES, _LENGTH = 200_000, 1000
_FAILURES, _SAID = 32, 200
_HEAD = re.compile(
    r"data_size\(Bytes\):? *\| *av(?:e)?g_time\(us\):? *\| *alg_bandwidth\(GB/s\):? *\| *check_result:?", re.A
)
_CELLS = r"(\d{1,18}) *\| *(\d{1,15}\.\d{1,9}) *\| *(\d{1,15}\.\d{1,9}) *\| *"
_ROW = re.compile(_CELLS + r"(success|failed|NULL)", re.A)
_RANK = re.compile(r"local rank_id (\d{1,7}), check result failed, " + _CELLS + "failed", re.A)
_SETTINGS = re.compile(
    r"the minbytes is (\d{1,18}), maxbytes is (\d{1,18}), iters is (\d{1,9}), warmup_iters is (\d{1,9})", re.A
)
_FAILURE = re.compile(
    r"(?:hccl|acl) interface return err .*|This is an error in .*|.*\bexecute failed\b.*|Error: .*|.*\bis invalid\b.*"
    r"|Process \d+ (?:HcclGetRootInfo failed|received invalid data).*|\[[^\]]{1,80}\]\[\d+\] .*failed\..*"
    r"|.*\b(?:result )?buf\[\d+\] (?:error|is not right).*|.*check data from rank .* error.*|The data sent from rank.*"
    r"|total err is .*|memory allocation error.*|Alloc memory size is larger.*|setenv .* failed"
    r"|.*MPI_ABORT was invoked.*",
    re.A,
)
_CORRECT = {"success": True, "failed": False, "NULL": None}


def hccl_test(text: str) -> Report:
    """The report of one run. Raises Unreadable where it has no row, with what the program complained of instead."""
    rows: dict[int, Row] = {}
    wrong: dict[int, list[int]] = {}
    failures: dict[str, None] = {}
    smallest = largest = iterations = warmup = None
    headed = False
    for whole in text.replace("\r\n", "\n").split("\n", _LINES)[:_LINES]:
        line = whole[:_LENGTH].strip()
        if _HEAD.fullmatch(line):
            headed = True
        elif headed and (told := _ROW.fullmatch(line)) is not None:
            row = Row(int(told[1]), float(told[2]) / 1e6, float(told[3]) * 1e9, _CORRECT[told[4]])
            if row.size in rows:
                raise Unreadable(f"{row.size} bytes are told twice: expected one run")
            rows[row.size] = row
        elif (told := _RANK.fullmatch(line)) is not None:
            # The root says it of itself in both ways, and others may be heard before the heading.
            wrong.setdefault(int(told[2]), []).append(int(told[1]))
        elif (told := _SETTINGS.fullmatch(line)) is not None:
            smallest, largest, iterations, warmup = map(int, told.groups())
        elif len(failures) < _FAILURES and _FAILURE.fullmatch(line):
            failures[line[:_SAID]] = None
    if not rows:
        said = next(iter(failures), "nothing that is known")
        raise Unreadable(f"expected a table of data_size, aveg_time, alg_bandwidth, check_result; it says: {said}")
    if strange := sorted(set(wrong) - set(rows)):
        raise Unreadable(f"ranks tell of wrong data of {strange[0]} bytes, which the table does not have")
    return Report(
        [
            row._replace(correct=False, wrong_ranks=tuple(sorted(set(wrong[row.size])))) if row.size in wrong else row
            for row in rows.values()
        ],
        smallest,
        largest,
        iterations,
        warmup,
        tuple(failures),
    )
