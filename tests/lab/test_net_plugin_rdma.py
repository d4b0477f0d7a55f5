"""NCCL's net plugin over the queue pairs of a real kernel: two paths of soft-RoCE, one cut and healed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.lab import guest, rails

pytestmark = pytest.mark.lab("guest")


def test_a_nic_whose_link_goes_is_not_seen_by_nccl(tmp_path: Path) -> None:
    program = f"{sys.executable} -m tests.lab.net_plugin_rdma_program"
    script = f"cd {guest.ROOT}\n{rails.paths(2)}{program}\n"
    done = guest.run(["sh", "-c", script], tmp_path, modules=rails.MODULES, deadline=400)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for one, side in zip(found["saw"], "ab", strict=True):
        assert (one["failed"], one["messages"], one["wrong"]) == (None, 48, 0), "\n".join(one["log"])
        paths = f"RDMA, paths by rxe{side}0:1 10.0.0.{1 + (side == 'b')}, rxe{side}1:1 10.0.1.{1 + (side == 'b')};"
        assert any(paths in line for line in one["log"]), "\n".join(one["log"])
        assert any(f"path rxe{side}1:1 > " in line and "failed" in line for line in one["log"])
    (told,) = found["told"]
    (first, *_) = told["comms"]
    assert first["transport"] == "rdma"
    assert [path["local_name"] for path in first["paths"]] == ["rxea0:1", "rxea1:1"]
    assert [path["remote_name"] for path in first["paths"]] == ["rxeb0:1", "rxeb1:1"]
