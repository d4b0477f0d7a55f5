"""RDMA in the guest: perftest over two paths of soft-RoCE, and the server check on a kernel that has RDMA devices."""

from __future__ import annotations

import errno
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab import guest, rails

pytestmark = pytest.mark.lab("guest")


def test_perftest_runs_over_each_of_two_paths(tmp_path: Path) -> None:
    script = rails.paths(2)
    for path in (0, 1):
        script += rails.between("ib_write_bw", path, "-s", "65536", "-n", "500")
        script += rails.between("ib_write_lat", path, "-s", "8", "-n", "200")
        script += f"echo counters {path} $(cat /sys/class/infiniband/rxea{path}/ports/1/hw_counters/sent_pkts)\n"
    done = guest.run(["sh", "-c", script], tmp_path, modules=rails.MODULES, deadline=400)
    assert done.returncode == 0, done.stderr
    bandwidths = re.findall(r"^ 65536 +500 +\S+ +(\S+) ", done.stdout, re.M)
    latencies = re.findall(r"^ 8 +200 +\S+ +\S+ +(\S+) ", done.stdout, re.M)
    assert len(bandwidths) == len(latencies) == 2, done.stdout
    assert all(float(figure) > 0 for figure in bandwidths + latencies)
    # 500 messages of 64 KiB in packets of at most 4 KiB: they crossed this device, and no other.
    sent = {path: int(n) for path, n in re.findall(r"^counters (\d) (\d+)$", done.stdout, re.M)}
    assert all(n >= 500 * 16 for n in sent.values())


def test_the_check_reads_the_devices_of_a_real_kernel(tmp_path: Path) -> None:
    items = "'rdma.*,roce.*'"
    check = f"{sys.executable} -m cwai_bench check --items {items} --json --store /tmp/store"
    script = rails.paths(2) + (
        f"{check} >/run/exchange/whole.json\nip link set b1 down; sleep 1\n{check} >/run/exchange/cut.json || echo $?\n"
    )
    done = guest.run(["sh", "-c", script], tmp_path, modules=rails.MODULES, deadline=400)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    (exchange,) = sorted(tmp_path.glob("boot*/exchange"))[-1:]
    whole, cut = (
        {v["check"]: v for v in json.loads((exchange / name).read_text())["verdicts"]}
        for name in ("whole.json", "cut.json")
    )
    assert {v["status"] for v in whole.values()} == {"PASS", "SKIP"}
    assert whole["rdma.devices"]["observed"] == "0 / 0, 4 RDMA"
    assert (whole["rdma.link"]["observed"], whole["rdma.state"]["observed"]) == ("4 / 4", "4 / 4")
    assert whole["rdma.userspace"]["observed"] == "4 / 4, rdma_cm ok"
    assert whole["rdma.retries"]["observed"].startswith("4 ports, +0")
    # The end that was taken down is not in use; the other one has lost its link.
    assert (cut["rdma.link"]["status"], cut["rdma.link"]["observed"]) == ("FAIL", "2 / 4; rxea1 Polling")
    assert {check for check, v in cut.items() if v["status"] not in ("PASS", "SKIP")} == {"rdma.link"}


def run_program(folder: Path, paths: int, *words: object) -> Any:
    program = f"{sys.executable} -m tests.lab.verbs_program {' '.join(map(str, words))}"
    script = f"cd {guest.ROOT}\n{rails.paths(paths)}{program}\n"
    done = guest.run(["sh", "-c", script], folder, modules=rails.MODULES, deadline=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("lanes", "waiting"), [(1, "spin"), (4, "block")])
def test_messages_go_by_rdma_write(tmp_path: Path, lanes: int, waiting: str) -> None:
    told = run_program(tmp_path, 1, 0, lanes, waiting)
    assert told["ends"] == ["rxea0:1 gid 1", "rxeb0:1 gid 1", "verbs"]
    assert (told["lanes"], told["wrong"], told["trips"]) == (lanes, 0, 200)
    assert min(told["bandwidth"], *told["two_way"], told["samples"], told["half_trip"]) > 0


