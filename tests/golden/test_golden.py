"""Every format of every sample report is as it was when somebody last looked at it.

``pytest tests/golden --update-golden`` writes what comes out now: read what changed before committing it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from cwai_bench import render
from cwai_bench.render.json import schema
from cwai_bench.text import LANGS, Lang
from tests.golden.sample_reports import SAMPLES

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "reports" / "report.schema.json"
EXPECTED = Path(__file__).parent / "expected"


def compare(path: Path, made: str, update: bool) -> None:
    if update:
        path.parent.mkdir(exist_ok=True)
        path.write_text(made, encoding="utf-8", newline="")
    assert path.exists(), f"{path.name} is missing: run with --update-golden, and look at it"
    with path.open(encoding="utf-8", newline="") as file:
        assert made == file.read()


def test_the_published_schema_is_that_of_the_code(update_golden: bool) -> None:
    compare(SCHEMA, schema().decode(), update_golden)


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_is_as_published(name: str, update_golden: bool) -> None:
    compare(
        ROOT / "reports" / "samples" / f"{name}.json", render.report_to_json(SAMPLES[name]()).decode(), update_golden
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_obeys_the_published_schema(name: str) -> None:
    published = json.loads(SCHEMA.read_bytes())
    jsonschema.Draft202012Validator.check_schema(published)
    saved = json.loads((ROOT / "reports" / "samples" / f"{name}.json").read_bytes())
    jsonschema.validate(saved, published)


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("format", [name for name in render.FORMATS if name != "json"])
@pytest.mark.parametrize("name", SAMPLES)
def test_format(name: str, format: str, lang: Lang, update_golden: bool) -> None:
    report = render.report_from_json((ROOT / "reports" / "samples" / f"{name}.json").read_bytes())
    made = render.render(report, format, lang)
    if format == "html":
        made = without_assets(made)
    compare(EXPECTED / f"{name}.{lang}{render.RENDERERS[format].suffix}", made, update_golden)


def without_assets(page: str) -> str:
    """The page less its style and script, which have files of their own, and their hashes."""
    page, styles = re.subn(r"(?s)<style>.*?</style>", "<style>…</style>", page)
    page, scripts = re.subn(r"(?s)<script>.*?</script>", "<script>…</script>", page)
    page, hashes = re.subn(r"sha256-[A-Za-z0-9+/=]+", "sha256-…", page)
    assert (styles, scripts, hashes) == (1, 1, 2)
    return page


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_format_shows_the_same_before_and_after_saving(name: str, color: bool) -> None:
    """Nothing that is shown may rest on the raw samples, which a saved report does not hold."""
    made = SAMPLES[name]()
    read = render.report_from_json(render.report_to_json(made))
    for format in render.FORMATS:
        assert render.render(made, format, "en") == render.render(read, format, "en"), format
    assert render.summary(made, "zh", width=80, color=color) == render.summary(read, "zh", width=80, color=color)
