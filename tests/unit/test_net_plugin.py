"""NCCL's net plugin between two processes, over three addresses of the loopback interface: see also
tests/cpp/test_nccl_plugin.cpp for both ends in one, and tests/lab/test_net_plugin_links.py for real links."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cwai_bench import native
from cwai_bench.discover import net_plugin
from tests.net_plugin import THREE_PATHS, exchange, intact

TABLES = [f"ncclNetPlugin_v{version}" for version in (8, 9, 10, 11, 12)]


def test_the_library_shows_its_tables_and_needs_nothing_of_a_job() -> None:
    nm, readelf = shutil.which("nm"), shutil.which("readelf")
    if nm is None or readelf is None:
        pytest.skip("no nm and readelf on this machine: apt-get install binutils")
    shown = subprocess.run(
        [nm, "-D", "--defined-only", native.net_plugin()], capture_output=True, text=True, check=True
    )
    assert sorted(line.split()[-1] for line in shown.stdout.splitlines()) == sorted(TABLES)
    needed = subprocess.run([readelf, "-d", native.net_plugin()], capture_output=True, text=True, check=True)
    libraries = set(re.findall(r"NEEDED.*\[(.+?)\.so", needed.stdout))
    assert libraries <= {"libc", "libm", "libpthread", "libdl", "ld-linux-x86-64", "ld-linux-aarch64"}
    assert "NODELETE" in needed.stdout


@pytest.mark.parametrize("version", [8, 9, 10, 11, 12])
def test_every_table_carries_every_message_whatever_paths_break(version: int) -> None:
    saw = exchange(version=version, fault="cut", faults=6, seed=f"cut {version}")
    intact(saw, 2 * 40)
    assert all(one["planted"] >= 6 for one in saw)
    assert all(one["most"] >= 32 for one in saw)


def test_garbled_connections_are_noticed_and_made_anew() -> None:
    saw = exchange(fault="garble", faults=8, comms=1, messages=120)
    intact(saw, 120)
    assert all(one["planted"] >= 8 for one in saw)


def test_many_comms_with_several_connections_on_each_path() -> None:
    environment = {**THREE_PATHS, "NCCL_IB_QPS_PER_CONNECTION": "3", "NCCL_IB_HCA": "mlx5_0"}
    saw = exchange(environment=environment, comms=8, messages=12, largest=8 << 20)
    intact(saw, 8 * 12)
    assert all(any("NCCL_IB_HCA" in line for line in one["log"]) for one in saw)
    assert all(any("3 connections on each" in line for line in one["log"]) for one in saw)


def nics(stand_ins: Path, **more: str) -> dict[str, str]:
    """Two NICs, whose queue pairs reach one another within a process."""
    return {**THREE_PATHS, "LD_LIBRARY_PATH": str(stand_ins), **more}


@pytest.mark.parametrize("connections", [1, 3])
def test_over_nics_every_message_comes_whatever_breaks(stand_ins: Path, connections: int) -> None:
    seen: list[dict[str, Any]] = []

    def ask(both: list[subprocess.Popen[str]]) -> None:
        seen.append(asked(both[0].pid, lambda told: any(comm["transfers"] for comm in told["comms"])))

    environment = nics(stand_ins, NCCL_IB_QPS_PER_CONNECTION=str(connections), NCCL_IB_TC="106", NCCL_IB_PKEY="0")
    saw = exchange(ask, environment=environment, alone=True, messages=80, fault="cut", faults=6)
    intact(saw, 2 * 80)
    assert saw[0]["planted"] >= 6
    assert saw[0]["most"] >= 32
    assert any("RDMA, paths by fake0:1 127.0.0.1, fake1:1 127.0.0.2;" in line for line in saw[0]["log"])
    assert any("not looked at: NCCL_IB_PKEY" in line for line in saw[0]["log"])
    comms = [comm for comm in seen[0]["comms"] if comm["paths"]]
    assert {comm["transport"] for comm in comms} == {"rdma"}
    ends = [(path["local_name"], path["remote_name"]) for path in comms[0]["paths"]]
    assert ends == [("fake0:1", "fake0:1"), ("fake1:1", "fake1:1")] * connections


def test_where_one_end_has_no_rdma_both_take_tcp_and_say_so(stand_ins: Path) -> None:
    saw = exchange(before=(("env", f"LD_LIBRARY_PATH={stand_ins}"), ("env", "NCCL_IB_DISABLE=1")))
    intact(saw, 2 * 40)
    for one in saw:
        assert any(line.startswith("WARN sending to 127.0.0.1: over TCP: only the ") for line in one["log"])
        assert any(line.startswith("WARN receiving from 127.0.0.1: over TCP: only the ") for line in one["log"])


def test_where_rdma_is_demanded_and_one_end_has_none_nothing_goes_over_tcp(stand_ins: Path) -> None:
    demanded = ("env", f"LD_LIBRARY_PATH={stand_ins}", "CWAI_NET_TRANSPORT=rdma")
    saw = exchange(
        before=(demanded, ("env", "CWAI_NET_TRANSPORT=tcp")), environment=THREE_PATHS | {"CWAI_NET_TIMEOUT": "3"}
    )
    assert [one["failed"] for one in saw] == ["connect: 6", "connect: 6"]
    assert all(any("no kind of path in common" in line for line in one["log"]) for one in saw)


def test_without_retransmission_the_first_broken_path_is_the_end() -> None:
    environment = {**THREE_PATHS, "CTCCL_IB_RETRY_DISABLE": "1", "CWAI_NET_TIMEOUT": "3"}
    saw = exchange(environment=environment, comms=1, messages=200, fault="cut", faults=1)
    failed = [one for one in saw if one["failed"]]
    assert failed
    assert any(line.startswith("WARN sending to") for one in failed for line in one["log"])


def asked(pid: int, until: Callable[[dict[str, Any]], bool], patience: float = 60.0) -> dict[str, Any]:
    """What the plugin in a process says of itself, once it is so."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        told = net_plugin.ask(pid)
        if told is not None:
            seen: dict[str, Any] = json.loads(net_plugin.encode(told))
            if until(seen):
                return seen
        time.sleep(0.02)
    raise TimeoutError(f"process {pid}")


