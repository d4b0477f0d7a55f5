"""A stand-in for hccn_tool that keeps to the documented forms of -ip, -speed, -stat and -roce_test.

It lies in a folder of its own for each node, beside ``node.json``: the node's number, and the folder in which the
stand-ins of all nodes meet. There a test plants trouble as files: ``busy-ADDRESS`` (once), ``deaf-ADDRESS``,
``hang-TEST``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

NODE = json.loads((Path(__file__).parent / "node.json").read_text())
STATE = Path(NODE["state"])
RULE = "-" * 100
STATISTICS = ("mac_rx_fcs_err_pkt_num", "roce_tx_all_pkt_num", "roce_new_pkt_rty_num", "nic_rx_all_oct_num")


def address_of(number: str) -> str:
    return f"192.0.2.{10 * NODE['number'] + int(number)}"


def report(test: str, size: int, iterations: int, mine: str) -> None:
    title = {"send": "Send", "write": "RDMA_Write", "read": "RDMA_Read"}[test.split("_")[1]]
    gid = ":".join([*["00"] * 10, "255", "255", *(f"{int(part):02d}" for part in mine.split("."))])
    print("Dsmi get perftest status end. (status=1)\nroce_report:\n " + RULE)
    print(f"                    {title} {'BW' if test.endswith('bw') else 'Latency'} Test")
    print(f" Mtu             : 4096[B]\n Link type       : Ethernet\n local address: LID 0000\n GID: {gid}\n{RULE}")
    if test.endswith("bw"):
        print(" #bytes       #iterations        BW peak[MB/sec]            BW average[MB/sec]          MsgRate[Mpps]")
        print(f" {size}      {iterations}        23364.40       23361.25      {23361.25 * 2**20 / size / 1e6:.6f}")
    else:
        print(
            " #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]"
            "   99% percentile[usec]   99.9% percentile[usec]"
        )
        print(f" {size}       {iterations}          4.61           13.10        4.62    4.65    0.28    5.42     13.10")
    print(RULE)


def serve(mine: str, test: str, size: int, iterations: int) -> int:
    listening, called = STATE / f"listen-{mine}", STATE / f"called-{mine}"
    if listening.exists():
        print("Roce perftest is doing, please try later.")
        return 2
    if (STATE / f"deaf-{mine}").exists():
        print("roce_report:\n Couldn't listen to port 18515")
        return 255
    called.unlink(missing_ok=True)
    listening.write_text(f"{test} {size} {iterations}")
    print("Dsmi start roce perftest end. (out=1)")
    while not called.exists():
        if not listening.exists():
            print("Dsmi get perftest status end. (status=3)")
            return 255
        time.sleep(0.02)
    listening.unlink()
    report(test, size, iterations, mine)
    return 0


def call(mine: str, other: str, test: str, size: int, iterations: int) -> int:
    listening = STATE / f"listen-{other}"
    if not listening.exists() or listening.read_text() != f"{test} {size} {iterations}":
        print(f"roce_report:\n Couldn't connect to {other}:18515")
        return 255
    if (STATE / f"hang-{test}").exists():
        time.sleep(60)
    counted = STATE / f"stat-{other}"
    counted.write_text(str(int(counted.read_text() if counted.exists() else 0) + 3))
    (STATE / f"called-{other}").touch()
    report(test, size, iterations, mine)
    return 0


def main(number: str, *words: str) -> int:
    mine = address_of(number)
    if words == ("-ip", "-g"):
        bare = mine in NODE["bare"]
        print("No ip was preset" if bare else f"ipaddr:{mine}\nnetmask:255.255.255.0")
    elif words == ("-speed", "-g"):
        print("Speed: 200000 Mb/s")
    elif words == ("-stat", "-g"):
        counted = STATE / f"stat-{mine}"
        again = counted.read_text() if counted.exists() else "0"
        print("\n".join(f"{n}:{again if n == 'roce_new_pkt_rty_num' else time.monotonic_ns()}" for n in STATISTICS[1:]))
    elif words == ("-roce_test", "reset"):
        (STATE / f"listen-{mine}").unlink(missing_ok=True)
    else:
        busy = STATE / f"busy-{mine}"
        if busy.exists():
            busy.unlink()
            print("hccn_tool is busy, please try again.")
            return 1
        flag, test, s, size, n, iterations, tcp, *to = words
        assert (flag, s, n, tcp) == ("-roce_test", "-s", "-n", "-tcp"), words
        arguments = (test, int(size), int(iterations))
        if to:
            assert to[0] == "address", words
            return call(mine, to[1], *arguments)
        return serve(mine, *arguments)
    return 0


if __name__ == "__main__":
    assert sys.argv[1] == "-i"
    sys.exit(main(*sys.argv[2:]))
