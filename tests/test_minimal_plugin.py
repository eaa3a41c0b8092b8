"""The minimal plugin computes what its docstrings say, against naive references."""

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from toy_models import TableModel

MINIMAL = Path(__file__).parents[1] / "examples" / "minimal_plugin"
MASK, PAD, END = 2, 0, 3


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(MINIMAL)


@pytest.fixture
def model():
    from xlm_minimal.model import MinimalModel

    return MinimalModel(num_embeddings=27, d_model=16, nhead=2, max_length=12).eval()


@pytest.fixture
def loss(model, tokenizer):
    from xlm_minimal.loss import MinimalLoss

    return MinimalLoss(model, tokenizer)


@pytest.fixture
def new_predictor(model, tokenizer):
    from xlm_minimal.predictor import MinimalPredictor

    def make(*args, model=model, **options):
        predictor = MinimalPredictor(*args, tokenizer=tokenizer, **options)
        object.__setattr__(predictor, "model", model)  # as the host does
        return predictor

    return make


def batch_of(input_ids, target_ids=None, pad=PAD):
    batch = {"input_ids": torch.tensor(input_ids)}
    batch["attention_mask"] = batch["input_ids"] != pad
    if target_ids is not None:
        batch["target_ids"] = torch.tensor(target_ids)
    return batch


