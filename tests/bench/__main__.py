"""``make bench``: our figures against their peers', with their spread and an A/A control. Never a timed test.

Ends with 0 whether or not the figures were reached, with 1 when something could not be measured.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.bench import arrivals, command, faults, machine, matrix, mpi, multipath, path_fault, rdma, records, tcp
from tests.bench.table import Row, as_markdown, as_text

ROWS: dict[str, Callable[[tcp.Progress], Iterator[Row]]] = {
    "tcp.bandwidth": tcp.bandwidth,
    "tcp.latency": tcp.latency,
    "mpi": mpi.sweep,
    "rdma.bandwidth.write": partial(rdma.bandwidth, "write"),
    "rdma.bandwidth.read": partial(rdma.bandwidth, "read"),
    "rdma.bandwidth.send": partial(rdma.bandwidth, "send"),
    "rdma.rate": rdma.rate,
    "rdma.latency": rdma.latency,
    "rdma.work": rdma.work,
    "help": command.help_text,
    "check": command.server_check,
    "recorded": command.recorded_check,
    "judge": command.judge,
    "faults": faults.found,
    "matrix.drawn": matrix.drawn,
    "matrix.named": matrix.named,
    "collective.records": records.cost,
    "arrivals.judged": arrivals.judged,
    "collective.named": arrivals.named,
    "path_fault.named": path_fault.named,
    "multipath.unequal": partial(multipath.steady, multipath.UNEQUAL),
    "multipath.ratio": partial(multipath.steady, (100.0, 200.0, 400.0)),
    "multipath.equal": partial(multipath.steady, (150.0,) * 4),
    "multipath.faults": multipath.faults,
    "multipath.loopback": multipath.loopback,
    "multipath.decision": multipath.decision,
    "multipath.stranded": multipath.stranded,
    "run": command.make_run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rows", default="", help=f"only these, or those that begin so: {', '.join(ROWS)}")
    parser.add_argument("--write", type=Path, help="also write the table as a Markdown page")
    args = parser.parse_args()
    wanted = [name for name in args.rows.split(",") if name]
    for name in wanted:
        if not any(row.startswith(name) for row in ROWS):
            parser.error(f"--rows: nothing begins with {name!r}; there are {', '.join(ROWS)}")
    started = time.time()
    rows: list[Row] = []
    broken = 0
    for name, measure in ROWS.items():
        if wanted and not name.startswith(tuple(wanted)):
            continue
        try:
            rows.extend(measure(progress))
        except Exception:
            traceback.print_exc()
            broken += 1
            rows.append(Row(name, "", "", None, note="could not be measured, see above"))
    facts = machine.facts()
    print("\n" + "\n".join(f"{key}: {value}" for key, value in facts.items()))
    print("\n" + as_text(rows) + f"\n\n{time.time() - started:.0f} s in all")
    if args.write:
        command = " ".join(filter(None, ["make bench", args.rows and f"ROWS={args.rows}", f"WRITE={args.write}"]))
        page = machine.page(facts, as_markdown(rows), time.time() - started, command)
        args.write.write_text(page, encoding="utf-8")
    return 1 if broken else 0


def progress(what: str, steps: int) -> Callable[[], None]:
    """Says how far a row has got: on a terminal in one line that changes, else once when it begins."""
    done = 0
    live = sys.stderr.isatty()
    print(f"\n{what} …" if live else f"{what} …", end="" if live else "\n", file=sys.stderr, flush=True)

    def tick() -> None:
        nonlocal done
        done += 1
        if live:
            print(f"\r{what} … {done}/{max(done, steps)}", end="", file=sys.stderr, flush=True)

    return tick


if __name__ == "__main__":
    sys.exit(main())
