"""All GPU probes on the stand-ins, small enough for a CPU: their measurements as JSON. The stand-ins' folder is in
LD_LIBRARY_PATH; what they do wrong is asked of them by the environment (their own files tell how)."""

from __future__ import annotations

import sys

import msgspec

from cwai_bench.model import Measurement
from cwai_bench.probes import World, gpu
from tests.unit.ranks import measured, planned

gpu.look = lambda: 2
gpu.ROWS, gpu.ROWS_FP64 = 64, 64
gpu.COPY_SIZES = (1 << 16, 1 << 20)
gpu.HOST_BYTES = gpu.PEER_BYTES = 1 << 18
gpu.MEMORY_SHARE = 1 / 1024
world = World(1, ("a",), False, gpus=(2,))
found: list[Measurement] = []
for probe in sys.argv[1:]:
    (spec,), _ = planned(probe, world, duration=0.01)
    found += measured(probe, ("a",), spec)
sys.stdout.write(msgspec.json.encode(found).decode())
