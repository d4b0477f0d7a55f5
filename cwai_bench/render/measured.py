"""Measurements as tables and pictures."""

from __future__ import annotations

from cwai_bench.model import Report
from cwai_bench.render.table import Section


def sections(report: Report) -> list[Section]:
    return []
