"""``cwai-bench nccl`` from the command line: its document, its exit codes, and the lines that it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import Planted
from tests.unit.shared_objects import SharedObjects

CTCCL = "CTCCL version 0.2.0(nccl 2.19.4)+cuda12.2"


def run(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in an environment without anything of this machine's but what the program needs to run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NCCL_", "CTCCL_", "LD_"))}
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "cwai_bench", "nccl", "--store", str(tmp_path / "store"), *arguments],
        env={
            **kept,
            "HOME": str(home),
            "CWAI_BENCH_SPOOL": str(tmp_path / "spool"),
            "LC_ALL": "C.UTF-8",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert "Traceback" not in done.stderr
    told = json.loads(done.stdout)
    assert told["schema"] == 1
    assert isinstance(told, dict)
    return told


def verdicts(told: dict[str, Any]) -> dict[str, str]:
    return {v["check"]: v["status"] for v in told["report"]["verdicts"]}


@pytest.fixture
def built(tmp_path: Path) -> SharedObjects:
    return SharedObjects(tmp_path)


def test_a_drop_in_that_is_loaded_with_its_plugin_is_sensible(built: SharedObjects, tmp_path: Path) -> None:
    library = built.library("lib/libnccl.so.2", CTCCL, "NCCL_NET_PLUGIN", "ncclNetPlugin_v8")
    net = built.make("lib/libnccl-net-cwai.so", "int ncclNetPlugin_v8;")
    done = run(tmp_path, "--json", LD_PRELOAD=str(library), LD_LIBRARY_PATH=str(library.parent), NCCL_NET_PLUGIN="cwai")
    told = document(done)
    assert {"nccl.library": "PASS", "nccl.drop_in": "PASS", "nccl.plugins": "PASS"}.items() <= verdicts(told).items()
    assert done.returncode == 0
    assert {(use["how"], use["path"]) for use in told["found"]["uses"]} == {("LD_PRELOAD", str(library))}
    assert told["lines"]["variables"] == {"LD_PRELOAD": str(library)}
    assert any(plugin["path"] == str(net) for plugin in told["found"]["plugins"])


def test_a_plugin_that_is_not_there_is_a_failure_that_names_it(tmp_path: Path) -> None:
    done = run(tmp_path, "--lang", "en", NCCL_NET_PLUGIN="absent")
    assert done.returncode == 1
    assert "net absent: not found" in done.stdout
    chinese = run(tmp_path, "--lang", "zh", NCCL_NET_PLUGIN="absent")
    assert chinese.returncode == 1
    assert "集合通信库插件可加载" in chinese.stdout


def test_the_lines_are_for_what_was_named(built: SharedObjects, tmp_path: Path) -> None:
    net = built.make("net/libnccl-net-cwai.so", "int ncclNetPlugin_v8;")
    done = run(tmp_path, "--lang", "en", "--plugin", str(net))
    assert "export NCCL_NET_PLUGIN=cwai\n" in done.stdout
    assert f"-v {net.parent}:{net.parent}:ro" in done.stdout
    assert "mpirun -x NCCL_NET_PLUGIN -x LD_LIBRARY_PATH COMMAND" in done.stdout


@pytest.mark.parametrize("option", ["--library", "--plugin"])
def test_a_file_that_is_none_is_refused_before_anything_is_read(
    option: str, built: SharedObjects, tmp_path: Path
) -> None:
    other = built.make("liba.so", "int a;")
    for path, why in ((tmp_path / "absent.so", "No such file"), (other, "exports no nccl"), (Path(__file__), "ELF")):
        done = run(tmp_path, option, str(path), "--lang", "en")
        assert done.returncode == 2
        assert why in done.stderr
        assert str(path) in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_process_is_looked_at_by_its_number(built: SharedObjects, tmp_path: Path) -> None:
    library = built.library("lib/libnccl.so.2", CTCCL)
    script = f"import ctypes; ctypes.CDLL({str(library)!r}); print('up', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "up\n"
        told = document(run(tmp_path, "--json", "--pid", str(job.pid)))
        job.kill()
    assert told["found"]["process"] == job.pid
    assert [use["path"] for use in told["found"]["uses"]] == [str(library)]
    assert verdicts(told)["nccl.library"] == "PASS"
    gone = run(tmp_path, "--pid", str(job.pid), "--lang", "en")
    assert (gone.returncode, "there is no such process" in gone.stderr) == (2, True)


def test_a_process_that_has_loaded_none_is_no_verdict(tmp_path: Path) -> None:
    done = run(tmp_path, "--json", "--pid", str(os.getpid()))
    assert verdicts(document(done))["nccl.library"] == "UNKNOWN"
    assert done.returncode == 3


def test_a_recorded_node_is_judged_as_it_was(planted: Planted, tmp_path: Path) -> None:
    told = document(run(tmp_path, "--json", "--root", str(planted.root), NCCL_NET_PLUGIN="absent"))
    assert set(verdicts(told).values()) == {"PASS", "NA"}
    assert told["found"]["uses"][0]["by"] == "torch 2.5.1 (/opt/conda)"
    done = run(tmp_path, "--root", str(planted.root), "--pid", "1", "--lang", "en")
    assert done.returncode == 2


def test_the_library_of_a_configuration_file_is_that_of_collective(tmp_path: Path) -> None:
    (tmp_path / "conf.toml").write_text('[options]\nlibrary = "nccl"\n')
    done = run(tmp_path, "--config", str(tmp_path / "conf.toml"), "--json")
    assert done.returncode != 2, done.stderr
    assert document(done)["lines"] is None


def test_where_no_library_is_it_says_so_and_where_to_look(planted: Planted, tmp_path: Path) -> None:
    planted.call("nccl", uses=[], libraries=[], plugins=[])
    done = run(tmp_path, "--root", str(planted.root), "--lang", "en")
    assert done.stdout.startswith("no collective library of NCCL's interface is here; run this as the job runs")
    chinese = run(tmp_path, "--root", str(planted.root), "--lang", "zh")
    assert chinese.stdout.startswith("本机没有 NCCL 或接口兼容的集合通信库；")
