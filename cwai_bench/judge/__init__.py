"""The judge: facts and measurements against our rules, the person's criteria, a baseline and the peers.

A pure function from a Run to a Report: it opens no device and reads no file, so that old runs can be judged again.
"""

from __future__ import annotations

import msgspec

from cwai_bench.baseline import Baseline
from cwai_bench.config import Criteria
from cwai_bench.goodput import DEFAULTS
from cwai_bench.judge.alike import Alike
from cwai_bench.judge.facts import check_alike, check_facts
from cwai_bench.judge.found import info_of
from cwai_bench.judge.gate import day_of, expired, gate_of, suppress
from cwai_bench.judge.measured import probe_verdicts
from cwai_bench.judge.notes import environment_of, idle_criteria, privilege_note
from cwai_bench.judge.pairs import matrices_of
from cwai_bench.judge.paths import standings
from cwai_bench.judge.presence import NODES, RANKS, node_verdicts, rank_verdicts
from cwai_bench.model import Report, Run, Status, stats_of

_CHECK_KINDS = (Status.FAIL, Status.UNKNOWN, Status.WARN, Status.PASS, Status.SKIP, Status.NA)


def judge(
    run: Run,
    *,
    criteria: Criteria | None = None,
    baseline: str | Baseline | None = None,
    allow_unknown: bool = False,
) -> Report:
    """Judge a run. ``baseline``: the name of a node of the run, or a baseline from a file.

    Raises UsageError when ``baseline`` names no node of the run.
    """
    notes = idle_criteria(run, criteria)
    scripts = [criteria.scripts.get(s.info.id, s) if criteria is not None else s for s in run.plan.scripts]
    alike = Alike(run.facts, [n.name for n in run.nodes])
    verdicts = check_alike(alike, run.plan.checks, scripts=scripts, criteria=criteria, baseline=baseline)
    verdicts += node_verdicts(run)
    verdicts += rank_verdicts(run)
    paths = standings(run.measurements, DEFAULTS if criteria is None else criteria.paths)
    matrices = matrices_of(run, criteria)
    for spec in run.plan.probes:
        verdicts += probe_verdicts(run, spec, criteria, paths, matrices)
    today = day_of(run)
    suppressions = criteria.suppressions if criteria is not None else ()
    verdicts = suppress(verdicts, [s for s in suppressions if s.until >= today])
    infos = {id: info_of(id) for id in run.plan.checks} | {spec.info.id: spec.info for spec in run.plan.probes}
    infos |= {spec.info.id: spec.info for spec in scripts}
    infos |= {i.id: i for i in (NODES, RANKS) if any(v.check == i.id for v in verdicts)}
    interrupted = run.settings.get("interrupted", 0)
    environment, differing = environment_of(run, alike)
    return Report(
        run_id=run.run_id,
        run_type=run.run_type,
        status=run.status,
        command=run.command,
        version=run.version,
        started=run.started,
        finished=run.finished,
        utc_offset=run.utc_offset,
        world_size=run.world_size,
        nodes=run.nodes,
        baseline=baseline.node if isinstance(baseline, Baseline) else baseline,
        environment=environment,
        settings=run.settings,
        plan=run.plan,
        checks=list(infos.values()),
        verdicts=verdicts,
        measurements=[
            m if m.stats is not None else msgspec.structs.replace(m, stats=stats_of(m.samples))
            for m in run.measurements
        ],
        events=run.events,
        counts={status.value: sum(len(v.subjects) for v in verdicts if v.status is status) for status in _CHECK_KINDS},
        gate=gate_of(
            verdicts,
            infos,
            has_baseline=baseline is not None,
            interrupted=int(interrupted) if isinstance(interrupted, int | float) else 0,
            allow_unknown=allow_unknown,
        ),
        matrices=matrices,
        transfers=run.transfers,
        path_faults=run.path_faults,
        notes=notes + differing + privilege_note(verdicts) + expired(s for s in suppressions if s.until < today),
    )


__all__ = ["check_facts", "judge"]
