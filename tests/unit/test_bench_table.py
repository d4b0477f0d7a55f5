"""The bench table: what it shows, what it says of a missing peer, and how IMB's output is read."""

from __future__ import annotations

from tests.bench.mpi import parse_imb
from tests.bench.pairs import Spread
from tests.bench.table import Row, as_markdown, as_text, missing

IMB_OUTPUT = """\
#----------------------------------------------------------------
# Benchmarking Allreduce
# #processes = 2
#----------------------------------------------------------------
       #bytes #repetitions  t_min[usec]  t_max[usec]  t_avg[usec]
            0         1000         0.03         0.03         0.03
            8         1000         0.20         0.25         0.22

#----------------------------------------------------------------
# Benchmarking Alltoall
# #processes = 2
#----------------------------------------------------------------
       #bytes #repetitions  t_min[usec]  t_max[usec]  t_avg[usec]
            8         1000         0.17         0.18         0.18

#-----------------------------------------------------------------------------
# Benchmarking Sendrecv
# #processes = 2
#-----------------------------------------------------------------------------
       #bytes #repetitions  t_min[usec]  t_max[usec]  t_avg[usec]   Mbytes/sec
           64         1000         0.15         0.15         0.15       879.74
#----------------------------------------------------------------
# Benchmarking Barrier
# #processes = 2
#----------------------------------------------------------------
 #repetitions  t_min[usec]  t_max[usec]  t_avg[usec]
         1000         0.14         0.14         0.14
"""


def row(what: str, reached: bool | None, *, detail: bool = False) -> Row:
    spread = Spread(1.0, 0.9, 1.1, 15)
    return Row(what, "1 us", "≤ 1.05", reached, "peer 1 us", spread, spread, detail=detail)


def test_imb_is_read_by_operation_and_size_as_we_count_it() -> None:
    assert parse_imb(IMB_OUTPUT) == {
        ("all_reduce", 0): 0.03,
        ("all_reduce", 8): 0.22,
        ("alltoall", 16): 0.18,
        ("sendrecv", 64): 0.15,
    }


def test_a_figure_that_was_missed_says_so() -> None:
    good, bad = as_text([row("one", True), row("two", False)]).splitlines()[1:]
    assert good.endswith("reached")
    assert bad.endswith("MISSED")
    assert "1.000 [0.900–1.100]" in good


def test_a_missing_peer_is_named_with_its_package() -> None:
    line = as_text([missing("TCP bandwidth", "apt-get install iperf3", "≥ 0.95")]).splitlines()[1]
    assert "peer missing: apt-get install iperf3" in line
    assert "reached" not in line


def test_details_stand_on_the_page_only() -> None:
    rows = [row("whole", True), row("part", True, detail=True)]
    assert "part" not in as_text(rows)
    whole, details = as_markdown(rows).split("## In detail")
    assert "part" not in whole
    assert "whole" not in details
    assert "| part |" in details
