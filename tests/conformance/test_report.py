"""The report: its counts, its verdict, its JSON, and the file that it is written to."""

import json
import subprocess
import sys

import pytest
from made_up_reports import SAID, report, result

from xlm_mlm.conformance import report as reports
from xlm_mlm.conformance.report import read_report, report_format, write_report


def test_counts_keep_their_order_and_name_every_outcome():
    counts = report("absent", "broken", "passed", "broken").counts()
    assert list(counts.items()) == [
        ("passed", 1),
        ("broken", 2),
        ("could not run", 0),
        ("absent", 1),
    ]


@pytest.mark.parametrize(
    ("outcomes", "verdict", "conforms"),
    [
        ((), "No check ran", False),
        (("absent",), "No check ran; 1 absent", False),
        (("passed",), "The only check passed", True),
        (("passed",) * 3, "All 3 checks passed", True),
        (("passed", "passed", "absent"), "All 2 checks passed; 1 absent", True),
        (("broken",), "1 of 1 check broken", False),
        (("passed", "broken"), "1 of 2 checks broken", False),
        (("passed", "could not run"), "1 of 2 checks could not run", False),
        (
            ("passed", "broken", "broken", "could not run", "absent"),
            "2 of 4 checks broken, 1 could not run; 1 absent",
            False,
        ),
    ],
)
def test_verdict(outcomes, verdict, conforms):
    assert report(*outcomes).verdict() == verdict
    assert report(*outcomes).conforms() is conforms


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"outcome": "failed"}, "outcome is 'failed'"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": -1.0}, "seconds is -1.0"),
        ({"seconds": "1"}, "seconds is '1'"),
        ({"part": None}, "part is None"),
    ],
)
def test_refuses_a_result_that_makes_no_sense(changes, said):
    with pytest.raises(ValueError, match=said):
        result(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"date": "2026-11-24T16:52:45"}, "time zone"),
        ({"date": "yesterday"}, "yesterday"),
        ({"versions": {"torch": None}}, r"versions\['torch'\] is None"),
        ({"absent": {3: "x"}}, "a key of absent is 3"),
        ({"subject": "foo"}, "subject is 'foo'"),
        ({"results": ["passed"]}, "results holds 'passed'"),
    ],
)
def test_refuses_a_report_that_makes_no_sense(changes, said):
    with pytest.raises(ValueError, match=said):
        report(**changes)


def test_json_round_trip(tmp_path):
    written = report(
        results=[result("broken", message=SAID, part=SAID), result("absent", seconds=3)],
        subject={"name": SAID},
    )
    write_report(written, tmp_path / "r.json")
    assert read_report(tmp_path / "r.json") == written
    content = json.loads((tmp_path / "r.json").read_bytes().decode("ascii"))
    assert content["format"] == 1
    assert content["counts"] == {"passed": 0, "broken": 1, "could not run": 0, "absent": 1}


def _without(content, key):
    return {name: value for name, value in content.items() if name != key}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda c: [c], "its format is none"),
        (lambda c: {**c, "format": 2}, "its format is 2; this version reads format 1"),
        (lambda c: _without(c, "date"), r"the report lacks \['date'\]"),
        (lambda c: {**c, "mood": "good"}, r"unknown keys \['mood'\]"),
        (lambda c: {**c, "counts": {"passed": 9}}, "counts is {'passed': 9}, but its results"),
        (lambda c: {**c, "results": {}}, "results is {}; it must be a list"),
        (lambda c: {**c, "results": [_without(c["results"][0], "rule")]}, r"results\[0\] lacks"),
        (lambda c: {**c, "results": ["passed"]}, r"results\[0\] is 'passed'"),
        (lambda c: {**c, "absent": []}, r"absent is \[\]"),
    ],
)
def test_refuses_json_that_is_no_report(tmp_path, spoil, said):
    file = tmp_path / "r.json"
    file.write_text(json.dumps(spoil(json.loads(report("passed").to_json()))))
    with pytest.raises(ValueError, match=said) as caught:
        read_report(file)
    assert "r.json' is not a conformance report" in str(caught.value)


@pytest.mark.parametrize("content", [b"<html>", b"\xff\xfe", b""])
def test_refuses_a_file_that_is_no_json(tmp_path, content):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(ValueError, match="is not a conformance report"):
        read_report(tmp_path / "r.json")


def test_suffix_chooses_the_format(tmp_path):
    write_report(report("passed"), tmp_path / "new" / "folder" / "R.HTML")
    write_report(report("passed"), str(tmp_path / "R.Json"))
    assert (tmp_path / "new/folder/R.HTML").read_text("utf-8").startswith("<!doctype html>")
    assert read_report(tmp_path / "R.Json") == report("passed")


@pytest.mark.parametrize("name", ["report", "report.txt", "report.html.gz", ".html"])
def test_another_suffix_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in \.html .* or \.json"):
        report_format(name)
    with pytest.raises(ValueError, match=r"must end in \.html .* or \.json"):
        write_report(report("passed"), tmp_path / "new" / name)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "r.json"
    write_report(report("passed"), file)

    def full(source, target):
        raise OSError("No space left on device")

    monkeypatch.setattr(reports.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(report("broken"), file)
    assert read_report(file) == report("passed")
    assert list(tmp_path.iterdir()) == [file]


def test_a_report_is_as_readable_as_any_new_file(tmp_path):
    write_report(report("passed"), tmp_path / "r.json")
    (tmp_path / "other").write_text("")
    assert (tmp_path / "r.json").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_neither_torch_nor_the_host_is_imported():
    code = (
        "import sys; import xlm_mlm.conformance.report_page; "
        "print(sorted({'torch', 'hydra', 'omegaconf', 'lightning', 'xlm'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
