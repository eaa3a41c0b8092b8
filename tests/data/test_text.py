"""Documents to rows: the split, the blocks, the cache's key, and the errors."""

import json

import pytest

from xlm_mlm.data import text as text_module
from xlm_mlm.data.text import (
    TextDatasetManager,
    encode_documents,
    is_validation,
    packed_rows,
    padded_rows,
    pieces_of,
)
from xlm_mlm.data.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer()
BOS, EOS = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id
TEXTS = [f"document number {i}, with [MASK] é" for i in range(200)]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def manager(files, split="train", **options):
    options = {"block_size": 32, "validation_fraction": 0.2, **options}
    return TextDatasetManager(None, split, {"batch_size": 1}, str(files), **options)


def rows(tmp_path, files, split="train", **options):
    prepared = manager(files, split, **options)
    return prepared.prepare_data(str(tmp_path), TOKENIZER, load=True)["input_ids"]


def flat(rows):
    return [token for row in rows for token in row]


def decoded(ids):
    """Documents of a stream of tokens."""
    assert ids[0] == BOS
    assert ids[-1] == EOS
    pieces, piece = [], []
    for token in ids:
        if token == EOS:
            pieces.append(bytes(i - 7 for i in piece[1:]).decode())
            piece = []
        else:
            piece.append(token)
    return pieces


def test_split_is_by_content_seeded_and_of_the_right_size():
    sides = {text: is_validation(text, 0.2, 0) for text in TEXTS}
    assert 20 <= sum(sides.values()) <= 60  # 40 expected, standard deviation 5.7
    assert sides == {text: is_validation(text, 0.2, 0) for text in reversed(TEXTS)}
    assert sides != {text: is_validation(text, 0.2, 1) for text in TEXTS}
    # A larger fraction only adds documents.
    assert all(is_validation(text, 0.5, 0) for text, held in sides.items() if held)
    with pytest.raises(ValueError, match="not Unicode"):
        is_validation("\ud800", 0.5, 0)


def test_documents_carry_bos_and_eos_and_their_text_stays_text():
    encoded = list(encode_documents(TEXTS, TOKENIZER, BOS, EOS))
    assert [ids[0] for ids in encoded] == [BOS] * 200
    assert [ids[-1] for ids in encoded] == [EOS] * 200
    assert [bytes(i - 7 for i in ids[1:-1]).decode() for ids in encoded] == TEXTS
    assert list(encode_documents([], TOKENIZER, BOS, EOS)) == []


def test_pieces_end_where_lines_do():
    assert list(pieces_of("ab\ncd\nef", 7)) == ["ab\ncd\n", "ef"]
    assert list(pieces_of("ab\ncd\nef", 8)) == ["ab\ncd\nef"]
    assert list(pieces_of("ab cd ef", 4)) == ["ab", " cd", " ef"]
    assert list(pieces_of("abcdefg", 3)) == ["abc", "def", "g"]
    assert list(pieces_of(" abcdef\n\nx", 3)) == [" ab", "cde", "f\n\n", "x"]
    assert list(pieces_of("", 3)) == [""]


class Counting:
    """The byte tokenizer, with the characters of each call."""

    def __init__(self):
        self.calls = []

    def __call__(self, texts, **options):
        self.calls.append(sum(map(len, texts)))
        return TOKENIZER(texts, **options)


def test_a_tokenizer_is_never_given_much_at_once(monkeypatch):
    texts = ["short", "line\n" * 50, "a" * 90, *["ten chars."] * 70, "b" * 250, "end"]
    plain = list(map(list, encode_documents(texts, TOKENIZER, BOS, EOS)))
    monkeypatch.setattr(text_module, "_CHARACTERS_AT_A_TIME", 100)
    monkeypatch.setattr(pieces_of, "__defaults__", (100,))
    counting = Counting()
    # The order of documents and, with bytes, every token are as without pieces.
    assert list(map(list, encode_documents(texts, counting, BOS, EOS))) == plain
    assert sum(counting.calls) == sum(map(len, texts))
    # What waits is below 100, and so is what comes to it.
    assert max(counting.calls) < 200


def test_a_long_document_is_tokenized_as_its_rows_are_taken(monkeypatch):
    monkeypatch.setattr(text_module, "_CHARACTERS_AT_A_TIME", 100)
    monkeypatch.setattr(pieces_of, "__defaults__", (100,))
    for cut in (packed_rows, padded_rows):
        counting = Counting()
        rows = cut(encode_documents(["b" * 1000, "c" * 50], counting, BOS, EOS), 40)
        taken = [next(rows) for _ in range(5)]
        # 5 rows hold the BOS and 199 letters: two pieces.
        assert counting.calls == [100, 100]
        assert flat([*taken, *rows])[:1002] == [BOS, *[ord("b") + 7] * 1000, EOS]
        assert counting.calls == [100] * 10 + [50]


def test_a_long_document_has_the_side_of_its_whole_text(monkeypatch):
    texts = [f"{n} é\n" * 30 for n in range(20)]
    whole = [is_validation(text, 0.5, 0) for text in texts]
    assert len(set(whole)) == 2
    monkeypatch.setattr(text_module, "_CHARACTERS_AT_A_TIME", 7)
    assert [is_validation(text, 0.5, 0) for text in texts] == whole


