"""GPUs against the other cards of their model, and beside their datasheets."""

from __future__ import annotations

from typing import Any

import pytest

from cwai_bench.config import parse_criteria
from cwai_bench.judge.gpus import DATASHEETS, datasheet_of, gpu_verdicts
from cwai_bench.model import Action, Measurement, Plan, Run, Status, Subject
from cwai_bench.probes import World, gpu
from cwai_bench.text import plain
from tests.unit.ranks import planned

WORLD = World(1, ("a",), False, gpus=(8,))


def figure(probe: str, where: str, *values: float, **changes: Any) -> Measurement:
    """One figure of a card; ``parameters`` beside the card's own."""
    given = {"metric": probe, "unit": "FLOP/s" if probe == "gpu.gemm" else "B/s", "card": "NVIDIA H200", **changes}
    parameters = {"card": given.pop("card"), "pci": "0000:1b:00.0", **given.pop("parameters", {})}
    return Measurement(
        subject=Subject("card", where),
        samples=list(values),
        parameters=parameters,
        started=0.0,
        duration=1.0,
        node=where.partition("/")[0],
        rank=0,
        spec=f"{probe}#0",
        **given,
    )


def judged(probe: str, *ms: Measurement, demanded: str = "") -> dict[str, Any]:
    (spec,), _ = planned(probe, WORLD)
    criteria = parse_criteria(f"[criteria]\n{demanded}\n", "c.toml", {probe: ""}, {probe}) if demanded else None
    plan = Plan([], [spec], [], 1.0)
    run = Run("r", "gpu", [], "1", 0.0, 1.0, 0, "complete", 1, plan, {}, {}, [], [], list(ms), [])
    return {v.subject.id: v for v in gpu_verdicts(run, spec, None if criteria is None else criteria.get(probe))}


def products(*values: float, precision: str = "bf16", node: str = "a") -> list[Measurement]:
    return [
        figure("gpu.gemm", f"{node}/gpu{i}", value, parameters={"precision": precision})
        for i, value in enumerate(values)
    ]


def test_cards_that_are_alike_pass_and_say_what_was_demanded() -> None:
    found = judged("gpu.gemm", *products(7e14, 7.1e14, 7.2e14))
    assert {v.status for v in found.values()} == {Status.PASS}
    one = found["a/gpu0"]
    assert one.observed == "bf16 700.0 TFLOP/s (71%)"
    assert one.expected is not None
    assert "at least 95% of the median of 2 other NVIDIA H200 (bf16 715.0 TFLOP/s)" in one.expected.en
    assert "ceiling: bf16 989.5 TFLOP/s (NVIDIA H200 datasheet, 2024)" in one.expected.en
    assert one.nodes == ["a"]


@pytest.mark.parametrize(
    ("share", "status"), [(0.96, Status.PASS), (0.94, Status.WARN), (0.91, Status.WARN), (0.89, Status.FAIL)]
)
def test_a_card_below_its_peers_is_named(share: float, status: Status) -> None:
    found = judged("gpu.gemm", *products(7e14, 7e14, share * 7e14, 7e14))
    assert found["a/gpu2"].status is status
    assert found["a/gpu2"].action is (Action.ISOLATE if status is Status.FAIL else Action.NONE)
    assert [v.status for id, v in found.items() if id != "a/gpu2"] == [Status.PASS] * 3
    if status is not Status.PASS:
        detail = found["a/gpu2"].detail
        assert detail is not None
        assert f"{share:.1%} of the median of 3 other NVIDIA H200" in detail.en
        assert "中位数" in detail.zh


def test_of_two_that_differ_nobody_is_accused() -> None:
    found = judged("gpu.gemm", *products(7e14, 5e14))
    assert {v.status for v in found.values()} == {Status.PASS}
    assert found["a/gpu1"].expected is not None
    assert "fewer than 2 other cards" in found["a/gpu1"].expected.en


