"""The kit on the framework's existing families; needs xlm-models 0.3.1, which CI does not install.

pip install xlm-models==0.3.1 && pytest tests/test_families.py
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xlm_mlm.conformance.report import read_report

FAMILIES = {"mlm": "MLM", "mdlm": "MDLM", "arlm": "ARLM", "ilm": "ILM", "flexmdm": "FlexMDM"}

# What is known to be wrong with `mlm`, the rule that finds it, and what the message says.
DEFECTS = [
    ("positions=None", "model-optional-arguments", "without positions raises TypeError"),
    ("packed training on a CPU", "loss-scalar", "FlexAttention does not support backward"),
    ("confidence=entropy", "predictor-protocol", "NotImplementedError: Entropy"),
    ("max_steps=1 on masks alone", "predictor-max-steps", "max_steps=1 raises RuntimeError"),
    ("no generate", "predictor-generate", "gives None"),
    ("the loss overwrites target_ids", "loss-batch-unchanged", "target_ids changed"),
    ("one pass too many", "predictor-max-steps", "made 2 passes"),
    ("the mask is sampled", "predictor-no-mask", "masks (id 6) are left"),
    (
        "truncate=max caps nothing",
        "collators-over-long",
        "DefaultMLMCollator (experiment lm1b_mlm@",
    ),
    ("more masks than asked for", "collators-masks", "has 6 to 12 masks"),
    ("infilling masks padding", "collators-masks", "allow 2 and show the rest"),
    ("long prompts leave no target", "collators-over-long", "hold none of its own tokens"),
    ("autograd graphs in generation", "predictor-no-graph", "require grad"),
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("mdlm"), reason="needs xlm-models"),
]


@pytest.fixture(scope="module", params=FAMILIES)
def found(request, tmp_path_factory):
    """The family and the report of a run of the command."""
    work = tmp_path_factory.mktemp(request.param)
    kit = ("--pyargs", "xlm_mlm.conformance", "--xlm-package", request.param)
    adapter = ("--xlm-adapter", f"adapters.families:{FAMILIES[request.param]}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *kit, *adapter, "--xlm-report", "report.json"],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    return request.param, read_report(work / "report.json")


def test_it_reports_without_crashing(found):
    name, report = found
    assert report.subject["name"] == name
    assert len(report.results) > 50
    unexplained = [r for r in report.results if r.outcome != "passed" and not r.message]
    crashed = [r for r in report.results if "Traceback" in r.message]
    assert (unexplained, crashed) == ([], [])


def test_the_known_defects_are_found(found):
    name, report = found
    if name != "mlm":
        pytest.skip("the list is of mlm")
    broken = [(r.rule, r.message) for r in report.results if r.outcome == "broken"]
    lost = [
        what
        for what, rule, said in DEFECTS
        if not any(rule == name and said in message for name, message in broken)
    ]
    assert lost == []
