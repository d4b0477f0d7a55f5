"""What is installed: one version, few libraries, both languages everywhere, and a start that imports little."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import metadata
from importlib.resources import files

import pytest

import cwai_bench
from cwai_bench.cli.main import COMMANDS
from cwai_bench.native import door
from cwai_bench.probes import PROBES

HEAVY = {"numpy", "pandas", "jinja2", "rich", "mpi4py", "ClusterShell", "asyncio", "http"}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_version() -> None:
    assert metadata.version("cwai-bench") == cwai_bench.__version__
    assert door.compiled().__version__ == cwai_bench.__version__


def test_the_compiled_module_needs_no_optional_library() -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("no readelf on this machine: apt-get install binutils")
    shown = subprocess.run([readelf, "-d", str(door.compiled().__file__)], capture_output=True, text=True, check=True)
    needed = set(re.findall(r"NEEDED.*\[([A-Za-z0-9_+-]+?)(?:\+\+)?\.so", shown.stdout))
    assert needed <= {
        "libstdc",
        "libgcc_s",
        "libc",
        "libm",
        "libdl",
        "libpthread",
        "librt",
        "ld-linux-x86-64",
        "ld-linux-aarch64",
    }


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from cwai_bench.cli.main import entry\ntry: entry(['--help'])\nexcept SystemExit: pass\n"
    loaded = set(run(code + "print(' '.join(sys.modules))").splitlines()[-1].split())
    assert not loaded & HEAVY


def test_a_rank_meets_no_mpi_before_it_is_asked_to() -> None:
    code = "import sys, cwai_bench.launch.rank, cwai_bench.launch.front, cwai_bench.probes.collective\n"
    loaded = set(run(code + "print(' '.join(sys.modules))").split())
    assert "mpi4py.MPI" not in loaded


def test_templates_and_schema_are_installed() -> None:
    reports = files("cwai_bench.reports")
    assert reports.joinpath("report.schema.json").is_file()
    assert reports.joinpath("templates").joinpath("report.html.j2").is_file()
    assert files("cwai_bench").joinpath("py.typed").is_file()


def test_every_text_of_commands_and_probes_is_in_both_languages() -> None:
    texts = list(COMMANDS.values())
    for probe in PROBES.values():
        texts += [probe.info.title, probe.info.method, probe.info.criterion, probe.info.suggestion]
    for text in texts:
        assert text.en.strip()
        assert re.search(r"[\u4e00-\u9fff]", text.zh), text.en