def test_models_and_precisions_are_not_mixed() -> None:
    others = [
        figure("gpu.gemm", f"b/gpu{i}", 2.5e14, card="NVIDIA A100-SXM4-80GB", parameters={"precision": "bf16"})
        for i in range(3)
    ]
    found = judged("gpu.gemm", *products(7e14, 7e14, 7e14), *products(6e13, 6e13, 4e13, precision="fp64"), *others)
    assert found["b/gpu0"].status is Status.PASS
    assert found["a/gpu2"].status is Status.FAIL
    assert found["a/gpu2"].detail is not None
    assert found["a/gpu2"].detail.en.startswith("fp64 40.00 TFLOP/s (60%)")
    for text in (found["a/gpu2"].detail.en, found["a/gpu2"].observed, str(found["a/gpu2"].expected)):
        assert "bf16" not in text


def test_the_best_of_sizes_and_streams_is_what_a_card_can_do() -> None:
    ms = [
        figure("gpu.copy", f"a/gpu{i}", value, parameters={"bytes": size, "streams": 1})
        for i in range(3)
        for size, value in ((1 << 20, 1e12), (1 << 30, 4e12 + i))
    ]
    found = judged("gpu.copy", *ms)
    assert found["a/gpu0"].observed == "4000 GB/s (83%)"
    assert found["a/gpu0"].status is Status.PASS


def test_pairs_are_compared_with_the_same_pair_of_other_nodes_alone() -> None:
    def pair(node: str, which: str, value: float) -> Measurement:
        return figure("gpu.peer_copy", f"{node}/{which}", value, parameters={"direction": "one-way"})

    far = [pair(n, "gpu0→gpu4", 2e10) for n in "abc"]
    near = [pair(n, "gpu0→gpu1", 4e10) for n in "ab"] + [pair("c", "gpu0→gpu1", 3e10)]
    found = judged("gpu.peer_copy", *far, *near)
    assert found["a/gpu0→gpu4"].status is Status.PASS
    assert found["c/gpu0→gpu1"].status is Status.FAIL
    assert found["a/gpu0→gpu1"].status is Status.PASS


def test_wrong_data_fails_whatever_the_speed_and_says_where() -> None:
    bad = figure(
        "gpu.compute",
        "a/gpu1",
        143.0,
        metric="gpu.compute.products",
        unit="1",
        correct=False,
        reason=plain("product 143 differs"),
        parameters={"precision": "fp32", "row": 17, "column": 900, "bad_count": 1},
    )
    good = figure("gpu.compute", "a/gpu0", 200.0, metric="gpu.compute.products", unit="1", correct=True)
    found = judged("gpu.compute", good, bad)
    assert found["a/gpu0"].status is Status.PASS
    verdict = found["a/gpu1"]
    assert (verdict.status, verdict.reason_code, verdict.action) == (Status.FAIL, "wrong_data", Action.ISOLATE)
    assert verdict.detail is not None
    assert verdict.detail.en == "a/gpu1 (0000:1b:00.0) fp32: product 143 differs"
    assert verdict.observed == "fp32 [17, 900] ×1"


def test_memory_and_products_are_told_and_not_compared() -> None:
    ms = [
        figure(
            "gpu.compute",
            f"a/gpu{i}",
            rate,
            metric="gpu.compute.memory",
            correct=True,
            parameters={"tested_bytes": 128_000_000_000, "passes": 4},
        )
        for i, rate in enumerate((3e12, 3e12, 1e12))
    ]
    found = judged("gpu.compute", *ms)
    assert {v.status for v in found.values()} == {Status.PASS}
    assert found["a/gpu2"].observed == "128.0 GB ×4"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("error", "error", (Status.UNKNOWN, "error")),
        ("timeout", "", (Status.UNKNOWN, "timeout")),
        ("skip", "unsupported", (Status.SKIP, "unsupported")),
        ("ok", "", (Status.UNKNOWN, "error")),
    ],
)
def test_what_gave_no_figure_is_no_pass(status: str, code: str, expected: tuple[Status, str]) -> None:
    told = figure("gpu.gemm", "a/gpu0", status=status, reason_code=code, reason=plain("why"))
    verdict = judged("gpu.gemm", told)["a/gpu0"]
    assert (verdict.status, verdict.reason_code) == expected


