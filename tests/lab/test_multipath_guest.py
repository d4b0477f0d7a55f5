"""``cwai-bench multipath`` over two RDMA paths of the guest, one of which is cut in the middle of a transfer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cwai_bench.probes.multipath import steps
from tests.lab import guest, rails

pytestmark = pytest.mark.lab("guest")

SEED = next(seed for seed in range(1, 100) if list(steps(seed, 0, 1, 2, ("pull",)))[-1].policy == "pull")
"""The transfer over both paths is the last one."""

MULTIPATH = (
    f"{sys.executable} -m cwai_bench multipath --transport verbs -np 2 --mpirun-option=--allow-run-as-root"
    " --as-node rxea0=a,rxea1=a,rxeb0=b,rxeb1=b --from a --to b --policy pull --repeat 1 --connections 2"
    f" --seed {SEED} --stall 2s --qp-timeout 18 --store /tmp/store"
)
"""Two ranks, two NICs that pass for those of each of two nodes. An emulated machine stands still at times."""

# Nothing goes from end to end within the kernel when its link is not there.
NO_WAY_AROUND = "ip route add unreachable 10.0.0.0/16 table 100\n"

# Once both paths carry data, for two looks in a row.
CUT = r"""
sent() { read -r packets <"/sys/class/infiniband/$1/ports/1/hw_counters/sent_pkts"; }
(first=0 second=0 seen=0
while [ $seen -lt 2 ]; do
  sleep 0.1
  sent rxea0; a=$packets; sent rxea1; b=$packets
  if [ $((a - first)) -gt 10 ] && [ $((b - second)) -gt 10 ]; then seen=$((seen + 1)); else seen=0; fi
  first=$a second=$b
done
ip link set a0 down) &
"""


def verdicts(report: Any) -> dict[str, Any]:
    return {v["subject"]["id"]: v for v in report["verdicts"] if v["check"] == "multipath.as_is"}


def test_an_rdma_path_that_is_cut_in_mid_transfer_is_survived_and_named(tmp_path: Path) -> None:
    command = f"{CUT}{MULTIPATH} --size 24M --out /run/exchange/out || echo code $?\n"
    script = rails.paths(2) + NO_WAY_AROUND + command
    done = guest.run(["sh", "-c", script], tmp_path, modules=rails.MODULES, deadline=580)
    assert done.returncode == 0, done.stderr
    (exchange,) = sorted(tmp_path.glob("boot*/exchange"))[-1:]
    report = json.loads((exchange / "out" / "report.json").read_text())

    alone = [m for m in report["measurements"] if m["parameters"]["policy"] == "alone" and m["status"] == "ok"]
    assert {m["subject"]["id"] for m in alone} == {"a/rxea0→b/rxeb0", "a/rxea1→b/rxeb1"}
    assert all(m["correct"] and m["parameters"]["transport"] == "verbs" for m in alone), alone

    assert report["gate"]["exit_code"] == 1, (report["gate"], done.stdout)
    assert "code 1\n" in done.stdout
    (together,) = [m for m in report["measurements"] if m["metric"] == "multipath.transfer"]
    assert (together["status"], together["correct"]) == ("ok", True), together
    found = verdicts(report)
    assert found["a→b"]["status"] in ("PASS", "WARN"), found
    # The other path may have failed as well: the emulated machine stands still at times.
    assert found["a/rxea0→b/rxeb0"]["status"] == "FAIL", found
    transfer = report["transfers"][-1]
    assert transfer["delivered"] == transfer["bytes"] == 24 << 20
    assert [path["connections"] for path in transfer["paths"]] == [2, 2]
    states = {path["source"]: path["state"] for path in transfer["paths"]}
    assert states["a/rxea0"] not in ("healthy", "probation")
    faults = [fault for fault in report["path_faults"] if "a/rxea0→b/rxeb0" in fault["paths"]]
    assert any({"a/rxea0", "b/rxeb0"} & set(fault["finding"]["ends"]) for fault in faults if fault["finding"]), report[
        "path_faults"
    ]
    page = (exchange / "out" / "report.html").read_text()
    assert "a/rxea0→b/rxeb0" in page