def test_write_read_and_send_are_measured_and_verified(tmp_path: Path) -> None:
    told = run_program(tmp_path, 1, "rdma")
    assert told["end"] == ["::ffff:10.0.0.1", 1, "Ethernet", "v2"]
    for run in told["runs"]:
        verb, size, count, two_way = run["run"]
        there, back = run["moved"]
        assert there > 0, run
        assert (back > 0) is two_way, run
        assert run["moved"] == run["told"], run
        assert (run["wrong"], there % size) == (0, 0), run
        assert run["samples"] > 0, run
        assert run["mtu"] == ([1024, 1024] if (verb, size, count) == ("write", 65536, 1) else [4096, 4096]), run
    assert len(told["runs"]) == 12
    for verb in ("write", "read", "send"):
        count, fastest, wrong = told["trips"][verb]
        assert (count, wrong) == (100, 0)
        assert fastest > 0


RDMA = (
    f"{sys.executable} -m cwai_bench rdma --transport verbs -np 2 --mpirun-option=--allow-run-as-root"
    " --as-node rxe0=a,rxe1=b,rxe2=c,rxe3=d --pairs all --verb write --streams 1 --depth 8"
)
"""Two ranks, four NICs that pass for four nodes, all pairs."""


def run_switch(folder: Path, script: str) -> Path:
    """``script`` after four NICs on a switch were set up; returns the folder into which it may have written."""
    done = guest.run(["sh", "-c", rails.fabric(4) + script], folder, modules=rails.MODULES, deadline=400)
    assert done.returncode == 0, done.stderr
    (exchange,) = sorted(folder.glob("boot*/exchange"))[-1:]
    return exchange


def report_of(exchange: Path, name: str) -> Any:
    return json.loads((exchange / name / "report.json").read_text())


def test_all_pairs_over_a_switch_tell_which_nic_is_slow(tmp_path: Path) -> None:
    """rxe2 is shaped to 4 Mbit/s, all else goes as it likes.

    On an emulated machine figures scatter as no cluster's do: the slow NIC is to be told of, by its name or, where the
    others scatter too much for that, among those that it may be.
    """
    rdma = (
        f"{RDMA} --kind bandwidth --direction one-way --sizes 64K --duration 0.3s"
        " --qp-timeout 18 --item-timeout 200s --store /tmp/store --out /run/exchange/out"
    )
    slow = "".join(f"tc qdisc add dev {end} root tbf rate 4mbit burst 64k limit 4mb\n" for end in ("e2", "p2"))
    report = report_of(run_switch(tmp_path, f"{slow}{rdma} || echo code $?\n"), "out")
    (matrix,) = (m for m in report["matrices"] if m["metric"] == "verbs.write.bandwidth")
    assert matrix["ends"] == ["a/rxe0", "b/rxe1", "c/rxe2", "d/rxe3"]
    (told, *_) = [finding for finding in matrix["findings"] if "c/rxe2" in finding["ends"]]
    if told["kind"] == "nic":
        failed = [v["subject"] for v in report["verdicts"] if v["check"] == "verbs.bandwidth" and v["status"] == "FAIL"]
        assert {"kind": "nic", "id": "c/rxe2"} in failed
        assert "c" in report["gate"]["leave_out"]
    again = [m["subject"]["id"] for m in report["measurements"] if m["parameters"].get("again")]
    assert any("c/rxe2" in subject for subject in again), again
    tried = [m for m in report["measurements"] if m["metric"] == "verbs.write.bandwidth"]
    assert all(m["correct"] and m["parameters"]["roce"] == "v2" for m in tried)
    assert all(set(m["counters"]) <= set(matrix["ends"]) for m in tried)
    assert {m["parameters"]["posting"] for m in tried} == {"ibv_wr"}


