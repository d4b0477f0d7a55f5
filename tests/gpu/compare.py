"""The device probes beside torch and CuPy, on a machine with an NVIDIA GPU::

    python3 tests/gpu/compare.py [--json FILE] [--rounds N] [--gpu N]

Copies and products, ours and theirs in turn in one process on one card, each timed by the GPU's own events; the median
of all rounds of each, and ours as a share of the better of theirs. ``A/A`` is ours against ours, every second round: what
the machine scatters by itself. Then what the search for corruption says of this card, which should be nothing. Needs
torch, and cwai_bench installed; CuPy is asked where it is there. Takes about a minute. Exit code 1 when a share is below
what is to be reached, or the card is found wrong.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cwai_bench import native
from cwai_bench.probes.gpu import HOST_BYTES, PRECISIONS, libraries, rows

TO_REACH = 0.98
SIZES = (64 << 20, 1 << 30)
TIMED = 0.15
"""Seconds of one measurement."""

Timed = Callable[[], float]


def of_torch(torch: Any, work: Callable[[], None], amount: float) -> Timed:
    """``amount`` per second of ``work``, by the median of events around each call."""

    def timed() -> float:
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
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
        spans = [a.elapsed_time(b) * 1e-3 for a, b in zip(events, events[1:], strict=False)]
        return amount / statistics.median(spans)

    return timed


def ours_copy(gpu: int, size: int, streams: int) -> Timed:
    return lambda: 2 * median(native.gpu_copy(gpu=gpu, bytes=size, streams=streams, duration=TIMED).samples)


def ours_host(gpu: int, way: str) -> Timed:
    return lambda: median(native.gpu_host_copy(gpu=gpu, direction=way, bytes=HOST_BYTES, duration=TIMED).samples)


def ours_gemm(gpu: int, precision: str, size: int) -> Timed:
    def timed() -> float:
        told = native.gpu_gemm(gpu=gpu, libraries=libraries(), precision=precision, size=size, duration=TIMED)
        return median(told.samples) if told.supported else 0.0

    return timed


def median(samples: Any) -> float:
    return float(statistics.median([float(s) for s in samples]))


def torch_gemm(torch: Any, precision: str, size: int) -> Timed | None:
    amount = 2.0 * size**3
    kinds = {
        "fp64": torch.float64,
        "fp32": torch.float32,
        "tf32": torch.float32,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
    }
    if precision == "fp8":
        if not hasattr(torch, "_scaled_mm"):
            return None
        a = torch.randn(size, size, device="cuda").to(torch.float8_e4m3fn)
        b = torch.randn(size, size, device="cuda").to(torch.float8_e4m3fn).t()
        one = torch.tensor(1.0, device="cuda")

        def scaled() -> None:
            torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)

        return of_torch(torch, scaled, amount)
    a = torch.randn(size, size, device="cuda", dtype=kinds[precision])
    b = torch.randn(size, size, device="cuda", dtype=kinds[precision])
    out = torch.empty(size, size, device="cuda", dtype=kinds[precision])
    bt = b.t().contiguous().t()

    def plain(right: Any) -> Callable[[], None]:
        def work() -> None:
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            torch.mm(a, right, out=out)

        return work

    both = [of_torch(torch, plain(b), amount), of_torch(torch, plain(bt), amount)]
    return lambda: max(timed() for timed in both)


def cupy_gemm(cupy: Any, torch: Any, precision: str, size: int) -> Timed | None:
    kinds = {"fp64": "float64", "fp32": "float32", "fp16": "float16"}
    if precision not in kinds:
        return None
    a = cupy.random.standard_normal((size, size), dtype="float32").astype(kinds[precision])
    b = cupy.random.standard_normal((size, size), dtype="float32").astype(kinds[precision])
    out = cupy.empty((size, size), dtype=kinds[precision])
    return on_torch_stream(cupy, torch, lambda: cupy.matmul(a, b, out=out), 2.0 * size**3)


def on_torch_stream(cupy: Any, torch: Any, work: Callable[[], Any], amount: float) -> Timed:
    """CuPy's work on the stream on which torch records its events."""

    def queued() -> None:
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            work()

    return of_torch(torch, queued, amount)


