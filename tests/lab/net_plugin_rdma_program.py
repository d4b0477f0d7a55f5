"""NCCL's net plugin between two processes over two RDMA paths of the guest, one of which is cut and healed. Prints what
both saw, as JSON."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from cwai_bench.discover import net_plugin
from tests.net_plugin import exchange

ENVIRONMENT = {
    "CWAI_NET_TRANSPORT": "rdma",
    "CWAI_NET_TIMEOUT": "60",
    # An emulated machine stands still at times.
    "NCCL_IB_TIMEOUT": "18",
}


def link(*words: str) -> None:
    subprocess.run(["ip", "link", "set", "b1", *words], check=True, timeout=120)


def carried(pid: int) -> list[int]:
    """Bytes of each path."""
    told = net_plugin.ask(pid)
    return [path.bytes for comm in told.comms for path in comm.paths] if told else []


def main() -> None:
    seen: list[Any] = []

    def cut(both: list[subprocess.Popen[str]]) -> None:
        end = time.monotonic() + 60
        while not all(carried(both[0].pid) or [0]):
            assert time.monotonic() < end
            time.sleep(0.05)
        link("down")
        time.sleep(1)
        seen.append(net_plugin.ask(both[0].pid))
        link("up")

    side = ("env", "NCCL_IB_HCA=rxea", "CWAI_NET_PATHS=a0,a1"), ("env", "NCCL_IB_HCA=rxeb", "CWAI_NET_PATHS=b0,b1")
    saw = exchange(cut, environment=ENVIRONMENT, before=side, comms=1, messages=48, largest=512 << 10)
    told = [json.loads(net_plugin.encode(one)) for one in seen if one is not None]
    print(json.dumps({"saw": saw, "told": told}))


main()
