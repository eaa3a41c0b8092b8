"""The byte-level tokenizer and the loader of tokenizer folders."""

import io
import json
import sys

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xlm_mlm.data.tokenizers import ByteTokenizer, load_tokenizer

TEXTS = [
    "",
    " two  spaces , before . punctuation ! don 't",
    "tabs\tand\r\nlines\n\n",
    "héllo 日本語 😀 \u200b\ufeff",
    "".join(map(chr, range(256))),
    "[MASK] [PAD] [EOS][BOS]",
]


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_round_trips_one_token_a_byte(text):
    tokenizer = ByteTokenizer()
    ids = encode(tokenizer, text)
    assert [i - 7 for i in ids] == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_vocabulary_and_special_tokens():
    tokenizer = ByteTokenizer()
    assert len(tokenizer) == tokenizer.full_vocab_size == 7 + 256
    special = ("pad", "cls", "mask", "eos", "bos", "sep", "unk")
    assert [getattr(tokenizer, f"{name}_token_id") for name in special] == list(range(7))
    tokenizer.post_creation()  # the host's own check


def test_mask_is_a_token_in_prompts_and_text_in_training_text():
    tokenizer = ByteTokenizer()
    assert tokenizer("A[MASK]b").input_ids == [7 + 65, tokenizer.mask_token_id, 7 + 98]
    assert tokenizer.mask_token_id not in encode(tokenizer, "A[MASK]b")
    # One call leaves nothing behind for the next.
    assert tokenizer("A[MASK]b").input_ids == [7 + 65, tokenizer.mask_token_id, 7 + 98]


def test_bytes_that_are_no_text_decode_to_a_replacement_character():
    assert ByteTokenizer().decode([7 + 0xFF, 7 + 65]) == "\ufffdA"


def test_saves_and_loads(tmp_path):
    tokenizer = ByteTokenizer()
    tokenizer.save_pretrained(tmp_path)
    for loaded in (ByteTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)):
        assert isinstance(loaded, ByteTokenizer)
        assert loaded.get_vocab() == tokenizer.get_vocab()
        for text in TEXTS:
            assert loaded(text).input_ids == tokenizer(text).input_ids
            assert loaded.decode(encode(loaded, text)) == text


def test_no_folder_means_bytes():
    assert isinstance(load_tokenizer(), ByteTokenizer)
    assert isinstance(load_tokenizer(None), ByteTokenizer)


def word_tokenizer(**special):
    vocabulary = {token: i for i, token in enumerate(["[P]", "[M]", "[B]", "[E]", "[U]", "hi"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[U]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[U]", **special)


COMPLETE = {
    "pad_token": "[P]",
    "mask_token": "[M]",
    "bos_token": "[B]",
    "eos_token": "[E]",
}


def test_any_folder_loads_and_has_a_vocabulary_size(tmp_path):
    word_tokenizer(**COMPLETE).save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.full_vocab_size == len(loaded) == 6
    assert loaded("hi there", add_special_tokens=False).input_ids == [5, 4]


@pytest.mark.parametrize("missing", ["mask", "pad", "bos", "eos"])
def test_a_folder_without_a_needed_token_is_refused(tmp_path, missing):
    special = {name: token for name, token in COMPLETE.items() if name != f"{missing}_token"}
    word_tokenizer(**special).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"no {missing} token"):
        load_tokenizer(tmp_path)


def test_code_that_a_folder_brings_is_neither_run_nor_asked_about(tmp_path, monkeypatch):
    word_tokenizer(**COMPLETE).save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    stranger = {"tokenizer_class": "Strange", "auto_map": {"AutoTokenizer": ["code.Strange", None]}}
    config.write_text(json.dumps(json.loads(config.read_text()) | stranger))
    ran = tmp_path / "ran"
    (tmp_path / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Strange: ...")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(ValueError, match="no tokenizer could be read"):
        load_tokenizer(tmp_path)
    assert not ran.exists()


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="save_pretrained"):
        load_tokenizer("bert-base-uncased")
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_tokenizer(tmp_path / "missing")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", "{}", ""),
        ("tokenizer_config.json", "{", ""),
        ("tokenizer_config.json", "[]", "holds a list"),
        ("tokenizer_config.json", '{"tokenizer_class": 5}', ""),
        ("config.json", "[]", ""),
    ],
)
def test_a_folder_with_no_tokenizer_in_it(tmp_path, file, content, message):
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=f"no tokenizer could be read from .*{message}"):
        load_tokenizer(tmp_path)
