"""What the page carries, read back naively: every sequence, every number to the digits shown."""

import base64
import math
import struct
import zlib

import pytest
import torch
from made_up_pages import MASK, board, hostile, large, made_up, taken_back, vars_of, words

from xlm_mlm.history.trace import Trace
from xlm_mlm.report.packing import TokenTable, pack, seal
from xlm_mlm.visible import quoted, visible


def unpacked(trace, top=10):
    """The sample and its arrays as lists, read as the module's docstring says."""
    table = TokenTable()
    sample = pack(trace, table, top)
    sealed = seal(sample, table)
    data = zlib.decompress(base64.b64decode(sealed["data"]))
    arrays, at = {}, 0
    for name, width, count in sealed["layout"]:
        assert at % width == 0
        code = {1: "B", 2: "H", 4: "I"}[width]
        arrays[name] = list(struct.unpack_from(f"<{count}{code}", data, at))
        at += width * count
    assert at == len(data)
    return sealed, arrays, table.to_list()


def bit(arrays, cell):
    return bool(arrays["masks"][cell // 8] >> (cell % 8) & 1)


TRACES = {
    "board": board(),
    "words": words(),
    "window": words(window=5),
    "mask unknown": words(mask_known=False),
    "hostile": hostile(),
    "taken back": taken_back(),
    "no pass": made_up(["[MASK]", "a"], [1, 1], [0], 0),
    "nothing masked": made_up(["[MASK]", "a"], [1, 1], [0, 1], 1),
}


@pytest.fixture(params=TRACES, ids=lambda name: name.replace(" ", "-"))
def trace(request):
    return TRACES[request.param]


def test_every_sequence_comes_back(trace):
    _, arrays, tokens = unpacked(trace)
    now = list(arrays["before"])
    states = [trace.before, *trace.x]
    for state, expected in enumerate(states):
        if state:
            for change in range(arrays["starts"][state - 1], arrays["starts"][state]):
                now[arrays["where"][change]] = arrays["what"][change]
        assert [tokens[entry][0] for entry in now] == expected.tolist()
        for entry in now:
            token, shown, *exact = tokens[entry]
            assert shown == visible(trace.text_of(token))
            assert (exact or [f'"{shown}"']) == [quoted(trace.text_of(token))]


def test_every_probability_and_entropy_comes_back_to_the_digits_shown(trace):
    sample, arrays, tokens = unpacked(trace)
    count, length = len(arrays["entropy"]), len(trace.before)
    first = length - trace.p.shape[1]
    slot = 0
    for step in range(trace.steps):
        seen = []
        for place in range(length):
            masked = bool(trace.masked[step, place])
            assert bit(arrays, step * length + place) == masked
            if not masked or place < first:
                continue
            for rank in range(sample["top"]):
                p = trace.p[step, place - first, rank].item()
                assert f"{arrays['p'][rank * count + slot] / 100:.2f}" == f"{100 * p:.2f}"
                token = tokens[arrays["tokens"][rank * count + slot]][0]
                assert token == trace.pids[step, place - first, rank]
            entropy = trace.entropy[step, place - first].item()
            got = arrays["entropy"][slot]
            assert got == 0xFFFF if math.isnan(entropy) else f"{got / 1000:.3f}" == f"{entropy:.3f}"
            if not math.isnan(entropy):
                seen.append(entropy)
            slot += 1
        mean = arrays["mean"][step]
        assert mean == 0xFFFFFFFF if not seen else abs(mean / 1000 - sum(seen) / len(seen)) < 6e-4
    assert slot == count
    end = trace.x[-1] if trace.steps else trace.before
    for place in range(length):
        expected = trace.mask_id is not None and end[place] == MASK
        assert bit(arrays, trace.steps * length + place) == expected


def test_what_was_put_somewhere_has_the_probability_that_it_had(trace):
    _, arrays, _ = unpacked(trace)
    first = len(trace.before) - trace.p.shape[1]
    for step in range(trace.steps):
        for change in range(arrays["starts"][step], arrays["starts"][step + 1]):
            place = arrays["where"][change]
            expected = 0xFFFF
            if trace.masked[step, place] and place >= first:
                ids = trace.pids[step, place - first].tolist()
                token = trace.x[step, place].item()
                if token in ids:
                    p = trace.p[step, place - first, ids.index(token)].item()
                    expected = round(p * 10_000)
            assert arrays["sure"][change] == expected


def test_no_more_is_kept_than_asked_for():
    trace = words()
    whole, some = unpacked(trace, top=10), unpacked(trace, top=2)
    assert (whole[0]["top"], some[0]["top"]) == (4, 2)
    assert some[1]["p"] == whole[1]["p"][: len(some[1]["p"])]
    # The confidence is known even where the token is not among those that are shown.
    assert some[1]["sure"] == whole[1]["sure"]


def test_boards_are_found_and_nothing_else():
    assert unpacked(board())[0]["board"] == list(range(16))
    assert unpacked(words())[0]["board"] is None
    framed = made_up(["[MASK]", *"1234", "[BOS]"], [5, *[1, 2, 3, 4] * 4, 5], [0, 17], 3)
    assert unpacked(framed)[0]["board"] == list(range(1, 17))


def test_half_precision_is_read_as_it_is():
    trace = words()
    half = Trace(**{**vars_of(trace), "p": trace.p.half(), "entropy": trace.entropy.half()})
    _, arrays, _ = unpacked(half)
    seen = half.p[half.masked][:, 0].double() * 10_000
    assert arrays["p"][: len(seen)] == seen.round().long().tolist()


def test_many_tokens_take_wider_entries():
    texts = ["[MASK]", *(str(number) for number in range(70_000))]
    trace = made_up(["[MASK]", "a"], [1] * 8, [], 2)
    table = TokenTable()
    sample = pack(trace, table, 1)
    narrow = seal(sample, table)
    for number, text in enumerate(texts):
        table._entry(number, text)
    wide = seal(sample, table)
    assert dict((n, w) for n, w, _ in narrow["layout"])["what"] == 2
    assert dict((n, w) for n, w, _ in wide["layout"])["what"] == 4


def test_a_large_history_is_small():
    trace = large(256, 64)
    sealed, arrays, _ = unpacked(trace)
    seen = int(trace.masked.sum())
    assert len(arrays["entropy"]) == seen
    assert len(sealed["data"]) < 4 / 3 * 22 * seen * 1.1


def test_a_probability_that_is_not_known_is_not_taken_for_zero():
    trace = words()
    p = torch.full_like(trace.p, torch.nan)
    _, arrays, _ = unpacked(Trace(**{**vars_of(trace), "p": p}))
    assert set(arrays["p"]) == {0xFFFF}
    assert set(arrays["sure"]) == {0xFFFF}


def test_a_text_that_is_too_long_is_cut_and_its_length_told():
    long, limit = "<\u202e" * 500_000, "y" * 4_000
    run = made_up(["[MASK]", long, limit], [1, 2], [0], 1)
    texts = {row[0]: row[1:] for row in unpacked(run)[2]}
    assert texts[1] == [
        f"{visible(long[:4_000])}…",
        f"{quoted(long[:4_000])}… (1,000,000 characters)",
    ]
    assert texts[2] == [limit]
