"""The device probes beside torch and CuPy, on a machine with an NVIDIA GPU::

    python3 tests/gpu/compare.py [--json FILE] [--rounds N] [--gpu N]

Copies and products, ours and theirs in turn in one process on one card, each timed by the GPU's own events; the median
of all rounds of each, and ours as a share of the better of theirs. ``A/A`` is ours against ours, every second round:
what the machine scatters by itself. Then what the search for corruption says of this card, which should be nothing.
Needs torch, and cwai_bench installed; CuPy is asked where it is there. Takes about a minute. Exit code 1 when a share
is below what is to be reached, or the card is found wrong.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from cwai_bench import native
from cwai_bench.probes.gpu import HOST_BYTES, PRECISIONS, libraries, rows

TO_REACH = 0.98
SIZES = (64 << 20, 1 << 30)
TIMED = 0.15
"""Seconds of one measurement."""

Timed = Callable[[], float]
Maker = Callable[[], Timed | None]
"""Makes what is timed; None where there is no such thing."""


class Row(NamedTuple):
    name: str
    unit: str
    ours: Timed
    others: dict[str, Maker]


# ---------------------------------------------------------------------------------------------- ours


def median(samples: Iterable[float]) -> float:
    return float(statistics.median([float(s) for s in samples]))


def ours_copy(gpu: int, size: int) -> float:
    """Bytes read and written, by the better of one and two streams, as the probe has it."""
    told = [native.gpu_copy(gpu=gpu, bytes=size, streams=streams, duration=TIMED) for streams in (1, 2)]
    return 2 * max(median(t.samples) for t in told)


def ours_host(gpu: int, way: str) -> float:
    return median(native.gpu_host_copy(gpu=gpu, direction=way, bytes=HOST_BYTES, duration=TIMED).samples)


def ours_gemm(gpu: int, precision: str, size: int) -> float:
    told = native.gpu_gemm(gpu=gpu, libraries=libraries(), precision=precision, size=size, duration=TIMED)
    return median(told.samples) if told.supported else 0.0


# ------------------------------------------------------------------------------------------- theirs


def of_torch(torch: Any, work: Callable[[], Any], amount: float) -> Timed:
    """``amount`` per second of ``work``, by the median of events around each call."""

    def timed() -> float:
        for _ in range(3):
            work()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        count = max(3, min(400, int(TIMED / max(start.elapsed_time(end) * 1e-3, 1e-6))))
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            work()
            event.record()
        torch.cuda.synchronize()
        return amount / median(a.elapsed_time(b) * 1e-3 for a, b in pairwise(events))

    return timed


def of_cupy(cupy: Any, torch: Any, work: Callable[[], Any], amount: float) -> Timed:
    """CuPy's work on the stream on which torch records its events."""

    def queued() -> None:
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            work()

    return of_torch(torch, queued, amount)


def torch_copy(torch: Any, size: int) -> Timed:
    a = torch.empty(size, dtype=torch.uint8, device="cuda").random_()
    b = torch.empty_like(a)
    return of_torch(torch, lambda: b.copy_(a), 2.0 * size)


def cupy_copy(cupy: Any, torch: Any, size: int) -> Timed:
    a = cupy.random.randint(0, 256, size, dtype=cupy.uint8)
    b = cupy.empty_like(a)
    return of_cupy(cupy, torch, lambda: cupy.copyto(b, a), 2.0 * size)


def torch_host(torch: Any, to_card: bool) -> Timed:
    host = torch.empty(HOST_BYTES, dtype=torch.uint8, pin_memory=True).random_()
    card = torch.empty(HOST_BYTES, dtype=torch.uint8, device="cuda").random_()
    source, target = (host, card) if to_card else (card, host)
    return of_torch(torch, lambda: target.copy_(source, non_blocking=True), float(HOST_BYTES))


