"""All pairs as a picture, as a table of the parts that they name, and as rows of a spreadsheet."""

from __future__ import annotations

import base64
import csv
import io
import re
import struct
import zlib
from itertools import permutations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from cwai_bench import render
from cwai_bench.model import Finding, Matrix, MatrixGap, MatrixPair, PairFigure, Report, Scalar
from cwai_bench.render import matrices, raster
from cwai_bench.render.measured import sections
from tests.unit.test_render_json import report

USUAL = 4.9e10


def matrix(ends: list[str], slow: int | None = None, dead: tuple[int, int] | None = None) -> Matrix:
    n = len(ends)
    values: list[list[float | None]] = [
        [
            None if i == j or (i, j) == dead else USUAL * (0.5 if slow in (i, j) else 1 + (i + j) % 7 / 100)
            for j in range(n)
        ]
        for i in range(n)
    ]
    findings = []
    if slow is not None:
        proof = [PairFigure(ends[slow], ends[slow - 1], USUAL / 2)]
        findings.append(
            Finding("nic", [ends[slow]], [ends[slow].partition("/")[0]], 8, 8, proof, observed=USUAL / 2, usual=USUAL)
        )
    if dead is not None:
        pair = [ends[dead[0]], ends[dead[1]]]
        findings.append(
            Finding("path", pair, pair, 1, 2, [PairFigure(pair[0], pair[1], None)], direction="out", usual=USUAL)
        )
    gaps = [MatrixGap(*dead, "timeout")] if dead is not None else []
    given: dict[str, Scalar] = {"bytes": 1 << 20, "streams": 4, "direction": "one-way"}
    return Matrix("v#0", "verbs.write.bandwidth", "B/s", given, ends, values, [], gaps, findings)


def ends_of(nodes: int, nics: int = 1) -> list[str]:
    return [f"node{i + 1}/mlx5_{k}" for i in range(nodes) for k in range(nics)]


def with_matrices(*found: Matrix) -> Report:
    return report(matrices=list(found))


def picture(svg: str) -> NDArray[np.uint8]:
    """The colours of the image in ``svg``: height, width, 3."""
    (data,) = re.findall(r'href="data:image/png;base64,([^"]+)"', svg)
    raw = base64.b64decode(data)
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(raw):
        (size,) = struct.unpack(">I", raw[at : at + 4])
        kind, body = raw[at + 4 : at + 8], raw[at + 8 : at + 8 + size]
        assert struct.unpack(">I", raw[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + body),)
        chunks[kind] = body
        at += size + 12
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, depth, color, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, color, rest) == (8, 3, [0, 0, 0])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), dtype=np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    palette = np.frombuffer(chunks[b"PLTE"], dtype=np.uint8).reshape(-1, 3)
    return palette[lines[:, 1:]]


BAD, DEAD, BLANK = (213, 94, 0), (0, 0, 0), (255, 255, 255)


