"""The machine on which the figures were taken: without it they mean nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from cwai_bench import __version__

INTRODUCTION = """# Figures against peers

Written by `{command}`; nothing here is typed by hand. Each figure is ours and a peer's, taken in
turn many times within one run and compared neighbour by neighbour. The ratio is ours to the peer's (median, with the
10th and 90th percentile of all pairs); the A/A control is the same comparison of the peer with itself, so it shows how
much of a ratio is noise. A figure on a busy or a shared machine says little: look at the control first.

"""


def facts() -> dict[str, str]:
    """What is worth knowing, by name, in order."""
    memory = re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cwai-bench": f"{__version__} {_commit()}".strip(),
        "CPU": f"{_cpu()}, {len(os.sched_getaffinity(0))} CPUs{_virtual()}",
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "?",
        "system": f"{platform.freedesktop_os_release().get('PRETTY_NAME', '?')}, kernel {platform.release()}",
        "Python": platform.python_version(),
        "compiler": _first_line(["c++", "--version"]),
        "MPI": _first_line([str(Path(sys.executable).parent / "mpirun"), "--version"]),
        "iperf3": _first_line(["iperf3", "--version"]),
        "sockperf": _first_line(["sockperf", "--version"]),
        "perftest": _first_line(["ib_write_bw", "--version"]),
        "load at the end": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }


def page(about: dict[str, str], table: str, seconds: float, command: str) -> str:
    """``command``: what wrote it."""
    machine = "\n".join(f"- {key}: {value}" for key, value in about.items())
    return f"{INTRODUCTION.format(command=command)}The machine, all in {seconds:.0f} s:\n\n{machine}\n\n{table}\n"


def _cpu() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()


def _virtual() -> str:
    return ", a virtual machine" if " hypervisor" in Path("/proc/cpuinfo").read_text() else ""


def _first_line(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return "none"
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else "?"


def _commit() -> str:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, timeout=20
    )
    return done.stdout.strip()
