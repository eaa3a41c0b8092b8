"""Results and reports of the conformance kit, made up, and a text that no page may act on."""

from xlm_mlm.conformance.report import Report, Result

SAID = "<script>alert(1)</script> \"quoted\" 'so' </pre> & é 字 \x1b[31m \x00 \ud800 \u202e end"


def result(outcome="passed", **changes):
    row = {
        "rule": "model-padding",
        "area": "model",
        "says": "A padded row's logits equal those of the row alone.",
        "host": "xlm/harness.py, Harness",
        "part": "xlm_foo.model.FooModel",
        "message": "" if outcome == "passed" else "It is not so.",
        "seconds": 0.25,
    }
    return Result(**{**row, "outcome": outcome, **changes})


def report(*outcomes, **changes):
    row = {
        "subject": {"name": "foo", "kind": "plugin"},
        "versions": {"python": "3.11.9"},
        "date": "2026-11-24T16:52:45+02:00",
        "absent": {"prompt": "generates from scratch"},
        "results": [result(outcome) for outcome in outcomes],
    }
    return Report(**{**row, **changes})
