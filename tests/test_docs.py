"""The pages in `docs/`: what is generated is current, and links and commands lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest
from hypothesis import settings

from xlm_mlm.conformance.adapter import Adapter
from xlm_mlm.conformance.report import Report, Result

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_rules_and_capabilities_are_current(tables):
    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.between(page, "rules", tables.rules_table()) == page
    assert tables.between(page, "capabilities", tables.capabilities_table()) == page


def test_a_page_without_markers_is_refused(tables):
    with pytest.raises(ValueError, match="<!-- rules -->"):
        tables.between("no markers", "rules", "text")


def result(rule, outcome, message="", part="p"):
    return Result(rule, "a", "s.", "h", part, outcome, message, 0.0)


def test_the_worst_of_a_rule_is_shown_and_equal_findings_once(tables):
    first, second = list(tables.RULES)[:2]
    report = Report(
        subject={"name": "x", "distribution": "d", "version": "1"},
        versions={"python": "3.11", "platform": "somewhere"},
        date="2026-01-02T03:04:05+00:00",
        absent={},
        results=[
            result(first, "passed"),
            result(first, "broken", "p: a < b | c\nmore"),
            result(second, "broken", "q: a < b | c", part="q"),
        ],
    )
    text = tables.results_table([report])
    assert f"| `{first}` | **broken** |" in text
    assert f"- `{first}`, `{second}`: a &lt; b \\| c (2 checks)" in text
    assert "2026-01-02: x of d 1; with python 3.11." in text


def test_every_rule_has_a_row_of_results(tables):
    page = tables.PAGE.read_text(encoding="utf-8")
    results = page.partition("<!-- results -->")[2]
    for rule in tables.RULES:
        assert f"\n| `{rule}` | " in results, rule


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_tests_that_the_page_on_security_names_are_there():
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", page)
    assert len(named) > 20
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py")]
    for name in named:
        assert any(f"def {name}(" in source for source in sources), name


def test_the_adapter_s_attributes_are_described():
    text = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    for name in (name for name in vars(Adapter) if not name.startswith("_")):
        assert f"| `{name}" in text, name


def test_the_guide_quotes_the_example_as_it_is():
    guide = (ROOT / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")
    example = ROOT / "examples" / "leftmost_plugin"
    blocks = re.findall(r"```(?:toml|python|yaml)\n(.*?)```", guide, re.S)
    assert len(blocks) == 3
    files = [path.read_text() for path in example.rglob("*") if path.is_file() and path.suffix]
    for block in blocks:
        lines = [line for line in block.splitlines() if line.strip()]
        assert any(all(line in file for line in lines) for file in files), block


def test_the_properties_are_counted_and_the_profiles_as_described():
    text = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    files = sorted((ROOT / "tests" / "properties").glob("test_*.py"))
    counts = [(file.name, file.read_text().count("\n@given(")) for file in files]
    rows = "\n".join(f"| `{name}` | {count} |" for name, count in counts)
    assert f"|---|---|\n{rows}\n<!-- /counts -->" in text
    assert settings.get_profile("ci").max_examples == 200
    assert settings.get_profile("deep").max_examples == 5000
    assert "ci: 200 examples" in text
    assert "5,000 each" in text
