"""The GPU probes through the compiled module, on stand-ins of libcuda and cuBLASLt (tests/cpp)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from cwai_bench.model import Measurement

ROOT = Path(__file__).resolve().parents[2]
PROBES = ("gpu.copy", "gpu.host_copy", "gpu.peer_copy", "gpu.gemm", "gpu.compute")


def run(stand_ins: Path, *probes: str, **demanded: str) -> list[Measurement]:
    environment = {"LD_LIBRARY_PATH": str(stand_ins), "CWAI_FAKE_GPUS": "2", "PYTHONPATH": str(ROOT), **demanded}
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.gpu_program", *probes],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=list[Measurement])


def test_a_node_that_is_well(stand_ins: Path) -> None:
    found = run(stand_ins, *PROBES)
    assert {m.spec for m in found} == {f"{probe}#0" for probe in PROBES}
    assert {m.status for m in found} == {"ok"}, [m.reason for m in found if m.status != "ok"]
    assert all(m.samples and min(m.samples) > 0 for m in found)
    assert {m.subject.id for m in found if m.subject.id.count("→")} == {"a/gpu0→gpu1", "a/gpu1→gpu0"}
    assert {m.correct for m in found if m.metric != "gpu.gemm"} == {True}
    # The report says of what it comes.
    assert {m.parameters["library"] for m in found if m.metric == "gpu.gemm"} == {"cuBLASLt 12.3.4 (stand-in)"}
    assert {m.parameters["card"] for m in found} == {"Stand-in GPU"}


def test_one_wrong_bit_of_a_product_fails_its_card_alone(stand_ins: Path) -> None:
    found = run(stand_ins, "gpu.compute", CWAI_FAKE_CUBLASLT_WRONG="2", CWAI_FAKE_CUBLASLT_CARD="1")
    wrong = [m for m in found if m.correct is False]
    assert [(m.subject.id, m.metric, m.reason_code) for m in wrong] == [
        ("a/gpu1", "gpu.compute.products", "wrong_data")
    ] * 3
    assert (wrong[0].parameters["row"], wrong[0].parameters["column"]) == (32, 32)
    assert wrong[0].reason is not None
    assert "row 32, column 32" in wrong[0].reason.en


def test_memory_that_loses_a_bit_fails_its_card_alone(stand_ins: Path) -> None:
    found = run(stand_ins, "gpu.compute", CWAI_FAKE_GPU_LOSES=str(10 << 20))
    wrong = [m for m in found if m.correct is False]
    assert [(m.metric, m.parameters["first_bad_index"]) for m in wrong] == [("gpu.compute.memory", 10 << 20)]


def test_a_library_without_fp8_is_no_fault(stand_ins: Path) -> None:
    found = run(stand_ins, "gpu.gemm", CWAI_FAKE_CUBLASLT_OLD="1")
    told = {m.parameters["precision"]: m.status for m in found}
    assert told == {"fp64": "ok", "fp32": "ok", "tf32": "ok", "bf16": "ok", "fp16": "ok", "fp8": "skip"}


def test_a_driver_without_gpus_is_not_fine(stand_ins: Path) -> None:
    (told,) = run(stand_ins, "gpu.copy", CWAI_FAKE_GPUS="0")
    assert (told.status, told.subject.id) == ("error", "a")