def test_blocks():
    documents = [[1, 2, 3, 4, 5], [6], [7, 8, 9, 10]]
    assert list(padded_rows(documents, 3)) == [[1, 2, 3], [4, 5], [6], [7, 8, 9], [10]]
    assert list(packed_rows(documents, 3)) == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert list(packed_rows(documents, 5)) == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
    assert list(packed_rows(documents, 11)) == []


def test_splits_are_disjoint_exhaustive_and_lose_no_text(tmp_path, corpus):
    sides = [rows(tmp_path, corpus, split, packed=False) for split in ("train", "validation")]
    assert all(len(row) <= 32 for side in sides for row in side)
    train, validation = (decoded(flat(side)) for side in sides)
    assert train == [text for text in TEXTS if not is_validation(text, 0.2, 0)]
    assert validation == [text for text in TEXTS if is_validation(text, 0.2, 0)]
    assert rows(tmp_path, corpus, "test", packed=False) == sides[1]


def test_packed_rows_are_full_and_lose_less_than_a_block(tmp_path, corpus):
    packed = rows(tmp_path, corpus, packed=True)
    assert {len(row) for row in packed} == {32}
    stream, padded = flat(packed), flat(rows(tmp_path, corpus, packed=False))
    assert stream == padded[: len(stream)]
    assert len(padded) - len(stream) < 32


def test_the_cache_is_keyed_by_content_options_and_tokenizer(tmp_path, corpus):
    def folder(tokenizer=TOKENIZER, split="train", files=corpus, **options):
        made = manager(files, split, **options)
        made._tokenizer = tokenizer
        return made._get_cache_dir("data")

    base = folder()
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(corpus.read_bytes())
    assert folder(files=copy) == base  # the same content elsewhere
    copy.write_bytes(corpus.read_bytes() + b'{"text": "one more"}\n')
    other = ByteTokenizer(bos_token="[CLS]")
    changed = [
        folder(files=copy),
        folder(other),
        folder(split="validation"),
        folder(block_size=33),
        folder(packed=False),
        folder(text_field="body"),
        folder(document="line"),
        folder(validation_fraction=0.3),
        folder(split_seed=1),
    ]
    assert len({base, *changed}) == 1 + len(changed)


def test_the_kind_of_file_is_part_of_the_cache_key(tmp_path):
    """The same bytes are one document a line as .jsonl, and other documents as .txt."""
    for suffix in ("txt", "jsonl"):
        (tmp_path / f"same.{suffix}").write_text('{"text": "one"}\n{"text": "two"}\n')
    folders = set()
    for suffix in ("txt", "jsonl"):
        made = manager(tmp_path / f"same.{suffix}")
        made._tokenizer = TOKENIZER
        folders.add(made._get_cache_dir("data"))
    assert len(folders) == 2


def test_changed_file_gives_new_rows(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old\n\nolder")
    options = {"packed": False, "validation_fraction": 1e-9}
    before = rows(tmp_path, path, **options)
    path.write_text("new\n\nnewer")
    after = rows(tmp_path, path, **options)
    assert decoded(flat(before)) == ["old", "older"]
    assert decoded(flat(after)) == ["new", "newer"]


def test_no_text_no_document_no_block(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(" \n\n\t\n")
    with pytest.raises(ValueError, match="no text but white space"):
        rows(tmp_path, path)
    path.write_text("only one document")
    split = "train" if is_validation("only one document", 0.2, 0) else "validation"
    with pytest.raises(ValueError, match=f"no document is in the {split} split: .* 1 were read"):
        rows(tmp_path, path, split)
    full = "validation" if split == "train" else "train"
    with pytest.raises(
        ValueError, match=rf"{full} split holds \(1 of 1 documents\) fills no block of 32"
    ):
        rows(tmp_path, path, full)
    assert not list(tmp_path.rglob("rows*"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("block_size", 0),
        ("block_size", None),
        ("validation_fraction", 0.0),
        ("validation_fraction", 1),
        ("validation_fraction", "abc"),
        ("validation_fraction", None),
        ("validation_fraction", float("nan")),
        ("split_seed", -1),
        ("split_seed", None),
        ("split_seed", 2**64),
        ("text_field", ["text"]),
        ("document", "page"),
        ("packed", "yes"),
        ("split", "val"),
    ],
)
def test_options_out_of_range(corpus, option, value):
    options = {option: value}
    with pytest.raises(ValueError, match=f"^{option} is "):
        manager(corpus, **options)


def test_the_largest_seed_divides_documents():
    sides = {is_validation(text, 0.5, 2**64 - 1) for text in TEXTS}
    assert sides == {True, False}


def test_a_tokenizer_without_bos(tmp_path, corpus):
    tokenizer = ByteTokenizer(bos_token=None)
    with pytest.raises(ValueError, match="no bos token"):
        manager(corpus).prepare_data(str(tmp_path), tokenizer)