def test_finding_the_plugin_costs_no_torch():
    code = (
        "import sys, xlm_minimal.plugin as plugin\n"
        "assert [folder.name for folder in plugin.xlm_config_dirs()] == ['configs']\n"
        "assert 'torch' not in sys.modules and 'xlm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=MINIMAL, check=True, timeout=60)


@pytest.mark.slow
def test_its_wheel_is_found_and_nothing_is_wrong_with_it(tmp_path):
    source = shutil.copytree(MINIMAL, tmp_path / "source")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    configs = {f.relative_to(MINIMAL) for f in MINIMAL.rglob("*.yaml")}
    assert configs == {f.relative_to(tmp_path / "site") for f in tmp_path.glob("site/**/*.yaml")}
    main = "from xlm_mlm.commands.cli import main; main"
    out = subprocess.run(
        [sys.executable, "-c", f"{main}(['plugins', '--json'])"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    listed = [row for row in json.loads(out.stdout) if row["distribution"] == "xlm-minimal"]
    assert len(listed) == 8, out.stderr
    assert [row["error"] for row in listed] == [None] * 8


class TestModel:
    tokens = torch.tensor([[7, 9, 2, 11]])

    @pytest.mark.parametrize("left", [True, False])
    @pytest.mark.parametrize("dtype", [torch.bool, torch.long])
    def test_padding_changes_nothing(self, model, left, dtype):
        padding = torch.zeros(1, 3, dtype=torch.long)
        sides = (padding, self.tokens) if left else (self.tokens, padding)
        x = torch.cat(sides, 1)
        logits = model(x, (x != PAD).to(dtype))
        where = slice(3, None) if left else slice(0, 4)
        torch.testing.assert_close(logits[:, where], model(self.tokens))
        assert logits.isfinite().all()

    def test_a_row_of_padding_is_finite_and_so_is_its_gradient(self, model):
        model(self.tokens, torch.zeros(1, 4)).sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())

    def test_positions_can_be_given(self, model):
        given = model(self.tokens, positions=torch.arange(4)[None])
        torch.testing.assert_close(given, model(self.tokens))
        moved = model(self.tokens, positions=torch.arange(4)[None] + 5)
        assert not torch.allclose(moved, given)

    def test_too_many_positions_are_refused(self, model):
        with pytest.raises(ValueError, match=r"13 .*max_length=12"):
            model(torch.ones(1, 13, dtype=torch.long))
        with pytest.raises(ValueError, match=r"16 .*max_length=12"):
            model(self.tokens, positions=torch.full((1, 4), 15))

    def test_vectors_do_not_decay(self, model):
        decayed = dict(model.get_named_params_for_weight_decay())
        others = dict(model.get_named_params_for_no_weight_decay())
        assert decayed.keys() | others.keys() == dict(model.named_parameters()).keys()
        assert not decayed.keys() & others.keys()
        wanted = {n for n in others | decayed if "norm" in n or n.endswith("bias")}
        assert others.keys() == wanted

    def test_weights_go_through_a_file(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        torch.testing.assert_close(
            type(model).from_pretrained(tmp_path).eval()(self.tokens), model(self.tokens)
        )

    def test_half_precision(self, model):
        with torch.autocast("cpu", torch.bfloat16):
            assert model(self.tokens).isfinite().all()
        assert model.to(torch.bfloat16)(self.tokens).isfinite().all()

    def test_width_that_does_not_divide(self, model):
        with pytest.raises(ValueError, match=r"d_model=10 .* nhead=4"):
            type(model)(27, d_model=10, nhead=4)


class TestLoss:
    def test_it_is_the_mean_over_masked_positions_with_a_target(self, loss, model):
        batch = batch_of([[7, MASK, MASK, PAD], [MASK, 9, MASK, 8]], [[7, 8, 9, -100]] * 2)
        before = {name: value.clone() for name, value in batch.items()}
        log_p = model(batch["input_ids"], batch["attention_mask"]).log_softmax(-1)
        terms = [log_p[0, 1, 8], log_p[0, 2, 9], log_p[1, 0, 7], log_p[1, 2, 9]]
        torch.testing.assert_close(loss(batch)["loss"], -sum(terms) / 4)
        assert all(torch.equal(batch[name], before[name]) for name in before)

    @pytest.mark.parametrize(("ids", "targets"), [([[7, 8]], [[7, 8]]), ([[7, 2]], [[7, -100]])])
    def test_nothing_to_learn_is_zero_with_zero_gradients(self, loss, model, ids, targets):
        value = loss(batch_of(ids, targets))["loss"]
        value.backward()
        assert value == 0
        assert all((p.grad == 0).all() for p in model.parameters())

    def test_it_compiles(self, loss):
        batch = batch_of([[7, MASK, MASK, PAD]], [[7, 8, 9, -100]])
        compiled = torch.compile(loss.loss_fn, backend="aot_eager")
        torch.testing.assert_close(compiled(batch)["loss"], loss(batch)["loss"])

    def test_one_batch_is_learned(self, loss, model):
        batch = batch_of([[7, MASK, 9, MASK]], [[7, 8, 9, 10]])
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(40):
            optimizer.zero_grad()
            value = loss(batch)["loss"]
            value.backward()
            optimizer.step()
        assert value < 0.1 * math.log(27)


class TestPredictor:
    @pytest.mark.parametrize(("max_steps", "passes"), [(1, 1), (2, 2), (3, 3), (4, 4), (100, 5)])
    def test_a_pass_is_made_only_where_it_fills(self, new_predictor, max_steps, passes):
        model = TableModel(torch.zeros(6, 27))
        batch = batch_of([[7, 2, 2, 2, 2, 2], [2, 2, 9, 9, 9, 9]])
        preds = new_predictor(max_steps, model=model).predict(batch)
        wanted, left = [], [5, 2]
        while any(left):
            wanted.append(left)
            left = [n - math.ceil(n / (max_steps - len(wanted) + 1)) for n in left]
        assert [(x == MASK).sum(1).tolist() for x in model.inputs] == wanted
        assert len(wanted) == passes
        assert preds["steps_taken"] == [
            sum(n > 0 for n in row) for row in zip(*wanted, strict=True)
        ]
        assert (preds["ids"] != MASK).all()
        assert not any(model.grad_enabled)
        assert not any(model.modes)

    def test_nothing_masked_costs_nothing(self, new_predictor):
        model = TableModel(torch.zeros(6, 27))
        preds = new_predictor(3, model=model).predict(batch_of([[7, 8]]))
        assert (model.inputs, preds["steps_taken"], preds["ids"].tolist()) == ([], [0], [[7, 8]])

    def test_what_is_given_stays_and_the_mask_is_no_answer(self, new_predictor):
        table = torch.zeros(4, 27)
        table[:, MASK] = 100.0
        batch = batch_of([[0, 7, 2, 9], [5, 7, 8, 2]])
        x = batch["input_ids"].clone()
        ids = new_predictor(2, model=TableModel(table)).predict(batch)["ids"]
        assert torch.equal(ids[x != MASK], x[x != MASK])
        assert (ids != MASK).all()
        assert torch.equal(batch["input_ids"], x)

    def test_tokens_are_drawn_from_the_softmax(self, new_predictor):
        table = torch.full((1, 27), -torch.inf)
        table[0, 8], table[0, 9], table[0, MASK] = math.log(3.0), 0.0, 5.0
        predictor = new_predictor(1, model=TableModel(table))
        drawn = predictor.predict(batch_of([[MASK]] * 4000))["ids"]
        assert set(drawn.unique().tolist()) == {8, 9}
        assert (drawn == 8).float().mean().item() == pytest.approx(0.75, abs=0.03)

    def test_a_prompt_is_continued(self, new_predictor, model):
        batch = batch_of([[PAD, 7, 8], [9, 7, 8]])
        preds = new_predictor(3, 2).predict(batch)
        assert preds["ids"].shape == (2, 5)
        assert preds["output_start_idx"] == 3
        assert torch.equal(preds["ids"][:, :3], batch["input_ids"])
        assert preds["attention_mask"].tolist() == [[False] + [True] * 4, [True] * 5]
        assert preds["positions"].tolist() == [[0, 0, 1, 2, 3], [0, 1, 2, 3, 4]]

    def test_the_seed_repeats_it(self, new_predictor):
        def run(seed):
            torch.manual_seed(seed)
            return new_predictor(3, 8).predict(batch_of([[7, 8]]))["ids"].tolist()

        assert run(1) == run(1) != run(2)

    def test_modes_come_back_even_after_an_error(self, new_predictor, model):
        model.train()
        model.norm.eval()
        predictor = new_predictor(3, 2)
        predictor.predict(batch_of([[7, 8]]))
        with pytest.raises(ValueError, match="max_length"):
            predictor.predict(batch_of([[7] * 12]))
        assert (model.training, model.head.training, model.norm.training) == (True, True, False)
        assert torch.is_grad_enabled()

    def test_the_model_is_no_part_of_it(self, new_predictor, model, tokenizer):
        assert not list(new_predictor(3).parameters())
        given = type(new_predictor(3))(3, tokenizer=tokenizer, model=model)
        assert given.model is model
        assert not given.state_dict()

    def test_rows_for_the_log(self, new_predictor):
        batch = batch_of([[PAD, 7], [8, 9]])
        predictor = new_predictor(2, 2)
        preds = predictor.predict(batch) | {"metric_exact_match": [0.0, 1.0]}
        rows = json.loads(json.dumps(predictor.to_dict(batch, preds)))
        assert [row["metric_exact_match"] for row in rows] == [0.0, 1.0]
        assert [row["ids"] for row in rows] == preds["ids"].tolist()
        assert [len(row["text"].split()) for row in rows] == [3, 4]  # padding left out

    def test_generate(self, new_predictor):
        texts = new_predictor(2, 2).generate(["1 2 3", "4"])
        assert [text.split()[:-2] for text in texts] == [["1", "2", "3"], ["4"]]
        (filled,) = new_predictor(2).generate(["1 [MASK] 3"])
        assert filled.split()[::2] == ["1", "3"]
        assert "[MASK]" not in filled
        assert new_predictor(2).generate([]) == []

    @pytest.mark.parametrize("sizes", [(0,), (1, 0)])
    def test_numbers_out_of_range(self, new_predictor, sizes):
        with pytest.raises(ValueError, match="=0 must be at least 1"):
            new_predictor(*sizes)


class TestCollators:
    pairs = (
        {"prompt_ids": [7, 8], "input_ids": [11, 12, 13]},
        {"prompt_ids": [9] * 9, "input_ids": [14] * 9},
    )

    @pytest.fixture
    def collators(self, tokenizer):
        from xlm_minimal import collators

        return {
            "default": collators.DefaultCollator(tokenizer, 5),
            "seq2seq": collators.Seq2SeqCollator(tokenizer, 5, 4),
            "seq2seq_pred": collators.Seq2SeqPredCollator(tokenizer, 5, 4),
            "unconditional": collators.UnconditionalPredCollator(tokenizer, 5),
        }

    def test_running_text(self, collators):
        batch = collators["default"](self.pairs)
        whole = torch.tensor([[11, 12, 13, 0, 0], [14] * 5])
        seen = whole != PAD
        assert torch.equal(batch["attention_mask"], seen)
        assert torch.equal(batch["target_ids"], whole.masked_fill(~seen, -100))
        masked = batch["input_ids"] == MASK
        assert not (masked & ~seen).any()
        assert torch.equal(batch["input_ids"][~masked], whole[~masked])

    def test_pairs_for_training(self, collators):
        batch = collators["seq2seq"](self.pairs)
        prompts = [[0, 0, 7, 8], [9] * 4]
        answers = [[11, 12, 13, END, END], [14] * 5]
        whole = torch.tensor([p + a for p, a in zip(prompts, answers, strict=True)])
        masked = batch["input_ids"] == MASK
        assert not masked[:, :4].any()
        assert torch.equal(batch["input_ids"][~masked], whole[~masked])
        assert batch["target_ids"].tolist() == [[-100] * 4 + a for a in answers]
        assert torch.equal(batch["attention_mask"], whole != PAD)

    def test_pairs_for_prediction(self, collators):
        batch = collators["seq2seq_pred"](self.pairs)
        assert batch["input_ids"].tolist() == [[0, 0, 7, 8], [9] * 4]
        assert batch["target_ids"].tolist() == [[11, 12, 13, END, PAD], [14] * 5]
        assert batch["attention_mask"].tolist() == [[False, False, True, True], [True] * 4]

    def test_masks_come_as_they_are(self, collators, tokenizer):
        from xlm_minimal.collators import AllMaskDataset

        rows = AllMaskDataset(tokenizer, num_examples=2, max_length=3)
        batch = collators["unconditional"](list(rows))
        assert batch["input_ids"].tolist() == [[MASK] * 3 + [PAD] * 2] * 2
        assert batch["attention_mask"].sum(1).tolist() == [3, 3]

    @pytest.mark.parametrize("name", ["default", "seq2seq"])
    def test_mask_rates_are_uniform(self, collators, name):
        rows = [{"prompt_ids": [7], "input_ids": [8] * 5}] * 4000
        masked = (collators[name](rows)["input_ids"][:, -5:] == MASK).sum(1)
        # A rate uniform over [0, 1] makes every count from 0 to 5 as likely as any other.
        shares = masked.bincount(minlength=6) / 4000
        assert shares.tolist() == pytest.approx([1 / 6] * 6, abs=0.03)

    @pytest.mark.parametrize("name", ["default", "seq2seq", "seq2seq_pred", "unconditional"])
    def test_each_is_picklable_and_changes_no_row(self, collators, name):
        rows = [{key: list(value) for key, value in row.items()} for row in self.pairs]
        first, second = collators[name], pickle.loads(pickle.dumps(collators[name]))
        torch.manual_seed(1)
        batch = first(rows)
        torch.manual_seed(1)
        assert all(torch.equal(value, batch[key]) for key, value in second(rows).items())
        assert rows == list(self.pairs)

    @pytest.mark.parametrize("name", ["default", "seq2seq", "seq2seq_pred", "unconditional"])
    def test_nothing_to_collate(self, collators, name):
        with pytest.raises(ValueError, match="no rows"):
            collators[name]([])
        with pytest.raises(ValueError, match="row 1 has no tokens in 'input_ids'"):
            collators[name]([self.pairs[0], {"prompt_ids": [7], "input_ids": []}])


class TestMetrics:
    def test_the_loss(self):
        from xlm_minimal.metrics import mean_loss_update_fn

        value = mean_loss_update_fn({}, {"loss": torch.tensor(2.0, requires_grad=True)})["value"]
        assert value == 2.0
        assert not value.requires_grad

    @pytest.mark.parametrize(
        ("written", "right", "match"),
        [
            ([8, 9, END, END], [8, 9, END, PAD], True),
            ([8, 9, END, 7], [8, 9, END, PAD], True),  # what follows the end does not count
            ([8, 9, 7, END], [8, 9, END, PAD], False),
            ([8, END, END, END], [8, 9, END, PAD], False),
            ([8, 9, 10, 11], [8, 9, 10, 11], True),
            ([8, 9], [8, 9, END, PAD], False),
            ([8, 9], [8, 9, PAD, PAD], True),  # answers of other collators may have no end
            ([8, 9, END, 7, 7, 7], [8, 9, END, PAD], True),
        ],
    )
    def test_exact_match(self, tokenizer, written, right, match):
        from xlm.metrics import ExactMatch
        from xlm_minimal.metrics import exact_match_update_fn

        preds = {"ids": torch.tensor([[5, 6, *written]]), "output_start_idx": 2}
        metric = ExactMatch()
        metric.update(**exact_match_update_fn(batch_of([[5, 6]], [right]), preds, tokenizer))
        assert metric.compute() == float(match)
