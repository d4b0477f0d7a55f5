"""The best value of a setting, and when none is called so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cwai_bench.cli.sweep import Tried, _without_sweep, decide, order_of_round, settings_of
from cwai_bench.errors import UsageError


def tried(name: str, *bandwidth: float) -> Tried:
    return Tried((("V", name),), list(bandwidth), [1e-6] * len(bandwidth))


def test_several_variables_are_tried_in_all_combinations() -> None:
    assert settings_of(["A=1,2", "B=x"]) == [(("A", "1"), ("B", "x")), (("A", "2"), ("B", "x"))]
    assert settings_of(["A=1,1,2"]) == [(("A", "1"),), (("A", "2"),)]


@pytest.mark.parametrize("written", [["A"], ["=1,2"], ["A="], ["A=,"], ["1A=1,2"], ["A=1,2", "A=3"], ["A=1"]])
def test_what_is_no_sweep_is_refused(written: list[str]) -> None:
    with pytest.raises(UsageError, match="--sweep"):
        settings_of(written)


def test_every_round_begins_with_another_setting() -> None:
    orders = [order_of_round(3, number) for number in range(3)]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0][0] != orders[2][0]


def test_what_was_ahead_in_every_round_is_best() -> None:
    decision = decide([tried("1", 10, 11, 10), tried("2", 20, 19, 21), tried("4", 18, 18, 18)])
    assert decision.best is not None
    assert decision.best.setting == (("V", "2"),)
    assert decision.next_best is not None
    assert decision.next_best.setting == (("V", "4"),)
    assert (decision.wins, decision.rounds) == (3, 3)


def test_what_was_not_always_ahead_decides_nothing() -> None:
    decision = decide([tried("1", 10, 11, 30), tried("2", 20, 19, 21)])
    assert decision.best is None
    assert decision.wins == 2


def test_a_setting_that_failed_once_is_out_of_it() -> None:
    lame = tried("4", 99, 99)
    assert decide([tried("1", 10, 11, 12), tried("2", 20, 19, 21), lame]).best is not None
    assert decide([tried("1", 10, 11, 12), lame]).best is None, "one alone is best of nothing"
    assert decide([tried("1", 10), tried("2", 20)]).best is None, "once is no proof"
    assert decide([]).best is None


def test_a_run_gets_the_command_line_without_the_sweep() -> None:
    words = ["-np", "2", "--sweep", "A=1,2", "--rounds=2", "-e", "4K", "--json", "--out", "x", "--format=html"]
    assert _without_sweep(words) == ["-np", "2", "-e", "4K"]


@pytest.mark.mpi
def test_a_sweep_over_mpi_takes_each_value_into_fresh_processes(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cwai_bench", "collective", "-np", "2", "--operations", "all_reduce", "-n", "5"),
            *("-b", "64K", "-e", "64K", "--sweep", "OMPI_MCA_mpi_yield_when_idle=0,1", "--rounds", "2"),
            *("--json", "--store", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode in (0, 3), done.stderr
    told = json.loads(done.stdout)
    assert [t["setting"] for t in told["tried"]] == [{"OMPI_MCA_mpi_yield_when_idle": v} for v in "01"]
    assert told["rounds"] == 2
    for t in told["tried"]:
        assert t["failed"] == []
        assert len(t["bus_bandwidth"]) == len(t["time"]) == 2
        assert min(*t["bus_bandwidth"], *t["time"]) > 0
    assert (told["best"] is not None) == (done.returncode == 0)
    assert len(list(tmp_path.glob("*"))) >= 4, "each run is kept"
