"""The MPI sweep on two ranks, against a plain C loop with the same timed region; IMB-MPI1 is shown beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.mpi_job import OPERATIONS, SIZES
from tests.bench.pairs import Chain, Spread
from tests.bench.table import Row, missing
from tests.bench.tcp import Progress

PAIRS = 21
BIN = Path(sys.executable).parent
WANTED = "≤ 1.05 or +0.1 us"
IMB = {
    "all_reduce": "Allreduce",
    "all_gather": "Allgather",
    "reduce_scatter": "Reduce_scatter_block",
    "broadcast": "Bcast",
    "alltoall": "Alltoall",
    "reduce": "Reduce",
    "sendrecv": "Sendrecv",
}


def sweep(progress: Progress) -> Iterator[Row]:
    if not shutil.which("cc"):
        yield missing("MPI sweep", "apt-get install gcc", WANTED)
        return
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peer_mpi.so"
        source = Path(__file__).with_name("peer_mpi.c")
        subprocess.run([BIN / "mpicc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True, timeout=120)
        imb = _imb_times()
        command = _mpirun(sys.executable, "-m", "tests.bench.mpi_job", str(library), str(PAIRS))
        job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert job.stdout is not None
        for operation in OPERATIONS:
            tick = progress(f"MPI {operation}, 8 B to 4 MiB, 2 ranks", len(SIZES))
            points = []
            for line in (job.stdout.readline() for _ in SIZES):
                if not line:
                    raise RuntimeError(f"the ranks ended with {job.wait(timeout=60)}; see their message above")
                points.append(json.loads(line))
                tick()
            yield from _rows(operation, points, imb)
        if job.wait(timeout=60) != 0:
            raise RuntimeError(f"mpirun ended with {job.returncode}")


def _rows(operation: str, points: list[dict[str, object]], imb: dict[tuple[str, int], float]) -> Iterator[Row]:
    """A row for the operation, which shows its worst size, and one of detail for each size."""
    details = [_detail(operation, point, imb) for point in points]
    worst = max(details, key=lambda row: (row.reached is False, row.ratio.median if row.ratio else 0.0))
    medians = [row.ratio.median for row in details if row.ratio]
    note = (
        f"worst size: {worst.what.split(', ')[1]}; medians of all {len(details)}: {min(medians):.3f}–{max(medians):.3f}"
    )
    yield Row(
        f"MPI {operation}, 8 B to 4 MiB, 2 ranks",
        worst.ours,
        WANTED,
        all(row.reached for row in details),
        worst.peer,
        worst.ratio,
        worst.control,
        note,
    )
    yield from details


def _detail(operation: str, point: dict[str, object], imb: dict[tuple[str, int], float]) -> Row:
    chain = Chain(point["ours"], point["peer"])  # type: ignore[arg-type]
    size = int(str(point["bytes"]))
    ratio, difference = Spread.of(chain.ratios()), Spread.of(chain.differences())
    beside = imb.get((operation, size))
    return Row(
        f"MPI {operation}, {_bytes(size)}",
        f"{Spread.of(chain.ours).median * 1e6:.2f} us",
        WANTED,
        ratio.median <= 1.05 or difference.median <= 0.1e-6,
        f"C loop {Spread.of(chain.peer).median * 1e6:.2f} us",
        ratio,
        Spread.of(chain.controls()),
        f"{difference.median * 1e6:+.3f} us" + (f"; IMB-MPI1 {beside:.2f} us" if beside is not None else ""),
        detail=True,
    )


def _imb_times() -> dict[tuple[str, int], float]:
    """Mean microseconds by operation and size, as IMB-MPI1 gives them; empty where it is not installed.

    Its loop has no barrier before each operation, so it stands beside our figures and is not compared with them.
    """
    program = shutil.which("IMB-MPI1")
    if program is None:
        return {}
    options = ["-npmin", "2", "-msglog", "2:22", "-iter", "1000", "-time", "0.05"]
    done = subprocess.run(
        _mpirun(program, *options, *IMB.values()), capture_output=True, text=True, timeout=300, check=True
    )
    return parse_imb(done.stdout)


def parse_imb(text: str) -> dict[tuple[str, int], float]:
    """Its tables of 2 processes: (operation, bytes as nccl-tests counts them) to t_avg in microseconds."""
    names = {imb: ours for ours, imb in IMB.items()}
    times: dict[tuple[str, int], float] = {}
    operation = ""
    for line in text.splitlines():
        words = line.split()
        if line.startswith("# Benchmarking "):
            operation = names.get(words[2], "")
        elif operation and len(words) >= 5 and words[0].isdigit():
            # IMB counts what one rank sends to one other; for these two that is half of all, with two ranks.
            share = 2 if operation in ("all_gather", "alltoall") else 1
            times[operation, int(words[0]) * share] = float(words[4])
    return times


def _bytes(size: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def _mpirun(*command: str) -> list[str]:
    as_root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [str(BIN / "mpirun"), *as_root, "-np", "2", "--map-by", ":OVERSUBSCRIBE", *command]
