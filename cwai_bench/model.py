"""The value types: what travels from one step to the next. Immutable, versioned, read strictly.

::

    Facts ──► Plan ──► Measurements, PairResults, Transfers, RankEvents ──► Run ──► Verdicts, Matrices ──► Report

SI units inside (seconds, bytes, bytes per second); pretty units are made where a person reads them. Times are
seconds since the epoch, UTC. Texts carry both languages, so a saved report can be shown in either.

Format history (SCHEMA_VERSION; a reader refuses a version that it does not know, see SCHEMA_READ):
  1  first
  2  a measurement may carry the counters of both ends, a journal ``pairs``, a report ``matrices``; without them it
     reads as before
  3  a journal and a report may have ``transfers`` over several paths and ``path_faults``
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Literal

import msgspec

from cwai_bench.text import Text

SCHEMA_VERSION = 3
SCHEMA_READ = (1, 2, 3)

Scalar = bool | int | float | str


class Status(str, Enum):
    """What became of an item.

    UNKNOWN: it should have been known and is not. SKIP: it does not apply here, or was not chosen.
    NA: listed, not judged.
    """

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"
    SKIP = "SKIP"
    NA = "NA"


class ItemKind(str, Enum):
    """node: one node, our rule. consistency: across nodes. configurable: the person's rule. script: the person's own
    program and rule. probe: a measurement."""

    NODE = "node"
    CONSISTENCY = "consistency"
    CONFIGURABLE = "configurable"
    SCRIPT = "script"
    PROBE = "probe"


class Severity(str, Enum):
    """How much it matters for training when the item is not as it should be."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"


class Action(str, Enum):
    """What to do about a node whose item failed."""

    NONE = "none"
    MONITOR = "monitor"
    FIX_CONFIG = "fix_config"
    RESET = "reset"
    REBOOT = "reboot"
    ISOLATE = "isolate"
    CONTACT_VENDOR = "contact_vendor"


ReasonCode = Literal[
    "",
    "absent",  # the hardware or feature is not here
    "not_selected",
    "no_criterion",
    "missing_source",  # a file that should be there is not
    "missing_tool",
    "permission",
    "timeout",
    "parse",
    "unsupported",
    "busy",
    "one_rank",
    "no_baseline",
    "baseline_lacks",
    "not_comparable",
    "node_lost",
    "rank_lost",
    "cause",  # another item failed, and this one follows from it
    "aborted",
    "wrong_data",
    "error",
]

SubjectKind = Literal["node", "card", "nic", "link", "rank", "group"]


class Subject(msgspec.Struct, frozen=True, gc=False):
    """What a measurement or a verdict is about. ``id`` as in ``node17``, ``node17/eth0``, ``node1→node2``."""

    kind: SubjectKind
    id: str


# ---------------------------------------------------------------------------------------------- facts

ReadStatus = Literal["ok", "missing", "denied", "timeout", "error"]


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """One source as it was found. ``source`` is a path under the root (``proc/meminfo``), ``$ CMD ARG`` for a
    command, ``call:NAME`` for a question put to the system, ``script:ITEM`` for a person's own script (standard output
    and error as one), ``log:LIBRARY:SPEC:RANK`` for what a library logged while it was measured. ``text`` is at most
    1 MiB; ``truncated`` says it was cut. ``exit_code`` -n: ended by signal n.
    """

    source: str
    status: ReadStatus
    text: str = ""
    detail: str = ""
    exit_code: int | None = None
    truncated: bool = False
    duration: float = 0.0


class Facts(msgspec.Struct, frozen=True):
    """All that was read from one node: raw, never judged. ``readings`` is keyed by source."""

    node: str
    taken: float
    privileged: bool
    recorded: bool
    readings: dict[str, Reading]
    schema: int = SCHEMA_VERSION


# ----------------------------------------------------------------------------------------------- plan