def test_a_peer_that_dies_is_an_error_that_names_every_path() -> None:
    def kill(both: list[subprocess.Popen[str]]) -> None:
        asked(both[0].pid, lambda told: any(comm["transfers"] for comm in told["comms"]))
        both[1].send_signal(signal.SIGKILL)

    environment = {**THREE_PATHS, "CWAI_NET_TIMEOUT": "2"}
    saw = exchange(kill, environment=environment, comms=1, messages=20_000)
    assert saw[1] == {}
    assert saw[0]["failed"] in {"test: 6", "isend: 6", "irecv: 6"}
    told = next(line for line in saw[0]["log"] if line.startswith("WARN"))
    assert all(f"127.0.0.{i} failed (" in told for i in (1, 2, 3))
    assert "CWAI_NET_TIMEOUT" in told


def test_who_asks_is_told_of_paths_and_comms() -> None:
    seen: list[dict[str, Any]] = []

    def ask(both: list[subprocess.Popen[str]]) -> None:
        def carried(told: dict[str, Any]) -> bool:
            return any(path["bytes"] for comm in told["comms"] for path in comm["paths"])

        seen.append(asked(both[0].pid, carried))

    saw = exchange(ask, messages=400)
    intact(saw, 2 * 400)
    told = seen[0]
    assert (told["connections"], told["resend"], told["timeout_s"]) == (1, True, 30)
    assert [rail["address"] for rail in told["rails"]] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    assert {comm["direction"] for comm in told["comms"]} <= {"send", "receive"}
    assert {comm["transport"] for comm in told["comms"] if comm["paths"]} == {"tcp"}
    assert all(path["local"] == path["remote"] for comm in told["comms"] for path in comm["paths"])


@pytest.mark.parametrize(
    ("lang", "words"), [("en", ("Path of the net plugin", "healthy")), ("zh", ("网络插件的路径", "健康"))]
)
def test_the_command_shows_the_paths_of_a_job_and_the_lines_for_one(
    lang: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    shown: list[str] = []

    def look(both: list[subprocess.Popen[str]]) -> None:
        asked(both[0].pid, lambda told: any(comm["transfers"] for comm in told["comms"]))
        command = [sys.executable, "-m", "cwai_bench", "nccl", "--store", str(tmp_path), "--pid", str(both[0].pid)]
        done = subprocess.run(
            [*command, "--plugin", "--lang", lang], capture_output=True, text=True, timeout=60, check=False
        )
        shown.append(done.stdout)
        both[0].kill()
        both[1].kill()

    exchange(look, hold=True, comms=1)
    assert all(word in shown[0] for word in words)
    assert all(f"127.0.0.{i} > 127.0.0.{i}" in shown[0] for i in (1, 2, 3))
    assert "export NCCL_NET_PLUGIN=cwai\n" in shown[0]
    assert str(native.net_plugin().parent) in shown[0]


def test_nobody_answers_where_no_plugin_is() -> None:
    assert net_plugin.ask(os.getpid()) is None


@pytest.mark.parametrize("said", [b"", b"{", b'{"schema":2}', b'{"schema":1,"pid":"x"}', b"[" * 100_000])
def test_an_answer_that_is_none_is_not_believed(said: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(f"\0cwai-net-{os.getpid()}")
        server.listen()

        def answer() -> None:
            guest, _ = server.accept()
            with guest:
                guest.sendall(said)

        answering = threading.Thread(target=answer)
        answering.start()
        try:
            assert net_plugin.ask(os.getpid()) is None
        finally:
            answering.join()


def test_a_setting_that_names_no_interface_is_refused_by_name() -> None:
    environment = {"CWAI_NET_PATHS": "eth99"}
    code = (
        "import sys; from tests.net_plugin_program import Failed, Plugin, LOGGER\n"
        "said = []\n"
        "Plugin._said = lambda self, level, text: said.append(text.decode())\n"
        "try: Plugin(sys.argv[1], 12)\n"
        "except Failed as error: print(error, said)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, native.net_plugin()],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=True,
    )
    assert done.stdout.startswith("init: 5 ")
    assert "eth99 is no address, and no interface that is up" in done.stdout
