"""The record of the passes: what is written, and what reading it back gives."""

import json
import time

import pytest
import torch
from toy_models import TableModel
from xlm.datamodule import SimpleSpaceTokenizer

from xlm_mlm import HistoryPluginBase, HistoryTopKPlugin, MLMPredictor

MASK, V = 2, 27


def table(length):
    return torch.randn(length, V, generator=torch.Generator().manual_seed(1)) * 2


def run(tokenizer, folder, x, model=None, *, k=3, window=None, **options):
    history = HistoryTopKPlugin(folder, k=k, max_new_tokens=window)
    model = model or TableModel(table(12))
    one = MLMPredictor(3, tokenizer=tokenizer, model=model, history=history, **options)
    batch = {"input_ids": x}
    preds = one.predict(batch)
    return one.to_dict(batch, preds), preds, model


def opened(folder, row):
    return HistoryTopKPlugin.from_serialized(folder, row["fid"])


MODES = {
    "infill": (torch.tensor([[MASK, 9, MASK, MASK, 8], [7, MASK, 7, 7, 7]]), {}),
    "seq2seq": (torch.tensor([[9, 10], [11, 12]]), {"max_new_tokens": 4}),
    "unconditional": (torch.full((2, 6), MASK), {"confidence": "top_prob"}),
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
def test_every_pass_is_recorded_as_it_was(tokenizer, tmp_path, mode):
    x, options = mode
    rows, preds, model = run(tokenizer, tmp_path, x, **options)
    scores = model.table.detach().clone()
    scores[:, MASK] = -torch.inf
    for row, (entry, final) in enumerate(zip(rows, preds["ids"], strict=True)):
        record = opened(tmp_path, entry)
        assert record.get_num_steps() == preds["steps_taken"][row] > 0
        before = torch.cat((x[row], torch.full((len(final) - x.shape[1],), MASK)))
        for step in range(record.get_num_steps()):
            got = record.get(step)
            for t in range(len(final)):
                if before[t] == MASK:
                    p = scores[t].double().softmax(-1)
                    best = sorted(range(V), key=lambda i, p=p: -p[i])[:3]
                    assert got["pids"][t].tolist() == best
                    torch.testing.assert_close(got["p"][t].double(), p[best], atol=1e-6, rtol=1e-5)
                else:
                    assert got["pids"][t, 0] == before[t]
                    assert got["p"][t].tolist() == [1.0, 0.0, 0.0]
            assert (got["x"] != before).sum() >= 1
            assert torch.equal(got["x"][before != MASK], before[before != MASK])
            before = got["x"]
        assert torch.equal(before, final)


def test_a_window_keeps_the_last_positions_only(tokenizer, tmp_path):
    x = torch.tensor([[9, 10, 11]])
    rows, _, _ = run(tokenizer, tmp_path, x, window=4, max_new_tokens=4)
    got = opened(tmp_path, rows[0]).get(0)
    assert got["p"].shape == got["pids"].shape == (4, 3)
    assert got["x"].shape == (7,)


def test_without_k_the_whole_vocabulary_is_kept(tokenizer, tmp_path):
    rows, _, _ = run(tokenizer, tmp_path, torch.full((1, 3), MASK), k=None)
    got = opened(tmp_path, rows[0]).get(0)
    assert got["p"].shape == (3, V)
    torch.testing.assert_close(got["p"].sum(-1), torch.ones(3))


def test_finished_rows_are_not_recorded_further_and_full_rows_not_at_all(tokenizer, tmp_path):
    x = torch.tensor([[MASK] * 5, [9, MASK, 9, 9, 9], [9] * 5])
    rows, preds, _ = run(tokenizer, tmp_path, x)
    assert preds["steps_taken"] == [3, 1, 0]
    assert [opened(tmp_path, row).get_num_steps() for row in rows] == [3, 1, 0]


def test_each_rows_files_hold_that_row_alone(tokenizer, tmp_path):
    x = torch.full((64, 6), MASK)
    rows, _, _ = run(tokenizer, tmp_path, x)
    sizes = [f.stat().st_size for f in (tmp_path / rows[0]["fid"]).glob("*.safetensors")]
    # 6 x 3 values of at most 8 bytes, with a header of some hundred.
    assert max(sizes) < 6 * 3 * 8 + 300


def test_folders_differ_between_batches_and_no_partial_file_stays(tokenizer, tmp_path):
    x = torch.full((2, 3), MASK)
    fids = [row["fid"] for _ in range(2) for row in run(tokenizer, tmp_path, x)[0]]
    assert len(set(fids)) == 4
    # What the tokens read as is written once.
    (vocabulary,) = tmp_path.glob("vocabulary.*.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*fids, vocabulary.name])
    assert not list(tmp_path.rglob("*.partial"))
    meta = json.loads((tmp_path / fids[0] / "meta.json").read_text())
    assert abs(meta.pop("begun") - time.time_ns()) < 60e9
    assert meta == {
        "format": 2,
        "k": 3,
        "max_new_tokens": None,
        "dtype": "float32",
        "mask_id": MASK,
        "vocabulary": vocabulary.name,
        "finished": True,
        "num_steps": 3,
    }


def test_an_interrupted_run_leaves_its_complete_passes_readable(tokenizer, tmp_path):
    class Dying(TableModel):
        def forward(self, x_t, attention_mask=None, positions=None, block_mask=None):
            if len(self.inputs) == 2:
                raise KeyboardInterrupt
            return super().forward(x_t)

    with pytest.raises(KeyboardInterrupt):
        run(tokenizer, tmp_path, torch.full((1, 6), MASK), Dying(table(6)))
    (folder,) = (each for each in tmp_path.iterdir() if each.is_dir())
    # The pass that was being written: its sequence, written last, is missing.
    (folder / "00002.p.safetensors").write_bytes(b"")
    record = HistoryTopKPlugin.from_serialized(tmp_path, folder.name)
    assert record.get_num_steps() == 2
    assert record.get(1)["x"].shape == (6,)


def test_reset_forgets_and_the_batch_is_checked(tmp_path):
    history = HistoryTopKPlugin(tmp_path)
    state = {"x": torch.tensor([[5, 6]]), "logits": torch.ones(1, 2, 4)}
    state["active"] = torch.tensor([True])
    history.update_history(state)
    assert len(history.to_dict()) == 1
    with pytest.raises(ValueError, match="2 rows.*began with 1"):
        history.update_history({**state, "x": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="no logits"):
        history.update_history({**state, "logits": None})
    history.reset()
    assert history.to_dict() == []
    assert history.get_num_steps() == 0


@pytest.mark.parametrize("name", ["../other", "a/b", "", ".", "..", ".hidden", "/etc", "a\x00"])
def test_names_that_are_no_folder_of_ours_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="plain name"):
        HistoryTopKPlugin.from_serialized(tmp_path / "in", name)


def test_what_cannot_be_read_is_refused(tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="no history"):
        HistoryTopKPlugin.from_serialized(tmp_path, "absent")
    rows, _, _ = run(tokenizer, tmp_path, torch.full((2, 3), MASK))
    record = opened(tmp_path, rows[0])
    for step in (3, -1, 1.0):
        with pytest.raises(ValueError, match="has 3 passes"):
            record.get(step)
    meta = tmp_path / rows[0]["fid"] / "meta.json"
    meta.write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        opened(tmp_path, rows[0])
    (tmp_path / "link").symlink_to(tmp_path / rows[1]["fid"])
    with pytest.raises(FileNotFoundError):
        HistoryTopKPlugin.from_serialized(tmp_path, "link")


def test_several_open_samples_must_be_told_apart(tmp_path):
    history = HistoryTopKPlugin(tmp_path)
    history.begin({"x": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="2 samples are open"):
        history.get(0)


@pytest.mark.parametrize("options", [{"k": 0}, {"max_new_tokens": 0}, {"k": 1.5}])
def test_bad_options_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match="must be an integer of at least 1"):
        HistoryTopKPlugin(tmp_path, **options)


def test_a_history_of_ones_own_sees_original_row_numbers(tokenizer):
    class Counting(HistoryPluginBase):
        def __init__(self):
            self.seen = []

        def update_history(self, step_results):
            self.seen.append(step_results["active"].tolist())
            assert step_results["logits"].shape == (3, 4, V)

        def reset(self):
            self.seen = []

        def to_dict(self):
            return [{"fid": str(i)} for i in range(3)]

    history = Counting()
    x = torch.tensor([[9, 9, 9, MASK], [9, 9, 9, 9], [MASK] * 4])
    one = MLMPredictor(2, tokenizer=tokenizer, model=TableModel(table(4)), history=history)
    preds = one.predict({"input_ids": x})
    assert history.seen == [[True, False, True], [False, False, True]]
    assert preds["fid"] == ["0", "1", "2"]


def test_the_predictor_says_what_tokens_read_as(tokenizer, tmp_path):
    rows, _, _ = run(tokenizer, tmp_path, torch.full((1, 3), MASK))
    trace = opened(tmp_path, rows[0]).trace()
    assert (trace.mask_id, trace.text_of(9)) == (MASK, "2")


def test_a_tokenizer_of_ones_own_is_kept(tokenizer, tmp_path):
    other = SimpleSpaceTokenizer(["a", "b", "c"])
    history = HistoryTopKPlugin(tmp_path, 2, tokenizer=other)
    model = TableModel(table(3))
    one = MLMPredictor(2, tokenizer=tokenizer, model=model, history=history)
    (fid,) = one.predict({"input_ids": torch.full((1, 3), MASK)})["fid"]
    assert opened(tmp_path, {"fid": fid}).trace().text_of(8) == "b"
    assert history.tokenizer is other


def test_one_history_serves_predictors_with_different_tokenizers(tokenizer, tmp_path):
    history = HistoryTopKPlugin(tmp_path, 2)
    texts = []
    for each in (tokenizer, SimpleSpaceTokenizer(["a", "b", "c"]), tokenizer):
        model = TableModel(table(3)[:, : len(each)])
        one = MLMPredictor(2, tokenizer=each, model=model, history=history)
        (fid,) = one.predict({"input_ids": torch.full((1, 3), MASK)})["fid"]
        texts.append(opened(tmp_path, {"fid": fid}).trace().text_of(8))
    assert texts == ["1", "b", "1"]


@pytest.mark.parametrize("dtype", ["float64", "bf16", None, ["float16"]])
def test_another_precision_is_refused(tmp_path, dtype):
    with pytest.raises(ValueError, match="dtype is .* 'float16', 'float32'"):
        HistoryTopKPlugin(tmp_path, dtype=dtype)


class Mute:
    """A tokenizer that fails while its tokens are asked for."""

    full_vocab_size = 3
    mask_token_id = MASK

    def convert_ids_to_tokens(self, ids):
        raise RuntimeError("no words")


def test_what_is_no_tokenizer_is_refused_before_anything_is_written(tokenizer, tmp_path):
    words = "tokenizer is 'x'; it must be a tokenizer, with convert_ids_to_tokens"
    with pytest.raises(ValueError, match=words):
        HistoryTopKPlugin(tmp_path, tokenizer="x")
    history = HistoryTopKPlugin(tmp_path)
    with pytest.raises(ValueError, match=words):
        history.use_tokenizer("x")
    # Where one was given, the predictor's is not used.
    HistoryTopKPlugin(tmp_path, tokenizer=tokenizer).use_tokenizer("x")
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_can_t_begin_leaves_no_folder(tokenizer, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="no words"):
        HistoryTopKPlugin(tmp_path, tokenizer=Mute()).begin({"x": torch.zeros(2, 3)})
    assert list(tmp_path.iterdir()) == []
    history = HistoryTopKPlugin(tmp_path)
    write, rows = history._write_meta, []

    def interrupted(row, **state):
        rows.append(row)
        if row == 1:
            raise KeyboardInterrupt
        write(row, **state)

    monkeypatch.setattr(history, "_write_meta", interrupted)
    with pytest.raises(KeyboardInterrupt):
        history.begin({"x": torch.zeros(3, 3)})
    assert rows == [0, 1]
    assert (list(tmp_path.iterdir()), history.to_dict()) == ([], [])