class CheckInfo(msgspec.Struct, frozen=True):
    """What an item is. It travels with the plan and the report, so that either explains itself."""

    id: str
    kind: ItemKind
    scope: str
    title: Text
    method: Text
    criterion: Text
    suggestion: Text
    severity: Severity
    action: Action
    needs: list[str]
    required: bool


class LeftOut(msgspec.Struct, frozen=True):
    """Something the plan does not do, and why."""

    what: str
    reason_code: ReasonCode
    reason: Text


class ProbeSpec(msgspec.Struct, frozen=True):
    """One probe to run. ``expected`` and ``deadline`` are seconds; at ``deadline`` it is given up.

    ``id`` is unique in the plan (``tcp.bandwidth#1``); ``probe`` and ``info.id`` name the probe (``tcp.bandwidth``).
    """

    id: str
    probe: str
    info: CheckInfo
    parameters: dict[str, Scalar]
    expected: float
    deadline: float


class ScriptSpec(msgspec.Struct, frozen=True):
    """A person's own script as an item: what is run where, and what its answer means. Its text is not part of it.

    ``file`` is as the person wrote it, ``digest`` the SHA-256 of what was in it, in hex. ``limit`` and ``expected`` are
    seconds, the latter 0 when nobody said. ``nodes`` is a node set, empty for all. ``exits``: exit code to verdict,
    ``other`` that of all the rest. ``output``: verdict and the pattern that tells of it in a line of the output.
    ``root``: it is not run without privilege. ``cwai_bench/scripts.py`` tells how one verdict is made of this.
    """

    info: CheckInfo
    file: str
    arguments: list[str]
    limit: float
    exits: list[tuple[int, Status]]
    other: Status = Status.FAIL
    output: list[tuple[Status, str]] = []
    nodes: str = ""
    expected: float = 0.0
    root: bool = False
    digest: str = ""


class Plan(msgspec.Struct, frozen=True):
    """What will be done, in order: ``checks`` (ids), then ``scripts``, then ``probes``; ``expected`` is seconds in all,
    without the scripts of which nobody said how long they take."""

    checks: list[str]
    probes: list[ProbeSpec]
    left_out: list[LeftOut]
    expected: float
    budget: float | None = None
    scripts: list[ScriptSpec] = []
    schema: int = SCHEMA_VERSION


# ---------------------------------------------------------------------------------------- measurement

MeasureStatus = Literal["ok", "skip", "error", "timeout", "aborted"]


class Stats(msgspec.Struct, frozen=True):
    """Derived from all samples of a measurement, in its unit. Percentiles are of the nearest rank."""

    count: int
    mean: float
    stdev: float
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float


class Measurement(msgspec.Struct, frozen=True, tag="measurement", tag_field="type"):
    """Raw samples of one metric on one subject.

    ``samples`` are in ``unit`` (``s``, ``B/s``, ``1``) and leave out the ``warmup`` first ones. ``correct`` is
    False when the data that arrived was wrong, None when it was not looked at. ``spec`` is the id of the ProbeSpec.
    ``counters``: of each port that took part, by how much those that tell of trouble moved meanwhile; None where that
    is not known (see ``port_counters.py``).
    """

    metric: str
    unit: str
    subject: Subject
    samples: list[float]
    parameters: dict[str, Scalar]
    started: float
    duration: float
    node: str
    rank: int
    spec: str = ""
    warmup: int = 0
    correct: bool | None = None
    status: MeasureStatus = "ok"
    reason_code: ReasonCode = ""
    reason: Text | None = None
    stats: Stats | None = None
    counters: dict[str, dict[str, int | None]] = {}


