"""A person's own scripts, end to end: alone, under mpirun, started by us; at their limit, interrupted, judged again."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.mpi.test_launch import MPIRUN, TOOL, Lab, lab, published, until

pytestmark = pytest.mark.mpi
__all__ = ["lab"]

NODE = os.uname().nodename
COUNTING = '#!/bin/sh\necho "hello from $CWAI_BENCH_NODE"\necho one >> {ran}\nexit 1\n'
ENDLESS = "#!/bin/bash\necho begun\necho $$ >> {pids}\nsetsid sleep 600 & echo $! >> {pids}\nwait\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of scripts and a criteria file that is nowhere that a rank would look by itself."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "count.sh").write_text(COUNTING.format(ran=folder / "ran"))
    (folder / "endless.sh").write_text(ENDLESS.format(pids=folder / "pids"))
    return folder


def criteria(site: Path, table: str) -> list[str]:
    (site / "my.toml").write_text(f"[script]\n{table}\n")
    return ["--items", "script.*", "--criteria", str(site / "my.toml")]


def verdicts(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [v for v in report["verdicts"] if v["check"].startswith("script.")]


def gone(site: Path) -> None:
    pids = [int(word) for word in (site / "pids").read_text().split()]
    assert len(pids) == 2
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 8, "the script and what it started end")


def begun(site: Path) -> bool:
    return (site / "pids").exists() and len((site / "pids").read_text().split()) == 2


def test_alone_and_judged_again_from_history(lab: Lab, site: Path) -> None:
    chosen = criteria(site, 'a = { file = "count.sh", title = "Count" }')
    done = lab.run(*TOOL, "check", *chosen, "--store", str(lab.store))
    assert done.returncode == 1, done.stderr
    assert "Count" in done.stdout
    assert f"hello from {NODE}" in done.stdout
    assert "Count (your script, 1 node(s), 600 s at most)" in done.stderr
    report = lab.report()
    (found,) = verdicts(report)
    assert (found["nodes"], found["status"], found["observed"]) == ([NODE], "FAIL", f"hello from {NODE}")
    assert [(e["source"], e["text"]) for e in found["evidence"]] == [("script:script.a", f"hello from {NODE}")]
    assert report["gate"]["leave_out"] == [NODE]

    # Another mapping, another day: the file is gone, nothing is run, the answer is the same.
    (site / "count.sh").unlink()
    chosen = criteria(site, 'a = { file = "count.sh", exit = { warn = [1] } }')
    again = lab.run(*TOOL, "check", "--from", "last", *chosen, "--store", str(lab.store), "--json")
    assert again.returncode == 0, again.stderr
    assert [v["status"] for v in verdicts(json.loads(again.stdout))] == ["WARN"]
    as_it_was = lab.run(*TOOL, "check", "--from", "last", "--store", str(lab.store), "--json")
    assert as_it_was.returncode == 1
    assert [v["status"] for v in verdicts(json.loads(as_it_was.stdout))] == ["FAIL"]
    told = lab.run(*TOOL, "report", "last", "--store", str(lab.store), "--json")
    assert [v["status"] for v in verdicts(json.loads(told.stdout))] == ["FAIL"]
    assert (site / "ran").read_text() == "one\n"


def test_under_mpirun_once_for_each_node(lab: Lab, site: Path) -> None:
    chosen = criteria(site, 'a = { file = "count.sh", exit = { pass = [1] } }')
    done = lab.run(MPIRUN, "-np", "3", "--oversubscribe", *TOOL, "check", *chosen, "--store", str(lab.store))
    assert done.returncode == 0, done.stderr
    assert [(v["nodes"], v["status"]) for v in verdicts(lab.report())] == [([NODE], "PASS")]
    assert (site / "ran").read_text() == "one\n"


def test_the_files_are_read_where_the_command_was_typed_and_nowhere_else(lab: Lab, site: Path, tmp_path: Path) -> None:
    """The ranks stand in another folder, where the relative path names nothing."""
    chosen = criteria(site, 'a = { file = "count.sh", exit = { pass = [1] } }')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    here = Path.cwd()
    os.chdir(site)
    try:
        done = lab.run(
            *TOOL,
            *["check", "-np", "2", "--mpirun-option=--wdir", f"--mpirun-option={elsewhere}"],
            *[*chosen[:-1], "my.toml", "--store", str(lab.store)],
        )
    finally:
        os.chdir(here)
    assert done.returncode == 0, done.stderr
    assert [v["status"] for v in verdicts(lab.report())] == ["PASS"]


def test_a_slow_script_stalls_nobody(lab: Lab, site: Path) -> None:
    """Longer than reading a node may take: what waits for it waits for as long as the script may."""
    (site / "slow.sh").write_text("#!/bin/sh\nsleep 33\necho slept\n")
    chosen = criteria(site, 'a = { file = "slow.sh", limit = "90 s" }')
    done = lab.run(*TOOL, "check", "-np", "2", *chosen, "--store", str(lab.store))
    assert done.returncode == 0, done.stderr
    report = lab.report()
    assert report["status"] == "complete"
    assert [(v["status"], v["observed"]) for v in verdicts(report)] == [("PASS", "slept")]
    assert not [e for e in report["events"] if e["state"] in ("stalled", "overdue", "died")]


def test_at_its_limit_it_is_unknown_and_the_rest_goes_on(lab: Lab, site: Path) -> None:
    chosen = criteria(site, 'a = { file = "endless.sh", limit = "2 s" }\nb.file = "count.sh"')
    done = lab.run(*TOOL, "check", "-np", "2", *chosen, "--store", str(lab.store))
    assert done.returncode == 1, done.stderr
    found = {v["check"]: v for v in verdicts(lab.report())}
    assert (found["script.a"]["status"], found["script.a"]["reason_code"]) == ("UNKNOWN", "timeout")
    assert "begun" in found["script.a"]["evidence"][0]["text"]
    assert found["script.b"]["status"] == "FAIL"
    gone(site)


@pytest.mark.parametrize("ranks", [[], ["-np", "2"]], ids=["alone", "over mpirun"])
def test_an_interrupt_ends_it_and_what_was_known_is_kept(lab: Lab, site: Path, ranks: list[str]) -> None:
    chosen = criteria(site, 'a.file = "count.sh"\nb.file = "endless.sh"')
    process = lab.start(*TOOL, "check", *ranks, *chosen, "--store", str(lab.store))
    until(lambda: begun(site), 30, "the script begins")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    gone(site)
    report = lab.report()
    assert report["gate"]["exit_code"] == 130
    assert {v["check"]: v["status"] for v in verdicts(report)} == {"script.a": "FAIL", "script.b": "UNKNOWN"}


def test_a_rank_that_is_killed_takes_its_script_with_it(lab: Lab, site: Path) -> None:
    chosen = criteria(site, 'a.file = "endless.sh"')
    process = lab.start(*TOOL, "check", *chosen, "--store", str(lab.store))
    until(lambda: begun(site), 30, "the script begins")
    process.kill()
    gone(site)
    until(lambda: published(lab), 10, "a report after a death")
    died = [e for e in lab.report()["events"] if e["state"] == "died"]
    assert [e["item"] for e in died] == ["script.a"]


def test_other_nodes_are_not_troubled(lab: Lab, site: Path) -> None:
    chosen = criteria(site, 'a = { file = "count.sh", nodes = "elsewhere[1-3]" }')
    done = lab.run(*TOOL, "check", *chosen, "--store", str(lab.store), "--json")
    report = json.loads(done.stdout)
    assert verdicts(report) == []
    assert [x["what"] for x in report["plan"]["left_out"]] == ["script.a"]
    assert not (site / "ran").exists()


@pytest.mark.parametrize("ranks", ["alone", "front", "mpirun"])
def test_a_script_that_is_not_there_is_refused_once_before_anything_runs(lab: Lab, site: Path, ranks: str) -> None:
    chosen = criteria(site, 'a.file = "count.sh"\nb.file = "nowhere.sh"')
    start = [MPIRUN, "-np", "2", *TOOL] if ranks == "mpirun" else TOOL
    more = ["-np", "2"] if ranks == "front" else []
    done = lab.run(*start, "check", *more, *chosen, "--store", str(lab.store))
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("nowhere.sh: it cannot be read") == 1, done.stderr
    assert "→ correct file" in done.stderr
    assert not (site / "ran").exists()


def test_a_recorded_node_runs_no_script(lab: Lab, site: Path, tmp_path: Path) -> None:
    lab.run(*TOOL, "record", str(tmp_path / "node"))
    chosen = criteria(site, 'a.file = "count.sh"')
    done = lab.run(*TOOL, "check", "--root", str(tmp_path / "node"), *chosen, "--store", str(lab.store), "--json")
    left_out = json.loads(done.stdout)["plan"]["left_out"]
    assert [(x["what"], x["reason_code"]) for x in left_out] == [("script.a", "absent")]
    assert not (site / "ran").exists()


def test_plan_and_list_show_them(lab: Lab, site: Path) -> None:
    table = 'a = { file = "count.sh", title = "Count", title_zh = "计数", expected = "5 s", limit = "1 min" }'
    chosen = criteria(site, table)
    plan = lab.run(*TOOL, "check", *chosen, "--dry-run", "--store", str(lab.store))
    assert plan.returncode == 0, plan.stderr
    line = next(line for line in plan.stdout.splitlines() if "script.a" in line)
    assert "5.0 s" in line
    assert "at most 60 s" in line
    assert not lab.store.exists()
    listed = lab.run(*TOOL, "check", "--list", "-v", *chosen, "--lang", "zh")
    assert "[自定义脚本] 计数" in listed.stdout
    assert "count.sh" in listed.stdout
    assert "退出码 0 PASS" in listed.stdout


def test_the_gate_stays_shut_on_a_script_that_fails(lab: Lab, site: Path, tmp_path: Path) -> None:
    chosen = criteria(site, 'a.file = "count.sh"')
    started = time.monotonic()
    done = lab.run(*TOOL, "gate", *chosen, "--store", str(lab.store), "--", "touch", str(tmp_path / "started"))
    assert done.returncode == 1, done.stderr
    assert time.monotonic() - started < 60
    assert not (tmp_path / "started").exists()


def test_a_vendors_test_is_run_once_when_asked_for_and_ends_with_the_run(lab: Lab, site: Path) -> None:
    """In a stand-in for dcgmi; there is no card here, so that what it says is not judged."""
    (site / "dcgmi").write_text(ENDLESS.format(pids=site / "pids"))
    (site / "dcgmi").chmod(0o755)
    lab.env["PATH"] = f"{site}:{lab.env['PATH']}"
    chosen = ["--items", "memory.swap", "--disruptive", "nvidia.diag.long", "--store", str(lab.store)]
    process = lab.start(*TOOL, "check", "-np", "2", "--mpirun-option=-x", "--mpirun-option=PATH", *chosen)
    until(lambda: begun(site), 30, "the test begins")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (site / "pids").read_text().split()), 20, "it ends")
    assert lab.report()["plan"]["checks"] == ["memory.swap", "nvidia.diag.long"]
