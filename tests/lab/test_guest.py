"""The guest itself: it runs the tests' environment, has soft-RoCE, and tells its own death from a failed command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.lab import guest

pytestmark = pytest.mark.lab("guest")

SOFT_ROCE = """
ip link add a0 type veth peer name b0
ip link set a0 up
ip link set b0 up
rdma link add rxea0 type rxe netdev a0
ibv_devices
rdma link show
"""


def test_a_command_runs_in_the_environment_of_the_tests(tmp_path: Path) -> None:
    program = (
        "import os, sys, numpy, cwai_bench; print(os.uname().release, os.uname().nodename, sys.prefix, os.getuid());"
        "open('/run/exchange/kept', 'w').write('x' * 100000); sys.exit('no good')"
    )
    done = guest.run([sys.executable, "-c", program], tmp_path)
    release = (guest.KERNEL / "release").read_text().strip()
    assert done.stdout == f"{release} guest {sys.prefix} 0\n"
    assert (done.returncode, done.stderr) == (1, "no good\n")
    assert (tmp_path / "boot1" / "exchange" / "kept").read_text() == "x" * 100000


def test_soft_roce_stands_on_a_veth_pair(tmp_path: Path) -> None:
    done = guest.run(["sh", "-ec", SOFT_ROCE], tmp_path, modules=["rdma_rxe", "ib_uverbs", "rdma_ucm", "veth"])
    assert done.returncode == 0, done.stderr
    device = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["rxea0"]]
    assert len(device) == 1, done.stdout
    assert "link rxea0/1 state ACTIVE physical_state LINK_UP netdev a0" in done.stdout


def test_a_panic_is_tried_once_more(tmp_path: Path) -> None:
    once = f"[ -e {tmp_path}/boot2 ] || echo c >/proc/sysrq-trigger; echo survived"
    done = guest.run(["sh", "-c", once], tmp_path)
    assert (done.returncode, done.stdout) == (0, "survived\n")
    assert "Kernel panic" in (tmp_path / "boot1" / "console.log").read_text(errors="replace")


def test_two_panics_are_no_result(tmp_path: Path) -> None:
    with pytest.raises(guest.KernelPanic, match="Kernel panic"):
        guest.run(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60"], tmp_path)
    assert (tmp_path / "boot2" / "console.log").exists()


def test_a_guest_that_hangs_is_ended_at_its_deadline(tmp_path: Path) -> None:
    with pytest.raises(guest.GuestDied, match="no result within 10 s") as caught:
        guest.run(["sleep", "1000"], tmp_path, deadline=10)
    assert not isinstance(caught.value, guest.KernelPanic)
    assert not (tmp_path / "boot2").exists()


def test_an_unknown_module_is_a_failed_command(tmp_path: Path) -> None:
    done = guest.run(["true"], tmp_path, modules=["no_such_module"])
    assert done.returncode != 0
    assert "no_such_module" in done.stderr
