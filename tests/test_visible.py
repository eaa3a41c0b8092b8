"""Token texts as shown: nothing invisible, nothing that reorders, and the exact text kept apart."""

import itertools
import unicodedata

import pytest

from xlm_mlm.visible import excerpt, quoted, readable, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("word", "word"),
        (" a\n", "␣a↵"),
        ("\t\r\n", r"⇥\r↵"),
        ("", "∅"),
        ("\x00\x1b\x7f\x85", r"\x00\x1b\x7f\x85"),
        ("\u202eabc\u2028", r"\u202eabc\u2028"),
        ("\ud800", r"\ud800"),
        ("\u00a0\u200b\ufeff", r"\xa0\u200b\ufeff"),
        ("\U000e0001", r"\U000e0001"),
        ("\u0301", "◌\u0301"),
        ("e\u0301", "e\u0301"),
        ("été 你好 مرحبا 🙂", "été␣你好␣مرحبا␣🙂"),
        ("<b>&amp;", "<b>&amp;"),
    ],
)
def test_what_a_token_is_shown_as(text, shown):
    assert visible(text) == shown


def test_every_character_is_shown_as_some_that_can_be_seen():
    for code in itertools.chain(range(0x3000), range(0xD700, 0x10000), range(0xE0000, 0xE0200)):
        for shown in (visible(chr(code)), readable(f"a{chr(code)}"), quoted(chr(code))):
            for char in shown:
                hidden = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
                assert not hidden, hex(code)
                assert char == " " or not char.isspace(), hex(code)


def test_the_quoted_text_tells_texts_apart():
    texts = ["\n", r"\n", "␣", " ", '"', r"\"", "\u202e", r"\u202e", "\xa0", r"\xa0", "", "∅"]
    assert len({quoted(text) for text in texts}) == len(texts)
    assert quoted("a b") == '"a b"'
    assert quoted("\n") == r'"\n"'


def test_a_heading_keeps_its_spaces():
    assert readable("two words\n\u202e") == r"two words\x0a\u202e"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ab\n", r'"ab\n"'),
        ("abcdef", '"abcdef"'),
        ("abcdefg", '"abcde…"'),
        ("\x1b[1m", r'"\u001b[1m"'),
    ],
)
def test_a_message_shows_the_beginning(text, shown):
    assert excerpt(text, 6) == shown
