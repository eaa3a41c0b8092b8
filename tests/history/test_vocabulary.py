"""What tokens read as, for each kind of tokenizer."""

from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from xlm_mlm.data.tokenizers import ByteTokenizer
from xlm_mlm.history.vocabulary import texts_of


def fast(tokens, decoder):
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, "[UNK]"))
    backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", unk_token="[UNK]")


def test_numbers(tokenizer):
    assert texts_of(tokenizer)[2:9] == ["[MASK]", "[EOS]", "[BOS]", "[SEP]", "[UNK]", "0", "1"]


def test_bytes():
    texts = texts_of(ByteTokenizer())
    assert len(texts) == 263
    assert texts[2] == "[MASK]"
    assert texts[7 + ord(" ")] == " "
    assert texts[7 + ord("\n")] == "\n"
    # A byte that is no character by itself keeps its name, which no other token has.
    assert len(set(texts)) == 263


def test_words_with_a_leading_space():
    tokens = ["[UNK]", "[MASK]", "▁the", "re", "▁"]
    assert texts_of(fast(tokens, decoders.Metaspace())) == ["[UNK]", "[MASK]", " the", "re", " "]


def test_pieces_of_words_keep_their_sign():
    tokens = ["[UNK]", "[MASK]", "play", "##ing"]
    assert texts_of(fast(tokens, decoders.WordPiece())) == tokens
