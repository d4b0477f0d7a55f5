"""The skipping itself: by name, with a reason, and never silently where ``CI`` is set."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).resolve().parent.parent / "conftest.py"
MARKERS = "[pytest]\nmarkers =\n  lab\n  mpi\n  browser\n  gpu\n  npu\n  rdma\n"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with our conftest in which one capability, ``npu``, is known to be absent and ``root`` present."""
    monkeypatch.delenv("CI", raising=False)
    ours = CONFTEST.read_text()
    pytester.makeconftest(
        ours + '\nCAPABILITIES["npu"] = lambda: "no card today"\nCAPABILITIES["lab"] = lambda: None\n'
    )
    pytester.makeini(MARKERS)
    return pytester


def test_what_is_missing_skips_with_its_reason(suite: pytest.Pytester) -> None:
    suite.makepyfile("import pytest\n@pytest.mark.lab('npu')\ndef test_it(): assert False")
    result = suite.runpytest("-ra")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*no card today"])


def test_a_present_capability_lets_the_test_run(suite: pytest.Pytester) -> None:
    suite.makepyfile("import pytest\n@pytest.mark.lab\ndef test_it(): pass")
    suite.runpytest().assert_outcomes(passed=1)


@pytest.mark.parametrize("marker", ["lab", "mpi", "browser"])
def test_in_ci_a_skipped_lab_test_fails_with_the_reason(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, marker: str
) -> None:
    monkeypatch.setenv("CI", "true")
    suite.makepyfile(f"import pytest\n@pytest.mark.{marker}('npu')\ndef test_it(): pass")
    result = suite.runpytest("-ra")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*skipped, which is a failure in CI: *no card today*"])


def test_in_ci_a_skip_from_within_the_test_fails_too(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    suite.makepyfile("import pytest\n@pytest.mark.lab\ndef test_it(): pytest.skip('gave up')")
    result = suite.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*failure in CI: gave up*"])


def test_in_ci_missing_hardware_may_skip(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    suite.makepyfile("import pytest\n@pytest.mark.npu\ndef test_it(): assert False")
    suite.runpytest().assert_outcomes(skipped=1)


def test_in_ci_an_expected_failure_is_no_skip(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    suite.makepyfile("import pytest\n@pytest.mark.lab\n@pytest.mark.xfail\ndef test_it(): assert False")
    suite.runpytest().assert_outcomes(xfailed=1)


def test_in_ci_a_lab_file_that_skips_itself_fails(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    folder = suite.mkdir("lab")
    (folder / "test_whole.py").write_text("import pytest\npytest.skip('not today', allow_module_level=True)")
    result = suite.runpytest()
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*skipped whole, which is a failure in CI*not today*"])


def test_an_unknown_capability_is_refused_before_anything_runs(suite: pytest.Pytester) -> None:
    suite.makepyfile("import pytest\n@pytest.mark.lab('moon')\ndef test_it(): pass")
    result = suite.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unknown capability 'moon'*"])
