"""What is said of CPU time that others took while something was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from cwai_bench.probes import disturbance


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process of two threads that have waited 1 s each, on a machine of which 100 of 1000 ticks were stolen; ten
    seconds pass while it is watched."""
    for task in ("1", "2"):
        (tmp_path / "task" / task).mkdir(parents=True)
    monkeypatch.setattr(disturbance, "TASKS", tmp_path / "task")
    monkeypatch.setattr(disturbance, "STAT", tmp_path / "stat")
    now = iter([100.0, 110.0])
    monkeypatch.setattr(disturbance, "monotonic", lambda: next(now))
    put(tmp_path, waited=1.0, stolen=100, ticks=1000)
    return tmp_path


def put(kernel: Path, waited: float, stolen: int, ticks: int) -> None:
    for task in ("1", "2"):
        (kernel / "task" / task / "schedstat").write_text(f"5000000000 {int(waited * 1e9)} 77\n")
    (kernel / "stat").write_text(f"cpu  {ticks - stolen} 0 0 0 0 0 0 {stolen} 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")


@pytest.mark.parametrize(
    ("waited", "stolen", "said"),
    [
        (1.0, 100, None),
        (1.04, 100, None),  # 0.8 % of ten seconds
        (1.3, 100, "noisy: waited for a CPU 6 % of the time"),
        (1.0, 150, "noisy: 5 % of the CPU time was stolen"),
        (9.0, 150, "noisy: waited for a CPU 100 % of the time, 5 % of the CPU time was stolen"),
        (0.0, 50, None),  # a thread has ended, a counter began anew
    ],
)
def test_what_disturbed_is_told_from_one_per_cent_on(
    waited: float, stolen: int, said: str | None, kernel: Path
) -> None:
    watch = disturbance.Watch()
    put(kernel, waited, stolen, 2000)
    seen = watch.seen()
    assert (None if seen is None else seen.en) == said
    if seen is not None:
        assert seen.zh.startswith("受干扰：")


def test_a_kernel_that_does_not_count_is_no_noise(kernel: Path) -> None:
    for path in (kernel / "stat", *(kernel / "task").glob("*/schedstat")):
        path.unlink()
    assert disturbance.Watch().seen() is None


def test_this_process_can_be_watched() -> None:
    assert disturbance._waited() >= 0
    stolen, ticks = disturbance._stolen()
    assert 0 <= stolen < ticks
