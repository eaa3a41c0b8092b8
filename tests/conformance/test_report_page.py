"""The page: what a plugin says stays text, failures come first, and the colours can be read."""

import re
from importlib.resources import files

import pytest
from html_pages import Page
from made_up_reports import SAID, report, result

SHOWN = SAID.replace("\x1b", r"\x1b").replace("\x00", r"\x00")
SHOWN = SHOWN.replace("\ud800", r"\ud800").replace("\u202e", r"\u202e")


def test_what_a_plugin_says_stays_text():
    said = report(
        results=[
            result("broken", rule=SAID, area=SAID, says=SAID, host=SAID, part=SAID, message=SAID)
        ],
        subject={"name": SAID, SAID: SAID},
        versions={SAID: SAID},
        absent={SAID: SAID},
    )
    text = said.to_html()
    page = Page(text)
    plain = Page(report("broken", subject={"name": "a", "b": "c"}).to_html())
    assert page.balanced
    assert not page.open
    assert [e[0] for e in page.elements] == [e[0] for e in plain.elements]
    assert not page.all("script")
    assert page.texts("pre") == [SHOWN]
    assert page.texts("h1") == [SHOWN]
    for shown, tag in [(SHOWN, "dd"), (SHOWN, "dt"), (SHOWN, "h3"), (SHOWN, "p"), (SHOWN, "a")]:
        assert shown in page.texts(tag)
    assert text.encode("utf-8").decode("utf-8") == text


def test_the_page_needs_nothing_from_outside():
    page = Page(report("passed", "broken", "absent").to_html())
    assert not {"script", "link", "img", "iframe"} & {e[0] for e in page.elements}
    assert all(e[1]["href"].startswith("#") for e in page.all("a"))
    assert "url(" not in page.texts("style")[0]
    assert "@import" not in page.texts("style")[0]


def test_lines_of_a_message_are_kept():
    page = Page(report(results=[result("broken", message="\n  a\r\n\n\tb\n")]).to_html())
    assert page.texts("pre") == ["  a\n\n\tb"]


def test_failing_results_come_first_in_their_area():
    results = [
        result("passed", area="loss", rule="a"),
        result("absent", rule="b"),
        result("passed", rule="c"),
        result("could not run", rule="d"),
        result("broken", rule="e"),
        result("broken", area="loss", rule="f"),
    ]
    page = Page(report(results=results).to_html())
    assert page.texts("h3") == ["f", "a", "e", "d", "b", "c"]
    assert page.texts("h2")[-2:] == ["loss", "model"]
    folded = "".join(page.texts("details"))
    assert "passed" in folded
    assert not any(word in folded for word in ("broken", "could not run", "absent"))


def test_every_area_is_linked_and_counted():
    results = [result("broken", area="loss"), result("passed"), result("passed")]
    page = Page(report(results=results).to_html())
    targets = {e[1]["id"] for e in page.all("section") if "id" in e[1]}
    assert [(e[2], e[1]["href"][1:] in targets) for e in page.all("a")] == [
        ("loss", True),
        ("model", True),
    ]
    counts = page.texts("td")
    assert counts == ["0", "1", "0", "0", "2", "0", "0", "0", "2", "1", "0", "0"]


@pytest.mark.parametrize(
    ("outcomes", "choices"),
    [
        (("passed",), []),
        (("passed", "broken", "could not run"), ["all 3", "failing 2"]),
        (("passed", "broken", "absent"), ["all 3", "failing 1", "absent 1"]),
    ],
)
def test_filters_offer_what_there_is(outcomes, choices):
    page = Page(report(*outcomes).to_html())
    assert page.texts("label") == choices
    assert len(page.all("input", type="radio", name="show")) == len(choices)
    style = page.texts("style")[0]
    for button in page.all("input")[1:]:
        assert f"#{button[1]['id']}:checked" in style


def test_the_head_says_the_verdict_the_date_and_what_is_absent():
    page = Page(report("passed", "broken").to_html())
    assert page.texts("title") == ["foo: 1 of 2 checks broken"]
    assert page.all("time", datetime="2026-11-24T16:52:45+02:00")[0][2] == (
        "2026-11-24 16:52 UTC+02:00"
    )
    assert "generates from scratch" in page.texts("dd")
    assert "3.11.9" in page.texts("dd")


def test_a_report_without_results_or_names_has_a_page():
    page = Page(report(subject={}, versions={}, absent={}).to_html())
    assert page.balanced
    assert page.texts("h1") == ["unnamed"]
    assert "No check ran" in page.texts("title")[0]


def _luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_the_contrast_that_wcag_aa_asks_for():
    style = files("xlm_mlm.conformance").joinpath("report.html").read_text("utf-8")
    palettes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    ]
    assert len(palettes) == 2
    for palette in palettes:
        inks = set(palette) - {"page", "card", "code", "line"}
        assert {"ink", "quiet", "passed", "broken", "could-not-run", "absent"} <= inks
        for ink in inks:
            for ground in ("page", "card", "code"):
                low, high = sorted([_luminance(palette[ink]), _luminance(palette[ground])])
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)
