"""The scripts of tests/mutation: they draw, try and report what they say they do."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "mutation"))

import mutant_report
import run_mutants
import written_mutants

WRITTEN = """
def _kind(value):
    return "kind"


def x_half__mutmut_orig(name, value):
    require_int("a name", value, 1)
    return value / 2


def x_half__mutmut_1(name, value):
    require_int("XXa nameXX", value, 1)
    return value / 2


def x_half__mutmut_2(name, value):
    require_int("a name", value, 2)
    return value / 2


def x_half__mutmut_3(name, value):
    require_int("a name", value, 1)
    return value * 2


class Rule:
    def xǁRuleǁgo__mutmut_orig(self, batch):
        return _field(batch, "ids", "the batch")

    def xǁRuleǁgo__mutmut_1(self, batch):
        return _field(batch, "XXidsXX", "the batch")

    def xǁRuleǁgo__mutmut_2(self, batch):
        return _field(batch, "ids", None)

    def xǁRuleǁgo__mutmut_3(self, batch):
        return _field(batch, "ids")
"""
CODES = {
    "x_half__mutmut_1": 0,
    "x_half__mutmut_2": 0,
    "x_half__mutmut_3": 1,
    "xǁRuleǁgo__mutmut_1": 33,
    "xǁRuleǁgo__mutmut_2": None,
    "xǁRuleǁgo__mutmut_3": 36,
}
PREFIX = "xlm_mlm.metrics_mlm."


@pytest.fixture
def found(tmp_path):
    """What mutmut leaves behind, made up."""
    folder = tmp_path / "mutants" / "xlm_mlm"
    folder.mkdir(parents=True)
    (folder / "metrics_mlm.py").write_text(WRITTEN)
    codes = ", ".join(
        f'"{PREFIX}{name}": {"null" if code is None else code}' for name, code in CODES.items()
    )
    (folder / "metrics_mlm.py.meta").write_text(f'{{"exit_code_by_key": {{{codes}}}}}')
    return written_mutants.read_mutants(tmp_path)


@pytest.fixture
def area(found):
    names = {"metrics": run_mutants.drawn(found, "metrics", None, 0)}
    (only,) = mutant_report.by_area(found, names, run_mutants.AREAS)
    return only


def test_mutants_are_read_with_what_they_change(found):
    assert [mutant.name for mutant in found] == [PREFIX + name for name in CODES]
    assert [mutant.exit_code for mutant in found] == list(CODES.values())
    assert [mutant.function for mutant in found] == ["half"] * 3 + ["Rule.go"] * 3
    assert found[2].file == "xlm_mlm/metrics_mlm.py"
    assert found[2].diff == ["- return value / 2", "+ return value * 2"]
    assert found[3].diff[1] == '+ return _field(batch, "XXidsXX", "the batch")'


def test_wording_is_the_text_of_a_message_alone(found):
    # A number beside the text, and a text that is a key, are none; nor is an argument taken away.
    assert [mutant.is_wording for mutant in found] == [True, False, False, False, True, False]


def test_mutmut_must_have_been_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder 'mutants'"):
        written_mutants.read_mutants(tmp_path)


def test_a_sample_is_the_seed_s_and_without_wording(found):
    everything = run_mutants.drawn(found, "metrics", None, 0)
    assert sorted(everything) == sorted(PREFIX + name for i, name in enumerate(CODES) if i % 4)
    draws = [tuple(run_mutants.drawn(found, "metrics", 2, seed)) for seed in range(20)]
    assert draws == [tuple(run_mutants.drawn(found, "metrics", 2, seed)) for seed in range(20)]
    assert len(set(draws)) > 1
    assert all(set(draw) < set(everything) and len(set(draw)) == 2 for draw in draws)
    assert everything[:2] == list(draws[0])
    assert run_mutants.drawn(found, "sampling", 2, 0) == []


def test_figures_of_an_area(area):
    assert (area.written, area.wording, len(area.tried)) == (4, 2, 4)
    assert area.killed == 2
    assert [mutant.exit_code for mutant in area.survivors] == [0, 33]


def test_survivors_are_listed_until_they_have_a_reason(area, tmp_path):
    table = mutant_report.markdown([area], {})
    assert "| metrics | 4 (and 2 of wording) | 4 | 2 (1) | 50.0% | 50% to 50% | 2 |" in table
    assert '    + require_int("a name", value, 2)' in table
    reasons = tmp_path / "reasons.toml"
    reasons.write_text(
        "[[survivor]]\nfile = 'xlm_mlm/metrics_mlm.py'\nfunction = 'half'\n"
        "becomes = 'require_int(\"a name\", value, 2)'\nwhy = 'it is never 1'\n"
    )
    left = mutant_report.unexplained(area, mutant_report.read_explained(reasons))
    assert [mutant.function for mutant in left] == ["Rule.go"]


def test_the_interval_is_wilson_s():
    # From the closed form, worked out by hand for 8 of 10: (0.8 + z²/20 ± ...) / (1 + z²/10).
    low, high = mutant_report.interval(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert mutant_report.interval(0, 0) == (0.0, 1.0)
    assert mutant_report.interval(50, 50)[1] == pytest.approx(1.0)


def test_reasons_are_of_functions_that_exist():
    for file, function, _ in mutant_report.read_explained(mutant_report.EXPLAINED):
        text = (run_mutants.ROOT / file).read_text()
        assert f"def {function.rpartition('.')[2]}(" in text, f"{file} has no {function}"


def test_mutants_whose_tests_could_not_be_run_are_no_result(found, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(run_mutants, "try_mutants", lambda folder, names: tried.extend(names))
    for name in (".meta", ""):
        source = tmp_path / "mutants" / "xlm_mlm" / f"metrics_mlm.py{name}"
        source.write_text(source.read_text().replace(": 33", ": 255"))
    with pytest.raises(RuntimeError, match="tests of 1 mutants could not be run, of .*go__mutm"):
        run_mutants.main(["--work", str(tmp_path), "--areas", "metrics"])
    assert tried == [f"{PREFIX}xǁRuleǁgo__mutmut_1"]


def test_what_is_written_about_the_results_agrees():
    readme = (mutant_report.EXPLAINED.parent / "README.md").read_text()
    kinds = r"(\d+) make no\s+difference.*?(\d+) make none on a CPU.*?(\d+) are words"
    counts = re.search(kinds, readme, re.DOTALL).groups()
    reasons = mutant_report.read_explained(mutant_report.EXPLAINED)
    assert sum(map(int, counts)) == len(reasons)
    page = (run_mutants.ROOT / "docs" / "testing.md").read_text()
    for area in run_mutants.AREAS:
        tried, killed, share = re.search(
            rf"\| {area} \| [^|]* \| (\d+) \| (\d+) \(\d+\) \| ([\d.]+)% ", readme
        ).groups()
        assert f"{int(killed) / int(tried):.1%}" == f"{share}%"
        low, high = mutant_report.interval(int(killed), int(tried))
        assert f"| {share}% | {low:.0%} to {high:.0%} |" in readme
    shares = re.findall(r"\(\d+\) \| ([\d.]+)% \|", readme)
    assert "| " + " | ".join(f"{float(share):.0f}%" for share in shares) + " |" in page


WEAK = "from tiny.half import half\n\n\ndef test():\n    assert half(4)\n"
TINY = {
    "tiny/__init__.py": "",
    "tiny/half.py": "def half(value):\n    return value / 2\n",
    "tests/test_half.py": WEAK,
    "pyproject.toml": '[tool.mutmut]\nsource_paths = ["tiny"]\n'
    'pytest_add_cli_args = ["-p", "no:cacheprovider"]\n',
}


@pytest.mark.slow
def test_mutmut_is_driven_on_a_commit(tmp_path, monkeypatch, capsys):
    """A fault that a weak test lets live is found once the test is better."""
    pytest.importorskip("mutmut")
    root = tmp_path / "root"
    for name, text in TINY.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git = [shutil.which("git"), "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "One"]):
        subprocess.run([*git, *arguments], check=True)
    (root / "tiny" / "half.py").write_text("what is not committed does not count")
    # What is installed takes pytest seconds to load, each time.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setitem(run_mutants.AREAS, "metrics", "tiny/")
    options = ["--root", str(root), "--work", str(tmp_path / "work"), "--areas", "metrics"]
    assert run_mutants.main([*options, "--sample", "1"]) == 1
    assert "| metrics | 2 (and 0 of wording) | 1 | 0 (0) | 0.0% |" in capsys.readouterr().out
    (root / "tests" / "test_half.py").write_text(WEAK.replace("half(4)", "half(4) == 2"))
    subprocess.run([*git, "commit", "-qm", "Two", "--", "tests"], check=True)
    assert run_mutants.main([*options, "--sample", "1", "--again"]) == 0
    assert "| metrics | 2 (and 0 of wording) | 1 | 1 (0) | 100.0% |" in capsys.readouterr().out