def is_color(pixels: NDArray[np.uint8], color: tuple[int, int, int]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (pixels == np.array(color, dtype=np.uint8)).all(-1)
    return same


def test_few_ends_are_cells_with_their_numbers() -> None:
    (figure,) = matrices.drawn([matrix(ends_of(6), slow=2, dead=(4, 0))])
    assert figure.svg.count('class="heat') == 29
    assert figure.svg.count('class="heat bad"') == 10
    assert figure.svg.count('class="dead"') == 1
    assert "<title>node5/mlx5_0 → node1/mlx5_0: –</title>" in figure.svg
    assert "<image" not in figure.svg


def test_many_ends_are_an_image_of_one_pixel_for_each_pair() -> None:
    (figure,) = matrices.drawn([matrix(ends_of(40), slow=2, dead=(30, 10))])
    pixels = picture(figure.svg)
    assert pixels.shape == (40, 40, 3)
    bad = is_color(pixels, BAD)
    assert bad[2].sum() == bad[:, 2].sum() == 39
    assert bad.sum() == 78
    assert np.argwhere(is_color(pixels, DEAD)).tolist() == [[30, 10]]
    assert np.argwhere(is_color(pixels, BLANK)).tolist() == [[i, i] for i in range(40)]
    light = pixels[~bad & ~is_color(pixels, DEAD) & ~is_color(pixels, BLANK)].sum(-1)
    assert len(np.unique(light)) == 7  # as many as there are values
    assert light[0] > light.min()  # the larger, the darker
    assert "node3/mlx5_0: 196.0 Gb/s" in figure.svg
    assert "node31/mlx5_0 → node11/mlx5_0: –" in figure.svg
    assert figure.svg.count('class="ring"') == 1
    for words in ("no result", "无结果", "not measured", "未测量"):
        assert words in figure.svg
    assert "40 ends, 1560 pairs, 1 without a result" in figure.caption.en


def test_in_a_large_image_one_dead_pair_is_wider_than_a_pixel() -> None:
    ends = ends_of(800)
    (figure,) = matrices.drawn([matrix(ends, dead=(300, 100))])
    dead = np.argwhere(is_color(picture(figure.svg), DEAD))
    assert len(dead) == 25
    assert dead.mean(0).tolist() == [300, 100]


def test_rails_that_do_not_meet_are_blocks_of_their_own() -> None:
    ends = ends_of(20, 2)
    whole = matrix(ends)
    apart = [[v if (i - j) % 2 == 0 else None for j, v in enumerate(row)] for i, row in enumerate(whole.values)]
    (figure,) = matrices.drawn([msgspec.structs.replace(whole, values=apart)])
    blank = is_color(picture(figure.svg), BLANK)
    assert blank[:20, 20:].all()
    assert blank[20:, :20].all()
    assert not blank[0, 1]
    (figure,) = matrices.drawn([whole])
    assert is_color(picture(figure.svg), BLANK).sum() == 40


def test_one_picture_for_each_metric_that_of_most_findings() -> None:
    good, ill = matrix(ends_of(5)), matrix(ends_of(5), slow=1)
    large = msgspec.structs.replace(good, parameters={"bytes": 1 << 23})
    assert 'class="heat bad"' in "".join(f.svg for f in matrices.drawn([good, large, ill]))
    (figure,) = matrices.drawn([good, large])
    assert "8 MiB" in figure.caption.en
    pairs = [MatrixPair(i, (i + 1) % 64, USUAL) for i in range(64)]
    ring = msgspec.structs.replace(matrix(ends_of(64)), values=[], pairs=pairs)
    assert matrices.drawn([ring]) == []


def test_the_table_names_the_parts() -> None:
    (section,) = sections(with_matrices(matrix(ends_of(6), slow=2, dead=(4, 0))))
    (table,) = section.tables
    cells = [[c.value if isinstance(c.value, str) else c.value.zh for c in row.cells] for row in table.rows]
    assert cells == [
        ["node3/mlx5_0", "网卡", "verbs.write.bandwidth ×4", "1 MiB", "8/8", "196.0 Gb/s", "392.0 Gb/s"],
        ["node5/mlx5_0 → node1/mlx5_0", "路径", "verbs.write.bandwidth ×4", "1 MiB", "1/2", "–", "392.0 Gb/s"],
    ]
    for format in ("markdown", "html"):
        assert "196.0 Gb/s" in render.render(with_matrices(matrix(ends_of(6), slow=2)), format, "en")


def test_every_pair_is_a_row_of_the_spreadsheet() -> None:
    first, second = matrix(ends_of(3), dead=(0, 1)), matrix(["=a()", "b"])
    second = msgspec.structs.replace(second, expected=[[None, 5e10], [None, None]])
    made = render.render(with_matrices(first, second), "pairs", "en")
    rows = list(csv.DictReader(io.StringIO(made.removeprefix("\ufeff"))))
    assert len(rows) == 5 + 1 + 2
    assert {(r["source"], r["target"]) for r in rows[:6]} == set(permutations(ends_of(3), 2))
    assert [r["reason_code"] for r in rows if r["status"] == "error"] == ["timeout"]
    assert (rows[-2]["source"], rows[-2]["expected"], rows[-1]["expected"]) == ("'=a()", "50000000000.0", "")
    assert float(rows[-2]["value"]) == pytest.approx(USUAL * 1.01)


def test_the_image_survives_values_that_are_all_the_same_or_none() -> None:
    blank = np.full((40, 40), np.nan)
    no = np.zeros((40, 40), dtype=bool)
    for values in (blank, np.full((40, 40), 7.0)):
        svg = raster.picture(ends_of(40), values, no, no, [], str, [matrices._test(matrix(ends_of(3)))] * 4)
        assert picture(svg).shape == (40, 40, 3)


def test_hostile_ends_are_text_in_the_picture() -> None:
    ends = [f"<script>{i}</script>/\x1b[2J" for i in range(40)]
    page = render.render(with_matrices(matrix(ends, slow=3)), "html", "en")
    assert "<script>3" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page
