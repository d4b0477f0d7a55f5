"""A stand-in for the programs of hccl_test: prints as they do, from every rank, and exits with 0 whatever happened.

Beside it a test may plant trouble as files: ``wrong-RANK``, ``hang``, ``fail``; it leaves its words there (``words``).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
RANK = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", "0")))
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def main(*words: str) -> int:
    given = dict(zip(words[::2], words[1::2], strict=True))
    smallest, largest, factor = int(given["-b"]), int(given["-e"]), int(given["-f"])
    if RANK == 0:
        (HERE / "words").write_text(" ".join(words))
        print(
            f"the minbytes is {smallest}, maxbytes is {largest}, iters is {given['-n']}, warmup_iters is {given['-w']}",
            flush=True,
        )
        print("data_size(Bytes): | aveg_time(us): | alg_bandwidth(GB/s): | check_result:", flush=True)
    if (HERE / "fail").exists():
        print("This is an error in device_init.", flush=True)
        return 0
    size = smallest
    while size <= largest:
        if (HERE / "hang").exists() and size > smallest:
            time.sleep(120)
        micros = size / 1e5
        row = f"{size:<17} | {micros:<14.2f} | {size / micros / 1e3:<20.5f} | "
        wrong = (HERE / f"wrong-{RANK}").exists()
        if wrong:
            print(f"local rank_id {RANK}, check result failed, {row}failed", flush=True)
        if RANK == 0:
            print(row + ("NULL" if given["-c"] == "0" else "failed" if wrong else "success"), flush=True)
        size *= factor
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
