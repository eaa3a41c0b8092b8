"""No file of the package calls what could run a stranger's code, but for a list with reasons."""

import ast
from pathlib import Path

import pytest

import xlm_mlm

ROOT = Path(xlm_mlm.__file__).parent

# What runs code or starts programs, or may; by name, or by what its arguments are not.
NAMES = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "subprocess", "ctypes"}
MODULES |= {"zipfile", "tarfile", "xml", "urllib", "requests", "socket", "http", "multiprocessing"}
ATTRIBUTES = {"system", "popen", "execv", "execve", "execvp", "spawnv", "startfile", "mktemp"}
ATTRIBUTES |= {
    "instantiate",
    "import_module",
    "get_method",
    "get_class",
    "unsafe_load",
    "full_load",
}
ALLOWED = {
    ("collation/empty.py", "pickle"): "an unpickler that finds no class",
    ("conformance/checks/collators.py", "pickle"): "the plugin's own collator, as workers get it",
    ("conformance/isolated.py", "pickle"): "names an error",
    ("conformance/isolated.py", "multiprocessing"): "a fork of the kit",
    ("conformance/process.py", "subprocess"): "starts `xlm`, whose plugin is tested",
    ("conformance/checks/discovery.py", "subprocess"): "starts this Python",
    ("commands/diagnosis/child.py", "subprocess"): "starts this Python",
    ("generation/job.py", "instantiate"): "the config that the user runs",
    ("conformance/wiring.py", "instantiate"): "the plugin that the user tests",
    ("conformance/checks/predictor.py", "instantiate"): "the plugin that the user tests",
    ("conformance/checks/loss.py", "instantiate"): "the plugin that the user tests",
    ("__init__.py", "import_module"): "a table of our own modules",
    ("plugin/interfaces.py", "import_module"): "a table of the host's modules",
    ("plugin/registry.py", "import_module"): "a job type that an installed package registers",
    ("rebuild.py", "import_module"): "after the list of classes, or --trust",
    ("conformance/adapter.py", "import_module"): "the adapter that the user names",
    ("conformance/scan.py", "import_module"): "the plugin that the user tests",
}


def dangers(tree):
    """What a file does that could harm, by the names above, or as calls without a safe argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.Attribute):
            # `model.eval` and `re.compile` are no built-in functions.
            yield node.attr if node.attr in ATTRIBUTES else ""
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Call):
            yield from unsafe_call(node)


def unsafe_call(call):
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only"
    if name in ("np.load", "numpy.load"):
        yield "numpy.load"
    if given.get("shell", "False") != "False":
        yield "a shell"
    if given.get("trust_remote_code", "False") != "False":
        yield "trust_remote_code"
    if name in ("yaml.load", "yaml.load_all", "yaml.compose") and given.get("Loader") not in (
        "yaml.SafeLoader",
        "SafeLoader",
    ):
        yield "a loader of YAML that makes objects"


FORBIDDEN = {"torch.load without weights_only", "numpy.load", "a shell", "trust_remote_code"}
FORBIDDEN |= {"a loader of YAML that makes objects", *NAMES, *MODULES, *ATTRIBUTES}


def test_no_file_does_what_could_run_a_stranger_s_code():
    found = {
        (file.relative_to(ROOT).as_posix(), name)
        for file in ROOT.rglob("*.py")
        for name in dangers(ast.parse(file.read_text(encoding="utf-8")))
        if name in FORBIDDEN
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "import pickle",
        "from os import system",
        "import os; os.system('x')",
        "import hydra; hydra.utils.instantiate(c)",
        "import torch; torch.load('x')",
        "import torch; torch.load('x', weights_only=False)",
        "import numpy as np; np.load('x')",
        "import yaml; yaml.load(x, Loader=yaml.Loader)",
        "run('ls', shell=True)",
        "AutoTokenizer.from_pretrained('x', trust_remote_code=True)",
    ],
)
def test_such_code_would_be_found(source):
    assert FORBIDDEN & set(dangers(ast.parse(source)))
