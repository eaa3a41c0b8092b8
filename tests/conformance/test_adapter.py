"""What a plugin may say of itself, and what is refused."""

import re

import pytest

from xlm_mlm.conformance.adapter import (
    Adapter,
    load_adapter,
    overridden,
    setting,
)


def adapter(site, source):
    site.write(their_adapter=source)
    return load_adapter("their_adapter:Theirs")


def test_nothing_named_is_nothing_absent():
    assert type(load_adapter(None)) is Adapter
    assert setting(load_adapter(None), "absent") == {}


def test_any_object_will_do(site):
    theirs = adapter(site, "class Theirs:\n    absent = {'prompt': 'none'}\n")
    assert setting(theirs, "absent") == {"prompt": "none"}
    assert setting(theirs, "overrides") == ()
    assert not overridden(theirs, "rows")


def test_an_instance_or_a_module_will_do(site):
    site.write(their_adapter="class A:\n    overrides = ['a=1']\n\nTheirs = A()\n")
    assert setting(load_adapter("their_adapter:Theirs"), "overrides") == ["a=1"]


def test_dots_in_the_name_are_followed(site):
    site.write(their_adapter="class A:\n    class B:\n        overrides = ['a=1']\n")
    assert setting(load_adapter("their_adapter:A.B"), "overrides") == ["a=1"]


@pytest.mark.parametrize("parent", ["", "(Adapter)"])
def test_a_method_of_its_own_is_seen(parent, site):
    head = "from xlm_mlm.conformance.adapter import Adapter\n"
    theirs = adapter(site, f"{head}class Theirs{parent}:\n    def rows(self, *a):\n        pass\n")
    assert overridden(theirs, "rows")
    assert not overridden(theirs, "call_model")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class Theirs:\n    absnet = {}\n", "has absnet, which the kit does not know.*call_model"),
        ("class Theirs:\n    absent = {'mask': 'x'}\n", "names 'mask'.*mask_token"),
        ("class Theirs:\n    absent = ['prompt']\n", r"must be \{capability: reason\}"),
        ("class Theirs:\n    absent = {'prompt': ''}\n", r"must be \{capability: reason\}"),
        ("class Theirs:\n    absent = {'prompt': True}\n", r"must be \{capability: reason\}"),
        ("class Theirs:\n    experiments = ['a']\n", r"`experiments` .*list of overrides"),
        ("class Theirs:\n    experiments = {'a': 'b=1'}\n", r"`experiments` .*list of overrides"),
        ("class Theirs:\n    overrides = 'a=1'\n", "`overrides` .*a list of str"),
        ("class Theirs:\n    optional_modules = None\n", r"must be \{module: extra\}"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ("class Theirs(:\n", "SyntaxError"),
        ("class Theirs:\n    def __init__(self):\n        1 / 0\n", "ZeroDivisionError"),
        ("class Ours:\n    pass\n", "their_adapter:Theirs can't be imported"),
    ],
)
def test_what_is_refused(source, message, site):
    with pytest.raises(ValueError, match=re.compile(message, re.S)):
        adapter(site, source)


@pytest.mark.parametrize("target", ["json", "json:", ":x", "no_such_module:x"])
def test_a_target_that_leads_nowhere(target):
    with pytest.raises(ValueError, match=re.escape(target)):
        load_adapter(target)
