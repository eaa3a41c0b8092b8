"""What the property tests draw from: tiny rows, masks, words and options."""

import functools
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st
from xlm.datamodule import SimpleSpaceTokenizer

from xlm_mlm.model_mlm import RotaryTransformerMLMModel

PAD, MASK, EOS, BOS = 0, 2, 3, 4
FIRST, V = 7, 12
TOKENIZER = SimpleSpaceTokenizer.for_numbers(V - FIRST)
MOST_ROWS, LONGEST = 4, 9
SAMPLINGS = ("bernoulli", "stratified", "exact_count", "complementary")
TRUNCATES = ("block", "max", None)

seeds = st.integers(0, 2**32 - 1)
plain_tokens = st.integers(FIRST, V - 1)
# Sums of these are exact in single precision, and many are equal.
small_numbers = st.integers(-8, 8).map(lambda n: n / 4)


def rows_of(tokens, least=1, most=LONGEST, rows=None):
    """Lists of tokens, ragged; `rows` of them, or one to four."""
    row = st.lists(tokens, min_size=least, max_size=most)
    few = (1, MOST_ROWS) if rows is None else (rows, rows)
    return st.lists(row, min_size=few[0], max_size=few[1])


def kinds_of_row():
    """The ways in which a dataset may hold a row."""
    return st.sampled_from([list, tuple, np.array, torch.tensor])


@st.composite
def rectangles(draw, cells, rows=MOST_ROWS, columns=LONGEST):
    """Rows of one length."""
    height, width = draw(st.integers(1, rows)), draw(st.integers(1, columns))
    flat = draw(st.lists(cells, min_size=height * width, max_size=height * width))
    return [flat[i * width : (i + 1) * width] for i in range(height)]


class Words:
    """Stands in for a `RandomSource`: gives the words it was told to."""

    def __init__(self, *rows, order=None):
        self.given = [np.array(row, dtype=np.uint32) for row in rows]
        self.order = order

    def words(self, rows, columns):
        return self.given.pop(0).reshape(rows, columns)

    def permutation(self, count):
        assert count == len(self.order)
        return np.array(self.order)


# Words that are often equal, and the least and the greatest there are.
words = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1), st.just(2**32 - 1))


@functools.cache
def tiny_model():
    """A network, the same at every call."""
    torch.manual_seed(11)
    model = RotaryTransformerMLMModel(
        V, 8, 1, 2, mask_idx=MASK, rotary_emb_dim=4, max_length=64, dropout=0.0
    )
    return model.eval()


def forced_packing(always):
    """Leave padding out wherever it can be done, however small the gain, or nowhere."""
    return mock.patch("xlm_mlm.modeling.context.pays", return_value=always)