def test_a_path_that_is_cut_in_mid_measurement_is_named(tmp_path: Path) -> None:
    """The switch's port of rxe2 goes down as soon as the first packets of its first pair have crossed it."""
    counters = "/sys/class/infiniband/rxe2/ports/1/hw_counters"
    cut = (
        "(sent=0 received=0\n"
        "while [ $((sent + received)) -lt 50 ]; do\n"
        f"sleep 0.1; read -r sent <{counters}/sent_pkts; read -r received <{counters}/rcvd_pkts\n"
        "done; ip link set p2 down) &\n"
    )
    rdma = (
        f"{RDMA} --kind bandwidth --direction one-way --sizes 64K --duration 3s"
        " --qp-timeout 17 --retries 2 --item-timeout 200s --store /tmp/store --out /run/exchange/out"
    )
    exchange = run_switch(tmp_path, f"{cut}{rdma} || echo code $?\n")
    report = report_of(exchange, "out")
    ours = [m for m in report["measurements"] if "c/rxe2" in m["subject"]["id"]]
    first, *later = [m for m in ours if "again" not in m["parameters"]]
    down = "c: the RDMA device rxe2:1 cannot be used: Network is down"
    assert first["status"] == "error", first
    assert first["counters"]["c/rxe2"]["net/carrier_down_count"] == 1, first
    assert all(m["samples"] == [] and down in m["reason"]["en"] for m in ours), ours
    assert len(later) == 2
    # Where the others scatter too much for the matrix to decide, it says that it may be c/rxe2: the reason names it.
    failed = [v for v in report["verdicts"] if v["check"] == "verbs.bandwidth" and v["status"] == "FAIL"]
    assert any("c/rxe2" in v["subject"]["id"] and down in v["detail"]["en"] for v in failed), failed
    assert any("c/rxe2" in finding["ends"] for m in report["matrices"] for finding in m["findings"])
    assert report["gate"]["exit_code"] == 1
    page = (exchange / "out" / "report.html").read_text()
    assert "c/rxe2" in page
    assert down in page


def test_loss_delay_a_small_mtu_and_a_cut_are_told(tmp_path: Path) -> None:
    told = run_program(tmp_path, 2, "disturbed")
    assert told["delayed"] > 0.15 > told["undelayed"]
    assert told["mtu"] == [1024, 1024]
    moved, wrong, signs = told["lossy"]
    assert (moved > 0, wrong) == (True, 0)
    assert any("are lost on the way" in sign for sign in signs), signs
    assert told["cut"] == [f"the RDMA device rxe{side}0:1 cannot be used: Network is down" for side in "ab"]
    assert told["cut after"] < 30


def test_what_goes_wrong_has_a_name(tmp_path: Path) -> None:
    told = run_program(tmp_path, 2, "troubles")
    assert told["no device"] == "the RDMA device mlx5_0 cannot be used: No such device"
    assert told["no port"] == "the RDMA device rxea0:7 cannot be used: No such device or address"
    assert told["no gid"] == "the RDMA device rxea0:1 gid cannot be used: Cannot assign requested address"
    assert re.fullmatch(r"127\.0\.0\.1:\d+ ended the connection in the middle of the run", told["peer left"])
    assert told["peer left after"] < 10
    assert re.fullmatch(r"127\.0\.0\.1:\d+ ended the connection in the middle of the run", told["peer killed"])
    assert -2.0 < told["peer killed after"] < 10
    assert told["disagree"].endswith("they differ in: direction")
    assert told["mtu"] == [1024, 1024]


def test_several_rdma_paths_deliver_every_byte_whatever_becomes_of_one(tmp_path: Path) -> None:
    script = f"cd {guest.ROOT}\n{rails.paths(4)}{sys.executable} -m tests.lab.rdma_paths_program\n"
    done = guest.run(["sh", "-c", script], tmp_path, modules=rails.MODULES, deadline=400)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for what, of in told.items():
        assert of["ended"] == ["None", "None"], (what, of)
        assert (of["complete"], of["wrong"]) == (1, 0), (what, of)
        assert all(of["delivered"]), (what, of)
        assert sum(of["delivered"]) == of["size"] <= sum(of["bytes"]), (what, of)

    def failed_with(what: str) -> set[int]:
        return {code for path, state, _cause, code in told[what]["events"] if (path, state) == (0, "failed")}

    # The port's own event, that of the other end, which saw its carrier go, or a request that could not leave: which
    # comes first is chance. As long as it is down, the port is asked in vain.
    assert failed_with("link down") & {errno.ENETDOWN, errno.ECONNRESET, errno.EIO}, told["link down"]
    assert [0, "failed", "refused", errno.ENETDOWN] in told["link down"]["events"]
    assert errno.ECANCELED in failed_with("error"), told["error"]
    assert errno.ECANCELED in failed_with("deleted"), told["deleted"]
    assert (told["deleted"]["code"], told["deleted"]["there"]) == (0, False)
    for what in ("two", "four"):
        assert not failed_with(what), (what, told[what])