def test_a_slow_card_fails_even_if_another_of_its_figures_is_missing() -> None:
    lost = figure("gpu.gemm", "a/gpu2", status="error", reason=plain("out of memory"), parameters={"precision": "fp8"})
    found = judged("gpu.gemm", *products(7e14, 7e14, 5e14), lost)
    assert found["a/gpu2"].status is Status.FAIL
    fine = judged("gpu.gemm", *products(7e14, 7e14, 7e14), lost)
    assert fine["a/gpu2"].status is Status.UNKNOWN
    skipped = figure("gpu.gemm", "a/gpu2", status="skip", reason=plain("no fp8"), parameters={"precision": "fp8"})
    passed = judged("gpu.gemm", *products(7e14, 7e14, 7e14), skipped)["a/gpu2"]
    assert passed.status is Status.PASS
    assert passed.detail is not None
    assert "no fp8" in passed.detail.en


def test_what_a_person_demands_takes_the_place_of_the_peers() -> None:
    ms = [*products(7e14, 7e14, 5e14), *products(6e13, 6e13, 6e13, precision="fp64")]
    demand = 'gpu.gemm = { min = "650 TFLOP/s", where.precision = "bf16" }'
    found = judged("gpu.gemm", *ms, demanded=demand)
    assert [v.status for v in found.values()] == [Status.PASS, Status.PASS, Status.FAIL]
    assert found["a/gpu2"].observed == "bf16 500.0 TFLOP/s"
    assert found["a/gpu0"].observed == "bf16 700.0 TFLOP/s (71%), fp64 60.00 TFLOP/s (90%)"
    assert "650 TFLOP/s" in str(found["a/gpu0"].expected)
    slow_is_allowed = judged("gpu.gemm", *ms, demanded='gpu.gemm.min = "50 TFLOP/s"')
    assert {v.status for v in slow_is_allowed.values()} == {Status.PASS}
    about_nothing = judged("gpu.gemm", *ms, demanded='gpu.gemm = { min = "1 TFLOP/s", where.precision = "fp8" }')
    assert {(v.status, v.reason_code) for v in about_nothing.values()} == {(Status.UNKNOWN, "not_comparable")}
    copies = [figure("gpu.copy", "a/gpu0", 4e12)]
    assert judged("gpu.copy", *copies, demanded='gpu.copy.min = "3.9 TB/s"')["a/gpu0"].status is Status.PASS
    assert judged("gpu.copy", *copies, demanded='gpu.copy.min = "4.1 TB/s"')["a/gpu0"].status is Status.FAIL


def test_nothing_measured_gives_no_verdict_here() -> None:
    assert judged("gpu.gemm") == {}


@pytest.mark.parametrize(
    ("card", "memory", "bf16"),
    [
        ("NVIDIA A100-SXM4-40GB", 1555e9, 312e12),
        ("NVIDIA A100-SXM4-80GB", 2039e9, 312e12),
        ("NVIDIA A800-SXM4-80GB", 2039e9, 312e12),
        ("NVIDIA H100 80GB HBM3", 3350e9, 989.5e12),
        ("NVIDIA H100 PCIe", 2000e9, 756.5e12),
        ("NVIDIA H800", 3350e9, 989.5e12),
        ("NVIDIA H200", 4800e9, 989.5e12),
        ("NVIDIA B200", 8000e9, 2250e12),
        ("NVIDIA L40S", 864e9, 362e12),
        ("NVIDIA A10", 600e9, 125e12),
    ],
)
def test_datasheets_by_the_name_that_the_driver_gives(card: str, memory: float, bf16: float) -> None:
    sheet = datasheet_of(card)
    assert sheet is not None
    assert (sheet.memory, sheet.products["bf16"]) == (memory, bf16)
    assert sheet.source


@pytest.mark.parametrize("card", ["NVIDIA A10G", "NVIDIA A100X", "NVIDIA GH200 480GB", "NVIDIA GB200", "", "Tesla T4"])
def test_a_card_that_is_not_in_the_table_has_no_ceiling(card: str) -> None:
    assert datasheet_of(card) is None
    found = judged("gpu.gemm", figure("gpu.gemm", "a/gpu0", 1e14, card=card, parameters={"precision": "bf16"}))
    assert found["a/gpu0"].observed == "bf16 100.0 TFLOP/s"


def test_no_datasheet_promises_more_of_a_wider_type() -> None:
    for sheet in DATASHEETS:
        told = [sheet.products[p] for p in gpu.PRECISIONS if p in sheet.products]
        assert told == sorted(told), sheet.name
        assert sheet.memory < told[-1]
