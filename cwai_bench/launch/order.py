"""What was ordered: everything the keepers and ranks must know, and nothing that only the command line needs."""

from __future__ import annotations

import msgspec

from cwai_bench.model import RunHeader, Scalar
from cwai_bench.scripts import Script
from cwai_bench.text import Lang


class Order(msgspec.Struct, frozen=True):
    """``criteria`` and ``baseline`` are the texts of files, ``scripts`` hold those of the scripts: read where the
    command was typed (by rank 0 under the person's own mpirun), so that nodes need not share a file system.

    ``store`` and ``out`` are paths on the node that writes the report. ``formats`` are written beside report.json.
    """

    run_type: str
    command: list[str]
    store: str
    lang: Lang
    formats: list[str]
    out: str = ""
    criteria: str = ""
    criteria_name: str = ""
    baseline_node: str = ""
    baseline: str = ""
    allow_unknown: bool = False
    with_report: bool = False
    """Send the whole report back with the outcome, for who shows it on a terminal or as JSON."""
    settings: dict[str, Scalar] = {}
    scripts: list[Script] = []


class Peer(msgspec.Struct, frozen=True):
    """A keeper as others reach it. ``addresses`` are tried in order."""

    id: str
    node: str
    addresses: list[str]
    port: int


class Opening(msgspec.Struct, frozen=True):
    """What the ranks agreed on once MPI was up; each rank hands it to its keeper, the first one counts.

    ``roster`` is in order of preference for merging. ``secret`` is hex, of this run only.
    """

    header: RunHeader
    order: Order
    roster: list[Peer]
    secret: str


class Outcome(msgspec.Struct, frozen=True):
    """What the merging keeper made of the run. ``trouble`` is what could not be written, ready to be shown."""

    run_id: str
    exit_code: int
    status: str
    folder: str
    html: str
    summary: str
    leave_out: list[str]
    trouble: str = ""
    report: str = ""


class Front(msgspec.Struct, frozen=True):
    """The process that started mpirun, as ranks learn of it from the environment (CWAI_BENCH_FRONT)."""

    run_id: str
    secret: str
    peer: Peer
    progress: bool
