"""Whether others took CPU time from a measurement: figures taken meanwhile are marked, and judged as any others."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

from cwai_bench.text import Text

TASKS = Path("/proc/self/task")
STAT = Path("/proc/stat")
NOISY = 0.01
"""Share of the time. At one per cent the slowest hundredth of what was timed, which p99 tells of, may be none of the
network's or the library's doing."""
STEAL = 7
"""Of the fields of ``cpu`` in /proc/stat: time that the hypervisor gave to another machine (proc(5))."""


def _waited() -> float:
    """Seconds that the threads of this process were ready to run and did not: the second number of their schedstat
    (Documentation/scheduler/sched-stats.rst), in nanoseconds. 0 where the kernel does not count."""
    total = 0
    try:
        for task in TASKS.iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[1])
            except (OSError, ValueError, IndexError):  # it has ended, or this kernel does not count
                continue
    except OSError:
        return 0.0
    return total / 1e9


def _stolen() -> tuple[int, int]:
    """Ticks stolen from this machine, and all ticks, of all CPUs together."""
    try:
        ticks = [int(n) for n in STAT.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return (ticks[STEAL], sum(ticks)) if len(ticks) > STEAL else (0, 0)


class Watch:
    """Looks from when it is made until it is asked."""

    def __init__(self) -> None:
        self._waited = _waited()
        self._stolen = _stolen()
        self._since = monotonic()

    def seen(self) -> Text | None:
        """What disturbed this process since; None when it was not worth a word."""
        elapsed = monotonic() - self._since
        if elapsed <= 0:
            return None
        waited = min(max(_waited() - self._waited, 0.0) / elapsed, 1.0)
        stolen, ticks = (now - then for now, then in zip(_stolen(), self._stolen, strict=True))
        said = []
        if waited >= NOISY:
            words = Text("waited for a CPU {s:.0f} % of the time", "{s:.0f} % 的时间在等待 CPU")
            said.append(words.fill(s=waited * 100))
        if ticks > 0 and stolen / ticks >= NOISY:
            words = Text("{s:.0f} % of the CPU time was stolen", "{s:.0f} % 的 CPU 时间被宿主机占用")
            said.append(words.fill(s=stolen / ticks * 100))
        if not said:
            return None
        return Text(f"noisy: {', '.join(t.en for t in said)}", f"受干扰：{'，'.join(t.zh for t in said)}")