def torch_gemm(torch: Any, precision: str, size: int) -> Timed | None:
    """The better of both layouts of the second factor."""
    amount = 2.0 * size**3
    if precision == "fp8":
        if not hasattr(torch, "_scaled_mm"):
            return None
        a = torch.randn(size, size, device="cuda").to(torch.float8_e4m3fn)
        b = torch.randn(size, size, device="cuda").to(torch.float8_e4m3fn).t()
        one = torch.tensor(1.0, device="cuda")
        scaled = partial(
            torch._scaled_mm, a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
        )
        return of_torch(torch, scaled, amount)
    names = {"fp64": "float64", "fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    kind = getattr(torch, names[precision])
    a, b = (torch.randn(size, size, device="cuda", dtype=kind) for _ in range(2))
    out = torch.empty(size, size, device="cuda", dtype=kind)
    both = [of_torch(torch, partial(torch.mm, a, right, out=out), amount) for right in (b, b.t())]

    def timed() -> float:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        return max(one() for one in both)

    return timed


def cupy_gemm(cupy: Any, torch: Any, precision: str, size: int) -> Timed | None:
    kind = {"fp64": "float64", "fp32": "float32", "fp16": "float16"}.get(precision)
    if kind is None:
        return None
    a, b = (cupy.random.standard_normal((size, size), dtype="float32").astype(kind) for _ in range(2))
    out = cupy.empty((size, size), dtype=kind)
    return of_cupy(cupy, torch, partial(cupy.matmul, a, b, out=out), 2.0 * size**3)


def all_rows(torch: Any, cupy: Any, gpu: native.Gpu) -> list[Row]:
    def others(by_torch: Maker, by_cupy: Maker) -> dict[str, Maker]:
        return {"torch": by_torch, "cupy": by_cupy} if cupy is not None else {"torch": by_torch}

    card = gpu.ordinal
    found = [
        Row(
            f"copy {size >> 20} MiB",
            "GB/s",
            partial(ours_copy, card, size),
            others(partial(torch_copy, torch, size), partial(cupy_copy, cupy, torch, size)),
        )
        for size in SIZES
    ]
    found += [
        Row("host to card", "GB/s", partial(ours_host, card, "there"), {"torch": partial(torch_host, torch, True)}),
        Row("card to host", "GB/s", partial(ours_host, card, "back"), {"torch": partial(torch_host, torch, False)}),
        Row("both ways, each", "GB/s", partial(ours_host, card, "both"), {}),
    ]
    for precision in PRECISIONS:
        size = rows(precision, gpu.capability)
        found.append(
            Row(
                f"gemm {precision} {size}",
                "TFLOP/s",
                partial(ours_gemm, card, precision, size),
                others(partial(torch_gemm, torch, precision, size), partial(cupy_gemm, cupy, torch, precision, size)),
            )
        )
    return found


# ------------------------------------------------------------------------------------------ together


def compared(row: Row, rounds: int) -> dict[str, Any]:
    scale = 1e9 if row.unit == "GB/s" else 1e12
    made: dict[str, Timed] = {"ours": row.ours}
    refused: dict[str, str] = {}
    for name, make in row.others.items():
        try:
            timed = make()
            if timed is not None:
                timed()
                made[name] = timed
        except Exception as e:  # whatever the other cannot do is said, and compared with the rest
            refused[name] = f"{type(e).__name__}: {e}"[:200]
    row.ours()
    told: dict[str, list[float]] = {name: [] for name in made}
    for number in range(rounds):
        for name in made if number % 2 == 0 else reversed(made):
            told[name].append(made[name]() / scale)
    medians = {name: median(values) for name, values in told.items()}
    best = max((value for name, value in medians.items() if name != "ours"), default=0.0)
    control = median(told["ours"][::2]) / median(told["ours"][1::2])
    share = medians["ours"] / best if best else None
    return {
        "unit": row.unit,
        "medians": medians,
        "rounds": told,
        "share": share,
        "control": control,
        "refused": refused,
    }


def checks(torch: Any, gpu: native.Gpu) -> dict[str, Any]:
    """What the checks of computing and of memory say, and how fast that of the memory is."""
    told: dict[str, Any] = {}
    for precision in PRECISIONS:
        found = native.gpu_compute(
            gpu=gpu.ordinal,
            libraries=libraries(),
            precision=precision,
            size=rows(precision, gpu.capability),
            duration=0.3,
        )
        told[precision] = {
            "supported": found.supported,
            "products": found.products,
            "wrong": found.wrong,
            "sampled": found.sampled,
            "beyond": found.beyond,
            "worst": found.worst,
        }
    torch.cuda.empty_cache()
    started = time.monotonic()
    memory = native.gpu_memory(gpu=gpu.ordinal)
    told["memory"] = {
        "bytes": memory.bytes,
        "passes": memory.passes,
        "wrong": memory.wrong,
        "slowest": memory.slowest,
        "seconds": time.monotonic() - started,
    }
    return told


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--gpu", type=int, default=0)
    args = parser.parse_args()
    import torch

    try:
        import cupy
    except ImportError:
        cupy = None
    started = time.monotonic()
    gpu = native.gpus()[args.gpu]
    torch.cuda.set_device(args.gpu)
    result: dict[str, Any] = {"gpu": gpu.name, "torch": torch.__version__, "cuda": torch.version.cuda, "rows": {}}
    print(f"{gpu.name}, compute capability {gpu.capability}; torch {torch.__version__}, CUDA {torch.version.cuda}")
    print(f"{'':20} {'':8} {'ours':>9} {'torch':>9} {'cupy':>9} {'share':>7} {'A/A':>7}", flush=True)
    short = []
    for row in all_rows(torch, cupy, gpu):
        told = result["rows"][row.name] = compared(row, args.rounds)
        medians, share = told["medians"], told["share"]
        cells = [f"{medians[who]:9.1f}" if who in medians else f"{'-':>9}" for who in ("ours", "torch", "cupy")]
        shown = "-" if share is None else f"{share:.3f}"
        print(f"{row.name:20} {row.unit:8} {' '.join(cells)} {shown:>7} {told['control']:7.3f}", flush=True)
        for who, why in told["refused"].items():
            print(f"    {who}: {why}")
        if share is not None and share < TO_REACH:
            short.append(row.name)
        torch.cuda.empty_cache()
        if cupy is not None:
            cupy.get_default_memory_pool().free_all_blocks()
    result["checks"] = checks(torch, gpu)
    for name, said in result["checks"].items():
        print(
            f"check {name}: "
            + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in said.items())
        )
    wrong = [name for name, said in result["checks"].items() if said["wrong"] or said.get("beyond")]
    result["seconds"] = time.monotonic() - started
    print(f"{result['seconds']:.0f} s; below {TO_REACH}: {', '.join(short) or 'none'}")
    print(f"found wrong: {', '.join(wrong) or 'none'}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    return 1 if short or wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
