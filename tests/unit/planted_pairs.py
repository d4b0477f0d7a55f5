"""Simulated clusters in whose pairs a fault is planted, and whether anybody could tell it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cwai_bench.matrix import Grid, named, retests, suspects
from cwai_bench.model import Finding

USUAL = 4.9e10
NOISE = 0.05


@dataclass(frozen=True)
class Fault:
    """``kind``: node, nic, out, in, link, way. ``slow``: the share that is missing, 1 when nothing comes through."""

    kind: str
    cells: NDArray[np.bool_]
    slow: float
    named: tuple[str, ...]

    def told(self, nics: int) -> tuple[str, str]:
        """Kind and direction of the finding that is right."""
        part = "node" if nics == 1 or self.kind == "node" else "nic"
        return {"link": ("path", ""), "way": ("path", "out"), "out": (part, "out"), "in": (part, "in")}.get(
            self.kind, (part, "")
        )


class Cluster:
    """``nodes`` of ``nics`` each, pairs of the same rail, every figure with normal ``noise``."""

    def __init__(self, seed: int, nodes: int, nics: int, noise: float = NOISE) -> None:
        self.noise = noise
        self.rng = np.random.default_rng(seed)
        self.nodes, self.nics = nodes, nics
        names = [f"node{i}" if nics == 1 else f"node{i}/mlx5_{k}" for i in range(nodes) for k in range(nics)]
        self.ends = tuple(names)
        at = np.arange(nodes * nics)
        self.node, rail = at // nics, at % nics
        self.met = (rail[:, None] == rail[None, :]) & (self.node[:, None] != self.node[None, :])
        self.faults: list[Fault] = []

    def plant(self, kind: str, slow: float, node: int) -> Fault:
        n = len(self.ends)
        rows, columns = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        end = node * self.nics + int(self.rng.integers(self.nics))
        cells = np.zeros((n, n), dtype=bool)
        ends: tuple[int, ...] = (end,)
        if kind == "node":
            ends = tuple(np.flatnonzero(self.node == node).tolist())
        if kind in ("node", "nic", "out", "in"):
            rows[list(ends)] = kind != "in"
            columns[list(ends)] = kind != "out"
            cells = rows[:, None] | columns[None, :]
        else:
            other = int(self.rng.choice(np.flatnonzero(self.met[end])))
            ends = (end, other)
            cells[end, other] = True
            cells[other, end] = kind == "link"
        fault = Fault(kind, cells, slow, tuple(sorted(self.ends[e] for e in ends)))
        self.faults.append(fault)
        return fault

    def look(self, cells: NDArray[np.bool_] | None = None) -> Grid:
        """Measure the pairs in ``cells``, or all."""
        cells = self.met if cells is None else cells
        value = USUAL * (1 + self.noise * self.rng.standard_normal(self.met.shape))
        failed = np.zeros_like(self.met)
        for fault in self.faults:
            value = np.where(fault.cells, value * (1 - fault.slow), value)
            failed |= fault.cells & cells & (fault.slow == 1)
        return Grid(self.ends, "verbs.write.bandwidth", "B/s", np.where(cells & ~failed, value, np.nan), failed)

    def found(self) -> list[Finding]:
        first = self.look()
        plan = retests(first, suspects(first))
        assert plan == retests(first, suspects(first))
        if not plan:
            return named(first)
        cells = np.zeros_like(self.met)
        cells[tuple(np.array(plan).T)] = True
        return named(first, self.look(cells))

    def identifiable(self, fault: Fault) -> bool:
        """Whether anybody could tell it from noise, by a rule that knows nothing of how it is found.

        ``k`` figures of the part against ``m`` others differ by ``slow``, in units of the error of that difference. Of
        as many parts as there are the luckiest differs by about ``sqrt(2 ln N)`` such units (the expected largest of N
        normal numbers); four more are asked for, so that a right answer is no luck either. And two others must be there
        to say that it is not them.
        """
        others = np.zeros_like(self.met)
        for f in self.faults:
            others |= f.cells if f is not fault else False
        k, m = int((fault.cells & self.met).sum()), int((self.met & ~others & ~fault.cells).sum())
        if fault.kind in ("link", "way") and (fault.cells & others).any():  # a link of a bad node
            return False
        if fault.slow == 1:
            return True
        parts = {"node": self.nodes, "nic": len(self.ends), "out": 2 * len(self.ends), "in": 2 * len(self.ends)}
        chances = parts.get(fault.kind, int(self.met.sum()))
        error = self.noise * math.sqrt(1 / k + 1 / max(1, m))
        return fault.slow / error >= math.sqrt(2 * math.log(2 * chances)) + 4


def size_of(seed: int, rng: np.random.Generator) -> tuple[int, int]:
    if seed % 100 == 0:
        return 512, 1
    if seed % 100 == 50:
        return 64, 8
    if seed % 4 == 1:
        return int(rng.integers(3, 9)), int(rng.choice([2, 4, 8]))
    return (int(rng.integers(3, 13)) if seed % 3 else int(rng.integers(13, 65))), 1


@dataclass(frozen=True)
class Outcome:
    """Of planted faults: how many are identifiable, how many of these are named right, in how many cases a healthy part
    is accused, and what went wrong."""

    could: int
    right: int
    blamed: int
    wrong: list[str]


def simulate(seeds: range, faults: int = 1) -> Outcome:
    could = right = blamed = 0
    wrong: list[str] = []
    for seed in seeds:
        rng = np.random.default_rng([seed, faults])
        nodes, nics = size_of(seed, rng)
        nodes = max(nodes, 4 * faults - 1)
        cluster = Cluster(seed, nodes, nics)
        where = rng.choice(nodes, size=faults, replace=False)
        for node in where:
            kinds = ["node", "link", "way", "out", "in"] + (["nic"] * 2 if nics > 1 else ["node"])
            slow = 1.0 if rng.random() < 0.2 else float(rng.uniform(0.15, 0.9))
            cluster.plant(str(rng.choice(kinds)), slow, int(node))
        findings = cluster.found()
        planted = {fault.named: fault for fault in cluster.faults}
        said = {tuple(sorted(f.ends)): (f.kind, f.direction) for f in findings if f.kind in ("node", "nic", "path")}
        case = f"seed {seed}: {nodes}x{nics}, {[(f.kind, round(f.slow, 2), f.named) for f in cluster.faults]}"
        told = f"{[(f.kind, f.ends, f.direction) for f in findings]}"
        if any(ends not in planted for ends in said):
            blamed += 1
            wrong.append(f"blamed {case}: {told}")
        for fault in cluster.faults:
            if cluster.identifiable(fault):
                could += 1
                if said.get(fault.named) == fault.told(nics):
                    right += 1
                else:
                    wrong.append(f"missed {case}: {told}")
    return Outcome(could, right, blamed, wrong)