class PairResult(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One figure of one pair: the median of what was counted, in the unit of its record. None when there is none.

    ``source`` and ``target`` read in the direction of the bytes, each ``node`` or ``node/NIC``. ``expected``: what the
    pair should reach, in the same unit, where it is known and does not follow from the record's parameters.
    """

    source: str
    target: str
    value: float | None
    status: MeasureStatus = "ok"
    reason_code: ReasonCode = ""
    expected: float | None = None


class PairResults(msgspec.Struct, frozen=True, tag="pairs", tag_field="type", omit_defaults=True):
    """Pairs of one round, where a Measurement for each would be too much: a thousand NICs make a million pairs.

    ``parameters``: what all of them share (``bytes``, ``verb``, ``direction``, ``streams``). ``again``: they were
    suspect, and this is a second look.
    """

    spec: str
    metric: str
    unit: str
    parameters: dict[str, Scalar]
    pairs: list[PairResult]
    round: int = 0
    again: bool = False


def stats_of(samples: list[float]) -> Stats | None:
    """Summary of ``samples``, or None when there is none: nothing measured has no mean."""
    n = len(samples)
    if n == 0:
        return None
    ordered = sorted(samples)
    mean = math.fsum(ordered) / n
    variance = math.fsum((x - mean) ** 2 for x in ordered) / (n - 1) if n > 1 else 0.0

    def at(p: float) -> float:
        return ordered[max(0, math.ceil(p * n) - 1)]

    return Stats(
        count=n,
        mean=mean,
        stdev=math.sqrt(variance),
        min=ordered[0],
        p50=at(0.50),
        p90=at(0.90),
        p95=at(0.95),
        p99=at(0.99),
        p999=at(0.999),
        max=ordered[-1],
    )


# ------------------------------------------------------------------------------------- several paths

PathStatus = Literal["ok", "slow", "failed"]
PathPart = Literal["path", "nic", "node", "fabric"]
PathFindingKind = Literal["path", "nic", "node", "fabric", "configuration", "ambiguous", "flake"]


class PathProbe(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What became of a small transfer from one end (``node/NIC``) to another.

    ``entropy``: what sets its flow apart for the switches between (a source port, a queue pair's index). ``figure``:
    B/s, None when nothing came of it. ``code``: the status of its completion (``enum ibv_wc_status``), 0 where there is
    none.
    """

    source: str
    target: str
    entropy: int
    status: PathStatus
    figure: float | None = None
    code: int = 0


class PathProbes(msgspec.Struct, frozen=True, gc=False):
    """Probes to make from one end to another: ``repeats`` of each of ``entropies``."""

    source: str
    target: str
    entropies: list[int]
    repeats: int = 1


class PathTally(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A pair of ends as proof: how many probes of both directions, how many of them failed or were slow, over how many
    entropies, and how many of these had one that was bad. ``figure``: median in B/s of those that have one."""

    source: str
    target: str
    tried: int
    failed: int
    slow: int
    entropies: int
    bad_entropies: int
    figure: float | None = None
    codes: list[int] = []


class PathCandidate(msgspec.Struct, frozen=True, gc=False):
    """A part that may be meant, and the probability that it is bad. ``ends`` of a path are two, of a fabric those that
    reach one another badly."""

    kind: PathPart
    ends: list[str]
    probability: float


class Drain(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a scheduler can do about a finding: do without ``nics``, or without ``nodes`` altogether."""

    action: Action
    nics: list[str] = []
    nodes: list[str] = []


class PathFinding(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Where a path is broken, as far as hosts can tell.

    ``path``: between two ends only, which are fine with others. ``nic``: a NIC or all that only it uses: cable, port,
    uplink; from hosts these are one. ``node``: all of a node's NICs. ``fabric``: something that several nodes share;
    which link it is cannot be told from hosts. ``configuration``: refused by the protection of the other side, which no
    other path mends; ``ends`` are the pair. ``flake``: a port told of trouble, and all probes were fine.
    ``ambiguous``: one of ``candidates``, none of which is accused.

    ``confidence``: the posterior probability, see :mod:`cwai_bench.path_fault`. ``share``: of the probes that meet it,
    how many were bad; where it meets only some of the entropies, ``some_entropies``. ``proof``: pairs that are bad;
    ``fine``: those that say that it is not the others. ``signs``: what ports and counters told (``node1/mlx5_0
    port_down``).
    """

    kind: PathFindingKind
    ends: list[str]
    nodes: list[str]
    confidence: float
    drain: Drain
    share: float = 0.0
    some_entropies: bool = False
    bad: int = 0
    tried: int = 0
    proof: list[PathTally] = []
    fine: list[PathTally] = []
    signs: list[str] = []
    codes: list[int] = []
    candidates: list[PathCandidate] = []


PathState = Literal["healthy", "suspect", "failed", "probing", "probation"]


class PathChange(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A path of a transfer, by its number there, is in another state from ``at`` on (seconds after the first byte);
    of several connections, one of them (``connection``, from 0).

    ``cause``: connected, answered, delivered, stalled, silent, error, garbled, corrupt, refused. ``code``: errno, or 0.
    """

    at: float
    path: int
    state: PathState
    cause: str
    code: int = 0
    connection: int = 0


class PlantedTrouble(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A fault that was rehearsed on a path of a transfer, within the engine, from ``begin`` to ``end`` (seconds after
    the first byte): nothing leaves by it (``cut``), or no more than ``rate`` bytes per second (``slow``)."""

    path: int
    kind: Literal["cut", "slow"]
    begin: float
    end: float
    rate: float = 0.0


class TransferPath(msgspec.Struct, frozen=True, gc=False):
    """What one path of a transfer did, over so many ``connections`` from ``source`` to ``target`` (``node/NIC``).

    In bytes: what it ``delivered`` first, what another path had been given before (``again``), what was taken back from
    it (``lost``). ``timeline``: bytes that it delivered first, in each step of the transfer. ``connected``: by one
    connection at least, at the beginning; ``state``: at the end, of the connection that is best off.
    """

    source: str
    target: str
    connections: int
    delivered: int
    again: int
    lost: int
    failures: int
    state: PathState
    connected: bool
    timeline: list[int]


class Transfer(msgspec.Struct, frozen=True, tag="transfer", tag_field="type", omit_defaults=True):
    """A transfer of ``bytes`` over several paths at once, from one node to another, as its sending end saw it.

    ``scenario``: ``as_is``, or what was ``planted`` (``cut``, ``degraded``, ``flapping``). ``seconds`` until all was
    there, None when it never was: then ``ended`` says why. ``step``: seconds, of the timelines. ``recovered``: seconds
    until all was there that a path had lost, 0 when none had.
    """

    spec: str
    source: str
    target: str
    scenario: str
    policy: str
    repetition: int
    bytes: int
    started: float
    seconds: float | None
    delivered: int
    step: float
    paths: list[TransferPath]
    changes: list[PathChange] = []
    planted: list[PlantedTrouble] = []
    recovered: float = 0.0
    ended: Text | None = None


class PathFault(msgspec.Struct, frozen=True, tag="path_fault", tag_field="type", omit_defaults=True):
    """What small probes said after ``paths`` (``node/NIC→node/NIC``) of a transfer had failed or stayed bad; written
    the moment it is known. ``finding`` None: all probes were fine by then, or there was no time for any.

    ``probes``: how many were made. ``rehearsed``: the fault was planted, in the transfer and in the probes of its path.
    """

    spec: str
    time: float
    scenario: str
    paths: list[str]
    finding: PathFinding | None
    probes: int
    rehearsed: bool = False


# -------------------------------------------------------------------------------------------- journal

RankState = Literal[
    "started",
    "item_begin",
    "item_end",
    "signalled",  # it was told to stop: a victim
    "finished",
    "failed",  # our own error ended it
    "died",  # it ended without a word: the one to look at
    "stalled",  # stopped, or silent past its item's deadline: the one to look at
    "overdue",  # alive past its item's deadline: waits for another, or is slow
    "lost",  # its node stopped answering
]


class RunHeader(msgspec.Struct, frozen=True, tag="header", tag_field="type"):
    """First record of every journal file: who writes it, for which run."""

    run_id: str
    run_type: str
    node: str
    writer: str
    command: list[str]
    version: str
    started: float
    world_size: int
    utc_offset: int
    plan: Plan
    environment: dict[str, str]
    settings: dict[str, Scalar] = {}
    schema: int = SCHEMA_VERSION


class FactsRecord(msgspec.Struct, frozen=True, tag="facts", tag_field="type"):
    facts: Facts


class RankEvent(msgspec.Struct, frozen=True, tag="rank", tag_field="type"):
    """Something that happened to a rank. ``progress`` is where it was: item, phase, size, iteration."""

    rank: int
    node: str
    time: float
    state: RankState
    item: str = ""
    detail: Text | None = None
    signal: int = 0
    pid: int = 0
    progress: dict[str, Scalar] = {}


class NodeEnd(msgspec.Struct, frozen=True, tag="end", tag_field="type"):
    """Last record of a journal that was closed properly.

    ``lost``: why nothing came of ``node``, written by the process that waited for it; ``reason_code`` of that.
    """

    node: str
    time: float
    interrupted: int = 0
    lost: Text | None = None
    reason_code: ReasonCode = ""


Emitted = Measurement | PairResults | Transfer | PathFault
"""What a probe may tell."""
Record = RunHeader | FactsRecord | Emitted | RankEvent | NodeEnd


class NodeRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a node after the merge. ``present``: its journal was read. ``ranks``: those it carried.

    ``reason_code``: why its journal is not there, where that is known.
    """

    name: str
    ranks: list[int]
    present: bool
    complete: bool
    note: Text | None = None
    reason_code: ReasonCode = ""


RunStatus = Literal["running", "complete", "partial", "terminated", "error"]


class Run(msgspec.Struct, frozen=True):
    """All journals of a run, merged. Nothing in it is judged yet."""

    run_id: str
    run_type: str
    command: list[str]
    version: str
    started: float
    finished: float
    utc_offset: int
    status: RunStatus
    world_size: int
    plan: Plan
    environment: dict[str, str]
    settings: dict[str, Scalar]
    nodes: list[NodeRecord]
    facts: list[Facts]
    measurements: list[Measurement]
    events: list[RankEvent]
    pairs: list[PairResults] = []
    transfers: list[Transfer] = []
    path_faults: list[PathFault] = []
    schema: int = SCHEMA_VERSION


# --------------------------------------------------------------------------------------------- report


class Evidence(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What was read, as it was read (cut to 4 KiB). ``source`` as in Reading. ``nodes``: of which of a verdict's nodes;
    none when it is of all of them."""

    source: str
    text: str
    truncated: bool = False
    nodes: list[str] = []


class ValueGroup(msgspec.Struct, frozen=True, gc=False):
    """A value and the nodes that have it."""

    value: str
    nodes: list[str]
    is_baseline: bool = False


class Suppression(msgspec.Struct, frozen=True, gc=False):
    """Why a verdict does not count for the gate: who answers for it, and until which day (``2026-03-31``, included)."""

    owner: str
    reason: str
    until: str


class Verdict(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The judgement of one item on one subject, or on all the nodes for which it came out alike.

    ``nodes``: those that it is about, or that it blames; none when it is about the group as a whole. The id of a
    subject of kind ``node`` is their folded set (``node[1-8]``). ``expected``: where it is not the item's own
    criterion. What is ``suppressed`` stays as it is; only the gate passes it over.
    """

    check: str
    kind: ItemKind
    subject: Subject
    nodes: list[str]
    status: Status
    observed: str = ""
    expected: Text | None = None
    detail: Text | None = None
    reason_code: ReasonCode = ""
    action: Action = Action.NONE
    evidence: list[Evidence] = []
    groups: list[ValueGroup] = []
    hint: Text | None = None
    suppressed: Suppression | None = None

    @property
    def follows_from_loss(self) -> bool:
        """Not known because nothing came of the nodes at all, which a verdict on the nodes as such says once."""
        return self.reason_code == "node_lost" and self.kind is not ItemKind.PROBE

    @property
    def subjects(self) -> list[Subject]:
        """The subjects one by one."""
        return [Subject("node", n) for n in self.nodes] if self.subject.kind == "node" else [self.subject]


FindingKind = Literal["node", "nic", "path", "flake", "ambiguous"]


class PairFigure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A pair as proof: its value (None: tried, and nothing came of it), that of the second look, what was expected."""

    source: str
    target: str
    value: float | None
    again: float | None = None
    looked_again: bool = False
    expected: float | None = None


class Finding(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a matrix says of a part: which one is bad, and the pairs that say so.

    ``node``, ``nic``: it is bad with whomever it meets. ``path``: one pair is bad, both ends are fine with others.
    ``flake``: it was bad once, and fine when tried again. ``ambiguous``: the facts do not decide; ``ends`` are the
    candidates, none of which is accused; no ends: all pairs alike are below what was expected.

    ``ends``: the parts, as in the matrix. ``direction``: ``out`` or ``in`` when only what it sends or receives is bad,
    of a path ``out`` when only the way from the first end to the second is. ``bad`` of ``tried`` pairs (each direction
    counts) are bad; ``partners`` is how many others vouch for it. ``observed``: median of the bad pairs that have a
    value; ``usual``: median of the pairs that are fine. ``proof``: the worst of the bad pairs; ``fine``: pairs that say
    that it is not the others.
    """

    kind: FindingKind
    ends: list[str]
    nodes: list[str]
    bad: int
    tried: int
    proof: list[PairFigure]
    partners: int = 0
    direction: Literal["", "out", "in"] = ""
    observed: float | None = None
    expected: float | None = None
    usual: float | None = None
    fine: list[PairFigure] = []


class MatrixGap(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A pair that was tried and has no value: row, column, why."""

    row: int
    column: int
    reason_code: ReasonCode = "error"


class MatrixPair(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One pair of a matrix of few: row, column, its value, and what it should reach."""

    row: int
    column: int
    value: float
    expected: float | None = None


class Matrix(msgspec.Struct, frozen=True, gc=False):
    """One metric over all pairs: ``values[row][column]`` from end to end in the direction of the bytes, in ``unit``,
    with six digits; None where there is none, ``failed`` says of those that were tried why.

    Where less than one in sixteen of all pairs was tried (a ring), ``values`` is empty and ``pairs`` lists them.
    ``expected``: what the pairs should reach, one for all or one for each. ``spec`` is the id of the ProbeSpec.
    """

    spec: str
    metric: str
    unit: str
    parameters: dict[str, Scalar]
    ends: list[str]
    values: list[list[float | None]]
    pairs: list[MatrixPair]
    failed: list[MatrixGap]
    findings: list[Finding]
    expected: float | list[list[float | None]] | None = None


class Gate(msgspec.Struct, frozen=True):
    """The verdict of the whole run. ``because`` lists the reasons, worst first. ``leave_out``: nodes not to use."""

    status: Status
    exit_code: int
    because: list[Text]
    leave_out: list[str]


class Report(msgspec.Struct, frozen=True):
    """A judged run: all that any output format needs. ``environment`` is what all nodes share."""

    run_id: str
    run_type: str
    status: RunStatus
    command: list[str]
    version: str
    started: float
    finished: float
    utc_offset: int
    world_size: int
    nodes: list[NodeRecord]
    baseline: str | None
    environment: dict[str, str]
    settings: dict[str, Scalar]
    plan: Plan
    checks: list[CheckInfo]
    verdicts: list[Verdict]
    measurements: list[Measurement]
    events: list[RankEvent]
    counts: dict[str, int]
    gate: Gate
    notes: list[Text]
    matrices: list[Matrix] = []
    transfers: list[Transfer] = []
    path_faults: list[PathFault] = []
    schema: int = SCHEMA_VERSION
