"""Transfers over several RDMA paths of the guest, both ends in one process, something happening to the first path in
the middle of some. Prints one JSON line: what came of each."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cwai_bench import native

TOKEN = bytes(range(32))
SIZE = 12_000_000
INFINIBAND = Path("/sys/class/infiniband")


def transfer(
    paths: int, during: Callable[[], None] | None = None, *, size: int = SIZE, **options: Any
) -> dict[str, Any]:
    """``during`` runs beside it, once a part of the bytes has gone over the first path."""

    def nics(side: str) -> list[native.RdmaPort]:
        # An emulated machine stands still at times.
        return [native.RdmaPort(f"rxe{side}{i}", timeout_exponent=18, retries=7) for i in range(paths)]

    listeners = native.PathListeners(["127.0.0.1"] * paths, nics("b"))
    before = sent_packets()
    ended = threading.Event()

    def something_happens() -> None:
        while sent_packets() < before + size // paths // 4096 // 4:
            if ended.wait(0.01):
                return
        assert during is not None
        during()

    beside = threading.Thread(target=something_happens)
    if during:
        beside.start()
    try:
        seen: tuple[Any, Any] = native.both(
            lambda: native.multipath_send(
                routes=[("", "127.0.0.1", port) for port in listeners.ports],
                nics=nics("a"),
                token=TOKEN,
                bytes=size,
                stall=0.5,
                connect_timeout=20,
                timeout=60,
                **{"connections": 1, **options},
            ),
            lambda: listeners.receive(token=TOKEN, bytes=size, timeout=60, **{"connections": 1, **options}),
        )
    finally:
        ended.set()
        if during:
            beside.join()
    sent, received = seen
    return {
        "ended": [str(sent.ended), str(received.ended)],
        "complete": received.complete,
        "wrong": received.wrong,
        "delivered": [path.delivered for path in sent.paths],
        "bytes": [path.bytes for path in received.paths],
        "events": [[event.path, event.state, event.cause, event.code] for event in sent.events],
        "size": size,
    }


def sent_packets() -> int:
    return int((INFINIBAND / "rxea0/ports/1/hw_counters/sent_pkts").read_text())


def run(command: str) -> None:
    subprocess.run(command, shell=True, check=True, timeout=30)


def link_down_and_up() -> None:
    run("ip link set a0 down")
    time.sleep(1.0)
    run("ip link set a0 up && ip route add table 100 10.0.0.2/32 dev a0 src 10.0.0.1")


def opened() -> list[int]:
    """The files by which this process has the first device open."""
    found = []
    for fd in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):
            if Path("/sys/class/infiniband_verbs", fd.readlink().name, "ibdev").read_text().strip() == "rxea0":
                found.append(int(fd.name))
    return found


def force_errors(files: list[int]) -> None:
    """Moves the queue pairs of ``files`` into error behind this process's back: the kernel's own request (MODIFY_QP of
    include/uapi/rdma/ib_user_verbs.h), on each handle that there may be."""
    modify_qp, state_alone, error = 26, 1, 6
    for fd in files:
        for handle in range(32):
            body = struct.pack("<64x2I20x4xB15x", handle, state_alone, error)
            header = struct.pack("<I2H", modify_qp, (8 + len(body)) // 4, 0)
            with suppress(OSError):
                os.write(fd, header + body)


def main() -> None:
    told = {
        "two": transfer(2, connections=2, size=SIZE // 2),
        "four": transfer(4),
        "link down": transfer(2, link_down_and_up, size=2 * SIZE),
        "error": transfer(4, lambda: force_errors(opened())),
    }
    # It returns once nobody has the device open any more.
    deleting: list[subprocess.Popen[bytes]] = []

    def delete() -> None:
        files = opened()
        deleting.append(subprocess.Popen(["rdma", "link", "del", "rxea0"]))
        time.sleep(0.1)
        force_errors(files)

    told["deleted"] = transfer(2, delete, size=2 * SIZE)
    told["deleted"]["code"] = deleting[0].wait(20)
    told["deleted"]["there"] = (INFINIBAND / "rxea0").exists()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
