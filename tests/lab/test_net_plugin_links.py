"""NCCL's net plugin between two hosts with several links: what it carries when one is cut, and comes back."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.lab.paths import Paths
from tests.net_plugin import exchange, intact

pytestmark = pytest.mark.lab("tc")


def await_carrier(paths: Paths) -> None:
    """The system notes the carrier of a new link up to a second late, and an interface without one is no rail."""
    end = time.monotonic() + 30
    for side in (0, 1):
        command = [*paths.enter(side), "ip", "-brief", "link", "show", "type", "veth"]
        while True:
            shown = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
            if all(line.split()[1] == "UP" for line in shown):
                break
            assert time.monotonic() < end, shown
            time.sleep(0.05)


def test_a_link_that_is_cut_and_healed_is_not_seen_by_nccl() -> None:
    with Paths([80, 160, 80]) as paths:
        await_carrier(paths)

        def cut(both: list[subprocess.Popen[str]]) -> None:
            time.sleep(1.0)
            paths.cut(1)
            time.sleep(1.5)
            paths.heal(1)

        # Interfaces as the plugin chooses them by itself: 40 MB each way are two seconds of all links.
        saw = exchange(
            cut, environment={}, before=(paths.enter(0), paths.enter(1)), comms=1, messages=160, largest=4 << 20
        )
    intact(saw, 160)
    for one in saw:
        assert any(
            "paths by" in line and all(name in line for name in ("10.66.0.", "10.66.1.", "10.66.2."))
            for line in one["log"]
        )
    lost = [
        line for one in saw for line in one["log"] if "10.66.1." in line and ("suspect" in line or "failed" in line)
    ]
    assert lost
    again = [line for one in saw for line in one["log"] if "10.66.1." in line and "(connected)" in line]
    assert again


def test_when_every_link_is_cut_it_is_an_error_in_time_that_names_them() -> None:
    with Paths([80, 80]) as paths:
        await_carrier(paths)

        def cut(both: list[subprocess.Popen[str]]) -> None:
            time.sleep(1.0)
            paths.cut(0)
            paths.cut(1)

        began = time.monotonic()
        saw = exchange(
            cut, environment={"CWAI_NET_TIMEOUT": "3"}, before=(paths.enter(0), paths.enter(1)), comms=1, messages=4000
        )
    assert time.monotonic() - began < 60
    assert all(one["failed"] for one in saw)
    told = [line for one in saw for line in one["log"] if line.startswith("WARN sending to")]
    assert told
    assert all("10.66.0." in line and "10.66.1." in line for line in told)
