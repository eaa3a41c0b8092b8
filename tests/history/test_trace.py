"""What a trace says of itself, against plain loops; as a table and as HTML."""

import math
import re
from html.parser import HTMLParser

import pytest
import torch
from made_up_histories import MASK, write
from made_up_pages import HOSTILE

from xlm_mlm.history.html import PASSES, TOKENS
from xlm_mlm.history.reading import read_traces
from xlm_mlm.history.trace import Trace
from xlm_mlm.history_mlm import HistoryTopKPlugin

BEFORE = [[4, MASK, 9, MASK, MASK, MASK]]
ORDERS = [[[3], [1, 4], [5]]]


@pytest.fixture(params=[None, 3], ids=["all", "window"])
def trace(request, tokenizer, tmp_path):
    write(tmp_path, tokenizer, BEFORE, ORDERS, max_new_tokens=request.param)
    return read_traces(tmp_path)[0]


def naive_masked(trace):
    rows = [trace.before.tolist(), *trace.x.tolist()][:-1]
    return [[token == MASK for token in row] for row in rows]


def test_what_was_masked_and_when_it_was_filled(trace):
    assert trace.masked.tolist() == naive_masked(trace)
    assert trace.masks_left.tolist() == [4, 3, 1, 0]
    assert trace.filled_by.tolist() == [-1, 1, -1, 0, 1, 2]
    assert trace.first == 6 - trace.p.shape[1]


def test_entropy_and_confidence(trace):
    for step, mean in enumerate(trace.mean_entropy.tolist()):
        values = [e for e in trace.entropy[step].tolist() if not math.isnan(e)]
        assert math.isclose(mean, sum(values) / len(values), rel_tol=1e-5)
    for place, found in enumerate(trace.confidence.tolist()):
        step = int(trace.filled_by[place])
        if step < 0 or place < trace.first:
            assert math.isnan(found)
            continue
        column = place - trace.first
        ids = trace.pids[step, column].tolist()
        assert found == trace.p[step, column, ids.index(int(trace.x[step, place]))]


def test_a_token_that_was_not_kept_has_no_confidence():
    trace = Trace(
        fid="x",
        before=torch.tensor([0]),
        x=torch.tensor([[5]]),
        p=torch.tensor([[[0.9, 0.1]]]),
        pids=torch.tensor([[[1, 2]]]),
        entropy=torch.tensor([[0.3]]),
        mask_id=0,
        texts={},
        finished=True,
    )
    assert math.isnan(trace.confidence[0])


def test_a_token_taken_back_and_filled_again_counts_from_its_last_pass():
    x = torch.tensor([[5, 0], [0, 6], [7, 6]])
    trace = Trace(
        fid="x",
        before=torch.tensor([0, 0]),
        x=x,
        p=torch.ones(3, 2, 1),
        pids=x[..., None],
        entropy=torch.zeros(3, 2),
        mask_id=0,
        texts={},
        finished=True,
    )
    assert trace.filled_by.tolist() == [2, 1]
    assert trace.masks_left.tolist() == [2, 1, 1, 0]


def test_without_a_tokenizer_the_entropy_says_what_was_masked(tmp_path):
    write(tmp_path, None, BEFORE, ORDERS, vocabulary=27)
    trace = read_traces(tmp_path)[0]
    assert trace.mask_id is None
    assert trace.masked.tolist() == naive_masked(trace)
    assert trace.masks_left.tolist() == [4, 3, 1, 0]
    assert trace.text_of(9) == "#9"


def test_the_table_has_a_row_for_each_pass_and_position(trace):
    table = trace.to_dataframe()
    assert len(table) == trace.steps * 6
    for row in table.to_dict("records"):
        step, place = row["pass"], row["position"]
        after = int(trace.x[step, place])
        masked = naive_masked(trace)[step][place]
        assert (row["token_id"], row["token"]) == (after, trace.text_of(after))
        assert row["masked"] == masked
        assert row["filled"] == (place in ORDERS[0][step])
        known = masked and place >= trace.first
        assert math.isnan(row["entropy"]) == (not known)
        for rank in range(3):
            names = [f"top_{rank + 1}{kind}" for kind in ("", "_id", "_p")]
            text, token, p = (row[name] for name in names)
            if known:
                column = place - trace.first
                assert token == trace.pids[step, column, rank]
                assert text == trace.text_of(token)
                assert p == trace.p[step, column, rank]
            else:
                assert [table[name].isna()[step * 6 + place] for name in names] == [True] * 3


def test_an_opened_record_gives_the_same_table(tokenizer, tmp_path):
    (fid,), _ = write(tmp_path, tokenizer, BEFORE, ORDERS)
    record = HistoryTopKPlugin.from_serialized(tmp_path, fid)
    assert record.to_dataframe().equals(record.trace().to_dataframe())
    assert record._repr_html_() == record.trace()._repr_html_()
    assert HistoryTopKPlugin(tmp_path)._repr_html_() is None


def test_a_trace_without_passes_is_an_empty_table(tokenizer, tmp_path):
    HistoryTopKPlugin(tmp_path, 2, tokenizer=tokenizer).begin({"x": torch.tensor(BEFORE)})
    trace = read_traces(tmp_path)[0]
    assert len(trace.to_dataframe()) == 0
    assert "given" in trace._repr_html_()
    assert "unfinished" in trace._repr_html_()


class Read(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.rows = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_data(self, data):
        if self.rows:
            self.rows[-1] += data


def test_html_shows_every_pass(tokenizer, tmp_path):
    write(tmp_path, tokenizer, BEFORE, ORDERS)
    trace = read_traces(tmp_path)[0]
    read = Read(trace._repr_html_())
    assert len(read.rows) == 1 + 1 + 3
    for number, row in enumerate(read.rows[1:]):
        sequence = trace.before if number == 0 else trace.x[number - 1]
        shown = [
            "·" if t == MASK else tokenizer.convert_ids_to_tokens([t])[0] for t in sequence.tolist()
        ]
        assert row.endswith(" ".join(shown))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_token_stays_text(text):
    x = torch.tensor([[1, 1]])
    trace = Trace(
        fid="<b>",
        before=torch.tensor([0, 1]),
        x=x,
        p=torch.ones(1, 2, 1),
        pids=x[..., None],
        entropy=torch.zeros(1, 2),
        mask_id=0,
        texts={0: "<mask>", 1: text},
        finished=True,
    )
    html = trace._repr_html_()
    assert set(Read(html).tags) <= {"table", "caption", "tr", "th", "td", "span"}
    html.encode()
    assert trace.to_dataframe()["token"].tolist() == [text, text]


def test_long_traces_are_cut_in_the_middle():
    steps, length = 300, 1000
    x = torch.ones(steps, length, dtype=torch.long)
    trace = Trace(
        fid="long",
        before=torch.zeros(length, dtype=torch.long),
        x=x,
        p=torch.ones(steps, length, 1),
        pids=x[..., None],
        entropy=torch.zeros(steps, length),
        mask_id=0,
        texts={0: "m", 1: "t"},
        finished=True,
    )
    html = trace._repr_html_()
    read = Read(html)
    # The head, the passes, and one line for those left out.
    assert len(read.rows) == 1 + PASSES + 1
    assert f"at most {PASSES} rows and {TOKENS} tokens" in html
    assert re.findall(r"<td[^>]*>(\d+)</td>", html)[-2:] == [str(steps), "0"]
    assert len(html) < 1_000_000
