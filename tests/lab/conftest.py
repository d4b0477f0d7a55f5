"""Labs that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.nodes import Lab


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[Lab]:
    """Two nodes that are alike. For tests marked ``lab("sshd")``; two nodes cost under a second."""
    with Lab(tmp_path / "lab") as lab:
        yield lab