def rivals(torch: Any, cupy: Any, gpu: native.Gpu) -> dict[str, tuple[str, Timed, dict[str, Callable[[], Timed | None]]]]:
    """By row: unit, ours, and who makes the others."""
    found: dict[str, tuple[str, Timed, dict[str, Callable[[], Timed | None]]]] = {}
    for size in SIZES:

        def torch_copy(size: int = size) -> Timed:
            a = torch.empty(size, dtype=torch.uint8, device="cuda").random_()
            b = torch.empty_like(a)
            return of_torch(torch, lambda: b.copy_(a), 2.0 * size)

        def cupy_copy(size: int = size) -> Timed:
            a = cupy.random.randint(0, 256, size, dtype=cupy.uint8)
            b = cupy.empty_like(a)
            return on_torch_stream(cupy, torch, lambda: cupy.copyto(b, a), 2.0 * size)

        one, two = ours_copy(gpu.ordinal, size, 1), ours_copy(gpu.ordinal, size, 2)
        others = {"torch": torch_copy, **({"cupy": cupy_copy} if cupy else {})}
        found[f"copy {size >> 20} MiB"] = ("GB/s", lambda one=one, two=two: max(one(), two()), others)  # type: ignore[misc]

    def to_card() -> Timed:
        a = torch.empty(HOST_BYTES, dtype=torch.uint8, pin_memory=True).random_()
        b = torch.empty(HOST_BYTES, dtype=torch.uint8, device="cuda")
        return of_torch(torch, lambda: b.copy_(a, non_blocking=True), float(HOST_BYTES))

    def to_host() -> Timed:
        a = torch.empty(HOST_BYTES, dtype=torch.uint8, device="cuda").random_()
        b = torch.empty(HOST_BYTES, dtype=torch.uint8, pin_memory=True)
        return of_torch(torch, lambda: b.copy_(a, non_blocking=True), float(HOST_BYTES))

    found["host to card"] = ("GB/s", ours_host(gpu.ordinal, "there"), {"torch": to_card})
    found["card to host"] = ("GB/s", ours_host(gpu.ordinal, "back"), {"torch": to_host})
    found["both ways, each"] = ("GB/s", ours_host(gpu.ordinal, "both"), {})
    for precision in PRECISIONS:
        size = rows(precision, gpu.capability)

        def of(precision: str = precision, size: int = size) -> Timed | None:
            return torch_gemm(torch, precision, size)

        def by(precision: str = precision, size: int = size) -> Timed | None:
            return cupy_gemm(cupy, torch, precision, size)

        others = {"torch": of, **({"cupy": by} if cupy else {})}
        found[f"gemm {precision} {size}"] = ("TFLOP/s", ours_gemm(gpu.ordinal, precision, size), others)
    return found


def compared(
    unit: str, ours: Timed, others: dict[str, Callable[[], Timed | None]], rounds: int
) -> dict[str, Any]:
    scale = 1e9 if unit == "GB/s" else 1e12
    made = {}
    refused: dict[str, str] = {}
    for name, make in others.items():
        try:
            timed = make()
            if timed is not None:
                timed()
                made[name] = timed
        except Exception as e:
            refused[name] = f"{type(e).__name__}: {e}"[:200]
    told: dict[str, list[float]] = {"ours": [], **{name: [] for name in made}}
    ours()
    for number in range(rounds):
        order = [("ours", ours), *made.items()]
        for name, timed in order if number % 2 == 0 else reversed(order):
            told[name].append(timed() / scale)
    medians = {name: statistics.median(values) for name, values in told.items()}
    best = max((value for name, value in medians.items() if name != "ours"), default=None)
    halves = statistics.median(told["ours"][::2]) / (statistics.median(told["ours"][1::2] or told["ours"]) or 1.0)
    share = None if not best else medians["ours"] / best
    return {"unit": unit, "medians": medians, "rounds": told, "share": share, "control": halves, "refused": refused}


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
    parser.add_argument("--json", type=Path)
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
    print(f"{gpu.name}, compute capability {gpu.capability}; torch {torch.__version__}, CUDA {torch.version.cuda}")
    result: dict[str, Any] = {"gpu": gpu.name, "torch": torch.__version__, "cuda": torch.version.cuda, "rows": {}}
    print(f"{'row':20} {'unit':8} {'ours':>9} {'torch':>9} {'cupy':>9} {'share':>7} {'A/A':>7}")
    short = []
    for name, (unit, ours, others) in rivals(torch, cupy, gpu).items():
        row = compared(unit, ours, others, args.rounds)
        result["rows"][name] = row
        cells = [f"{row['medians'][who]:9.1f}" if who in row["medians"] else f"{'-':>9}" for who in ("ours", "torch", "cupy")]
        share = "-" if row["share"] is None else f"{row['share']:.3f}"
        print(f"{name:20} {unit:8} {' '.join(cells)} {share:>7} {row['control']:7.3f}")
        for who, why in row["refused"].items():
            print(f"    {who}: {why}")
        if row["share"] is not None and row["share"] < TO_REACH:
            short.append(name)
        torch.cuda.empty_cache()
        if cupy is not None:
            cupy.get_default_memory_pool().free_all_blocks()
    result["checks"] = checks(torch, gpu)
    wrong = [name for name, told in result["checks"].items() if told["wrong"] or told.get("beyond")]
    for name, told in result["checks"].items():
        print(f"check {name}: " + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in told.items()))
    result["seconds"] = time.monotonic() - started
    print(f"{result['seconds']:.0f} s; below {TO_REACH}: {', '.join(short) or 'none'}; wrong: {', '.join(wrong) or 'none'}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    return 1 if short or wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
