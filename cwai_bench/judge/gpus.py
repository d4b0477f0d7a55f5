"""What GPUs reached, against the other cards of their model in the run, and beside what their datasheets promise.

A card below its peers is named, for they do the same at the same time. What a datasheet says is a ceiling that no
program reaches (a product of bf16 comes to some 70 to 80 % of it, a copy to some 85 to 90 %), so it is shown and judges
nobody; so is a card without two others of its model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from cwai_bench.config import Criterion
from cwai_bench.goodput import DEFAULTS, Thresholds
from cwai_bench.judge.found import OBSERVED_LIMIT, joined
from cwai_bench.model import Action, Measurement, ProbeSpec, ReasonCode, Run, Status, Subject, Verdict, stats_of
from cwai_bench.render.units import gigabytes, number
from cwai_bench.text import Text, plain

PEERS = 2
"""Others of a model, at least, for a card to be held against them: of two that differ nobody knows which is right."""
LINES_SHOWN = 8

TERA, GIGA = 1e12, 1e9
GEN4, GEN5 = (lanes * rate * 1e9 / 8 * 128 / 130 for lanes, rate in ((16, 16), (16, 32)))
"""Bytes per second that 16 lanes carry each way (PCI Express Base Specification 4.0, 5.0: 16, 32 GT/s, 128/130)."""


class Datasheet(NamedTuple):
    """``memory`` in bytes per second, ``products`` in floating-point operations per second by precision, without
    sparsity; of fp64 by tensor cores where there are any. ``pcie`` each way. What it does not say is not there."""

    name: re.Pattern[str]
    memory: float
    products: dict[str, float]
    pcie: float
    source: str


def _products(fp64: float, fp32: float, tf32: float, bf16: float, fp8: float) -> dict[str, float]:
    """From TFLOP/s; 0: not told, or the card has none. fp16 is as fast as bf16."""
    given = {"fp64": fp64, "fp32": fp32, "tf32": tf32, "bf16": bf16, "fp16": bf16, "fp8": fp8}
    return {name: value * TERA for name, value in given.items() if value}


# Figures "with sparsity" of the datasheets are halved. The first name that matches counts.
DATASHEETS = tuple(
    Datasheet(re.compile(f"(?:NVIDIA )?{name}"), memory * GIGA, _products(*products), pcie, source)
    for name, memory, products, pcie, source in (
        (r"A100-SXM4-40GB", 1555, (19.5, 19.5, 156, 312, 0), GEN4, "NVIDIA A100 datasheet, 2021"),
        (r"A100-SXM4-80GB", 2039, (19.5, 19.5, 156, 312, 0), GEN4, "NVIDIA A100 datasheet, 2021"),
        (r"A100 80GB PCIe", 1935, (19.5, 19.5, 156, 312, 0), GEN4, "NVIDIA A100 datasheet, 2021"),
        (r"A100-PCIE-40GB", 1555, (19.5, 19.5, 156, 312, 0), GEN4, "NVIDIA A100 datasheet, 2021"),
        (r"A800-SXM4-80GB", 2039, (19.5, 19.5, 156, 312, 0), GEN4, "NVIDIA A800 datasheet, 2022"),
        (r"A800 80GB PCIe", 1935, (19.5, 19.5, 156, 312, 0), GEN4, "NVIDIA A800 datasheet, 2022"),
        (r"H100 80GB HBM3", 3350, (67, 67, 494.5, 989.5, 1979), GEN5, "NVIDIA H100 datasheet, 2023"),
        (r"H100 PCIe", 2000, (51, 51, 378, 756.5, 1513), GEN5, "NVIDIA H100 datasheet, 2023"),
        (r"H100 NVL", 3900, (60, 60, 417.5, 835.5, 1670.5), GEN5, "NVIDIA H100 datasheet, 2024"),
        (r"H800", 3350, (1, 67, 494.5, 989.5, 1979), GEN5, "NVIDIA H800 datasheet, 2023"),
        (r"H200 NVL", 4800, (60, 60, 417.5, 835.5, 1670.5), GEN5, "NVIDIA H200 datasheet, 2024"),
        (r"H200", 4800, (67, 67, 494.5, 989.5, 1979), GEN5, "NVIDIA H200 datasheet, 2024"),
        (r"B200", 8000, (37, 75, 1125, 2250, 4500), GEN5, "NVIDIA HGX B200 datasheet, 2025"),
        (r"L40S", 864, (0, 91.6, 183, 362, 733), GEN4, "NVIDIA L40S datasheet, 2023"),
        (r"A10", 600, (0, 31.2, 62.5, 125, 0), GEN4, "NVIDIA A10 datasheet, 2021"),
    )
)


def datasheet_of(card: str) -> Datasheet | None:
    """``card`` as the driver names it: ``NVIDIA H200``."""
    return next((sheet for sheet in DATASHEETS if sheet.name.fullmatch(card)), None)


class Line(NamedTuple):
    """What two cards have in common whose figures are compared. ``what`` is the precision, or the direction; ``place``
    a pair of cards within its node, for not all pairs are joined alike."""

    metric: str
    card: str
    what: str
    place: str


class Figure(NamedTuple):
    """The best of a subject on one line, in ``unit``: over sizes and streams, for that shows what it can do."""

    value: float
    unit: str


Figures = dict[tuple[Subject, Line], Figure]
_COMPARED = ("gpu.copy", "gpu.host_copy", "gpu.peer_copy", "gpu.gemm")


def figures(ms: Iterable[Measurement]) -> Figures:
    best: Figures = {}
    for m in ms:
        stats = m.stats or stats_of(m.samples)
        if m.metric not in _COMPARED or m.status != "ok" or m.correct is False or stats is None:
            continue
        what = str(m.parameters.get("precision") or m.parameters.get("direction") or "")
        place = m.subject.id.partition("/")[2] if "→" in m.subject.id else ""
        key = m.subject, Line(m.metric, str(m.parameters.get("card", "")), what, place)
        if key not in best or stats.p50 > best[key].value:
            best[key] = Figure(stats.p50, m.unit)
    return best


class Standing(NamedTuple):
    """A figure against its line: ``usual`` is the median of ``peers`` others, ``ceiling`` what the datasheet says; None
    where nobody is to be compared with, or nothing is known."""

    line: Line
    figure: Figure
    usual: float | None
    peers: int
    ceiling: float | None

    def status(self, thresholds: Thresholds) -> Status:
        if self.usual is None or self.figure.value >= thresholds.warn_below * self.usual:
            return Status.PASS
        return Status.FAIL if self.figure.value < thresholds.fail_below * self.usual else Status.WARN

    @property
    def observed(self) -> str:
        share = f" ({self.figure.value / self.ceiling:.0%})" if self.ceiling else ""
        return f"{self.line.what} {shown(self.figure)}{share}".strip()

    @property
    def words(self) -> Text:
        """Only of one that has peers."""
        assert self.usual is not None
        return Text(
            "{o}: {s:.1%} of the median of {n} other {c}, {u}", "{o}：为其他 {n} 张 {c} 中位数 {u} 的 {s:.1%}"
        ).fill(
            o=self.observed,
            s=self.figure.value / self.usual,
            n=self.peers,
            c=self.line.card,
            u=shown(Figure(self.usual, self.figure.unit)),
        )


def shown(figure: Figure) -> str:
    if figure.unit == "FLOP/s":
        return f"{number(figure.value / TERA)} TFLOP/s"
    return f"{gigabytes(figure.value)} GB/s" if figure.unit == "B/s" else number(figure.value)


def standings(found: Figures) -> dict[Subject, list[Standing]]:
    """Each figure against those of the other subjects on its line."""
    lines: dict[Line, list[tuple[Subject, float]]] = {}
    for (subject, line), figure in found.items():
        lines.setdefault(line, []).append((subject, figure.value))
    told: dict[Subject, list[Standing]] = {}
    for (subject, line), figure in found.items():
        others = [value for other, value in lines[line] if other != subject]
        usual = median(others) if len(others) >= PEERS else None
        told.setdefault(subject, []).append(Standing(line, figure, usual, len(others), _ceiling(line)))
    return told


def _ceiling(line: Line) -> float | None:
    sheet = datasheet_of(line.card)
    if sheet is None:
        return None
    if line.metric == "gpu.gemm":
        return sheet.products.get(line.what)
    return {"gpu.copy": sheet.memory, "gpu.host_copy": sheet.pcie}.get(line.metric)


def gpu_verdicts(
    run: Run, spec: ProbeSpec, criterion: Criterion | None = None, thresholds: Thresholds = DEFAULTS
) -> list[Verdict]:
    """One verdict for each card (or pair of cards, or node without one) that a probe of scope ``gpu`` told of; none
    where it told of nothing, which is for the caller to say. A ``criterion`` takes the place of the peers."""
    own = [m for m in run.measurements if m.spec == spec.id]
    told = standings(figures(own))
    by_subject: dict[Subject, list[Measurement]] = {}
    for m in own:
        by_subject.setdefault(m.subject, []).append(m)
    return [
        _verdict(spec, subject, ms, told.get(subject, []), criterion, thresholds) for subject, ms in by_subject.items()
    ]


class _Judged(NamedTuple):
    """``observed``: of that alone which is not as it should be; empty where all is."""

    status: Status
    detail: Text | None
    expected: Text | None
    observed: str = ""


def _verdict(
    spec: ProbeSpec,
    subject: Subject,
    ms: Sequence[Measurement],
    lines: Sequence[Standing],
    criterion: Criterion | None,
    thresholds: Thresholds,
) -> Verdict:
    def verdict(found: _Judged, code: ReasonCode = "") -> Verdict:
        return Verdict(
            spec.info.id,
            spec.info.kind,
            subject,
            list(dict.fromkeys(m.node for m in ms)),
            found.status,
            (found.observed or _observed(ms, lines))[:OBSERVED_LIMIT],
            found.expected,
            found.detail,
            code,
            spec.info.action if found.status is Status.FAIL else Action.NONE,
        )

    wrong = [m for m in ms if m.correct is False]
    if wrong:
        named, where = joined([_named(m) for m in wrong]), ", ".join(_bad_part(m) for m in wrong)
        return verdict(_Judged(Status.FAIL, named, None, where), "wrong_data")
    found = _beside_peers(lines, thresholds) if criterion is None else _held_against(criterion, ms)
    if found.status is Status.FAIL:
        return verdict(found)
    broken = [m for m in ms if m.status in ("error", "timeout", "aborted")]
    if broken:
        codes: dict[str, ReasonCode] = {"timeout": "timeout", "aborted": "aborted"}
        code = broken[0].reason_code or codes.get(broken[0].status, "error")
        return verdict(_Judged(Status.UNKNOWN, joined([_named(m) for m in broken]), None), code)
    skipped = [m for m in ms if m.status == "skip"]
    if not any(m.status == "ok" and m.samples for m in ms):
        if not skipped:
            return verdict(_Judged(Status.UNKNOWN, Text("it gave no samples", "没有采到样本"), None), "error")
        return verdict(_Judged(Status.SKIP, skipped[0].reason, None), skipped[0].reason_code or "unsupported")
    if found.status is Status.UNKNOWN:
        return verdict(found, "not_comparable")
    said = [text for text in (found.detail, *(m.reason for m in skipped)) if text is not None]
    return verdict(found._replace(detail=joined(said)))


def _beside_peers(lines: Sequence[Standing], thresholds: Thresholds) -> _Judged:
    below = sorted((s for s in lines if s.status(thresholds) is not Status.PASS), key=_share)
    if not below:
        return _Judged(Status.PASS, None, _expected(lines, thresholds))
    status = Status.FAIL if any(s.status(thresholds) is Status.FAIL for s in below) else Status.WARN
    observed = ", ".join(s.observed for s in below)
    return _Judged(status, joined([s.words for s in below]), _expected(below, thresholds), observed)


def _held_against(criterion: Criterion, ms: Sequence[Measurement]) -> _Judged:
    """By what a person demands: of every figure that it is about."""
    meant: list[tuple[Figure, str]] = []
    for m in ms:
        stats = m.stats or stats_of(m.samples)
        unit = "bit/s" if m.unit == "B/s" else m.unit
        if m.status == "ok" and stats is not None and criterion.fits(unit) and criterion.selects(m.parameters):
            meant.append((Figure(stats.p50, m.unit), _doing(m)))
    if not meant:
        none = Text("no measurement is what the criterion is about", "没有与判据相符的测量")
        return _Judged(Status.UNKNOWN, none, criterion.words())
    bad = [
        f"{doing} {shown(figure)}".strip()
        for figure, doing in meant
        if not criterion.holds(figure.value * (8 if figure.unit == "B/s" else 1))
    ]
    return _Judged(Status.FAIL if bad else Status.PASS, None, criterion.words(), ", ".join(bad))


def _share(standing: Standing) -> float:
    return standing.figure.value / standing.usual if standing.usual else 1.0


def _observed(ms: Sequence[Measurement], lines: Sequence[Standing]) -> str:
    parts = [s.observed for s in lines]
    for m in ms:
        if m.metric == "gpu.compute.products" and m.samples:
            parts.append(f"{m.parameters.get('precision')} ×{m.samples[0]:g}")
        if m.metric == "gpu.compute.memory" and m.samples:
            parts.append(
                f"{number(float(m.parameters.get('tested_bytes', 0)) / GIGA)} GB ×{m.parameters.get('passes')}"
            )
    return ", ".join(parts)


def _bad_part(m: Measurement) -> str:
    """Where the data was wrong, and in how many places, as its kind tells it: an element, a byte, a word."""
    given = m.parameters
    at = f"[{given['row']}, {given['column']}]" if "row" in given else f"@ {given.get('first_bad_index', '?')}"
    return f"{_doing(m) or m.metric} {at} ×{given.get('bad_count', '?')}"


def _expected(lines: Sequence[Standing], thresholds: Thresholds) -> Text | None:
    """What was demanded of a card, and its datasheet beside it."""
    parts: list[Text] = []
    if compared := [s for s in lines if s.usual is not None]:
        usual = ", ".join(
            f"{s.line.what} {shown(Figure(s.usual, s.figure.unit))}".strip()
            for s in compared[:LINES_SHOWN]
            if s.usual is not None
        )
        parts.append(
            Text(
                "at least {w:.0%} of the median of {n} other {c} ({u}), below {f:.0%} it fails",
                "不低于其他 {n} 张 {c} 中位数（{u}）的 {w:.0%}，低于 {f:.0%} 判为失败",
            ).fill(
                w=thresholds.warn_below,
                f=thresholds.fail_below,
                n=min(s.peers for s in compared),
                c=compared[0].line.card,
                u=usual,
            )
        )
    elif lines:
        parts.append(
            Text("fewer than {n} other cards of its model to compare with", "同型号的其他卡少于 {n} 张，无法比较").fill(
                n=PEERS
            )
        )
    bounds = [s for s in lines if s.ceiling is not None]
    if bounds and (sheet := datasheet_of(bounds[0].line.card)) is not None:
        told = ", ".join(
            f"{s.line.what} {shown(Figure(s.ceiling, s.figure.unit))}".strip()
            for s in bounds[:LINES_SHOWN]
            if s.ceiling is not None
        )
        source = "PCI Express 128/130" if bounds[0].line.metric == "gpu.host_copy" else sheet.source
        parts.append(Text("ceiling: {t} ({s})", "上限：{t}（{s}）").fill(t=told, s=source))
    return joined(parts) if parts else None


def _doing(m: Measurement) -> str:
    return " ".join(str(m.parameters[key]) for key in ("precision", "direction") if key in m.parameters)


def _named(m: Measurement) -> Text:
    """Which card, in doing what, and what of it."""
    pci = f"({m.parameters['pci']})" if "pci" in m.parameters else ""
    where = plain(" ".join(part for part in (m.subject.id, pci, _doing(m)) if part))
    said = m.reason or Text("the data was wrong", "数据有误")
    return Text("{w}: {s}", "{w}：{s}").fill(w=where, s=said)
