"""Model, loss, predictor and the rules of sampling."""

import torch
from bad_input.cases import ARRAY, DICT, HALF, HUGE, LIST, NAN, Case, options

from xlm_mlm import MLMLoss, MLMPredictor, RotaryTransformerMLMModel
from xlm_mlm.likelihood_mlm import mlm_nll, pseudo_log_likelihood
from xlm_mlm.sampling.positions import Budget
from xlm_mlm.sampling.revise import ReMDM
from xlm_mlm.sampling.thresholds import Klass, ProbabilityFactor, ProbabilityThreshold

BOOL = "must be true or false"
ONE_UP = "must be an integer of at least 1"


def model(place, **more):
    usual = {"num_embeddings": 27, "d_model": 32, "num_layers": 1, "nhead": 2}
    return RotaryTransformerMLMModel(**{**usual, "rotary_emb_dim": 16, **more})


def forward(place, **more):
    return place.model(**{"x_t": torch.tensor([[8, 2, 9]]), **more})


def batch(**more):
    ids = torch.tensor([[8, 2, 2, 9]])
    return {"input_ids": ids, "target_ids": torch.tensor([[8, 9, 10, 9]]), **more}


def loss(place, **more):
    return MLMLoss(**{"model": place.model, "tokenizer": place.tokenizer, **more})(batch())


def loss_of(place, **fields):
    made = MLMLoss(model=place.model, tokenizer=place.tokenizer, loss_weighting="elbo")
    return made(batch(**fields))


def predict(place, **more):
    usual = {"max_steps": 4, "model": place.model, "tokenizer": place.tokenizer}
    return MLMPredictor(**{**usual, **more}).predict(batch())


def predict_of(place, **fields):
    made = MLMPredictor(4, model=place.model, tokenizer=place.tokenizer)
    return made.predict(batch(**fields))


def generate(place, prompts):
    return MLMPredictor(4, model=place.model, tokenizer=place.tokenizer).generate(prompts)


def nll(place, **more):
    ids = torch.tensor([[8, 9]])
    return mlm_nll(place.model, ids, **{"maskable": ids > 0, "mask_id": 2, **more})


CASES = [
    *options(
        "model",
        model,
        {
            "num_embeddings": ("27", "num_embeddings is '27'", ONE_UP),
            "num_embeddings#huge": (HUGE, "num_embeddings is", "at most 2147483647"),
            "d_model": (31, "d_model is 31", "multiple of nhead, 2"),
            "d_model#bool": (True, "d_model is True", ONE_UP),
            "nhead": (0, "nhead is 0", ONE_UP),
            "num_layers": (LIST, "num_layers is [1]", ONE_UP),
            "dim_feedforward": (NAN, "dim_feedforward is nan", ONE_UP),
            "dropout": ("0.1", "dropout is '0.1'", "at least 0 and below 1"),
            "dropout#one": (1.0, "dropout is 1.0", "below 1"),
            "dropout#nan": (NAN, "dropout is nan", "below 1"),
            "rotary_emb_dim": (7, "rotary_emb_dim is 7", "must be even"),
            "rotary_emb_dim#large": (64, "rotary_emb_dim is 64", "d_model / nhead = 16"),
            "activation": ("swish", "activation is 'swish'", "'relu', 'gelu'"),
            "layer_norm_eps": (-1e-5, "layer_norm_eps is -1e-05", "at least 1e-30"),
            "max_length": (None, "max_length is None", ONE_UP),
            "mask_idx": (27, "mask_idx is 27", "below num_embeddings, 27"),
            "mask_idx#padding": (0, "padding_idx and mask_idx are both 0", "must differ"),
            "force_flash_attn": ("false", "force_flash_attn is 'false'", BOOL),
            "final_layer_without_normalization": (0, "normalization is 0", BOOL),
        },
    ),
    *options(
        "forward",
        forward,
        {
            "x_t": ([[8, 9]], "x_t is a list", "tensor of token ids"),
            "x_t#outside": (torch.tensor([[27]]), "token id 27", "0 to 26"),
            "x_t#negative": (torch.tensor([[-1, 8]]), "token id -1", "0 to 26"),
            "x_t#float": (torch.rand(1, 3), "dtype torch.float32", "must be integers"),
            "x_t#empty": (torch.zeros(1, 0, dtype=torch.long), "shape (1, 0)", "neither of them 0"),
            "x_t#long": (torch.full((1, 17), 8), "length 17", "max_length of 16"),
            "positions": (torch.tensor([[0, 1, 99]]), "99", "16"),
            "positions#shape": (torch.tensor([[0, 1]]), "positions", "(1, 2)", "(1, 3)"),
            "attention_mask": (torch.ones(1, 4), "attention_mask has shape (1, 4)", "(1, 3)"),
            "attention_mask#two": (torch.full((1, 3), 2), "values from 2 to 2", "0 (hidden) or 1"),
            "block_mask": (torch.ones(3, 3), "block_mask is a Tensor", "BlockMask"),
            "logits_at": (torch.tensor([3]), "indices from 3 to 3", "0 to 2"),
        },
    ),
    *options(
        "loss",
        loss,
        {
            "loss_weighting": ("elbos", "loss_weighting is 'elbos'", "'mean', 'elbo'"),
            "loss_weighting#array": (ARRAY, "loss_weighting is array([1, 2])", "'mean'"),
            "loss_on_visible_tokens": ("false", "loss_on_visible_tokens is 'false'", BOOL),
            "use_num_masked_factor": (None, "use_num_masked_factor is None", BOOL),
            "num_mc_samples": (0, "num_mc_samples is 0", ONE_UP),
            "likelihood_seed": (2**64, "seed is 18446744073709551616", "below 2**64"),
            "model": ("net", "model is 'net'", "must be a network"),
            "tokenizer": (None, "no tokenizer was given", "mask token"),
        },
    ),
    *options(
        "loss-batch",
        loss_of,
        {
            "target_ids": (torch.tensor([[8, 27, 9, 9]]), "target id 27", "-100"),
            "target_ids#negative": (torch.tensor([[8, -1, 9, 9]]), "target id -1", "-100"),
            "target_ids#shape": (torch.tensor([[8, 9]]), "(1, 4)", "(1, 2)", "one target for each"),
            "target_ids#float": (torch.rand(1, 4), "target_ids", "tensor of integers"),
            "segment_ids": ([0, 0, 1, 1], "segment_ids are [0, 0, 1, 1]", "shape (1, 4)"),
            "segment_ids#shape": (torch.zeros(4), "shape (4,)", "shape (1, 4)"),
            "fixed_positions_mask": (torch.zeros(1, 4), "float32", "tensor of booleans"),
            "elbo_weights": (torch.tensor([NAN]), "elbo_weights are [nan]", "must be finite"),
            "elbo_weights#shape": (torch.ones(2), "shape (2,)", "shape (1,)"),
        },
    ),
    Case("loss-batch-none", lambda p: MLMLoss(model=p.model)(None), ("batch is None", "mapping")),
    Case(
        "loss-batch-missing",
        lambda p: loss_of(p, target_ids=None),
        ("'target_ids'", "its fields: input_ids"),
        KeyError,
    ),
    *options(
        "predictor",
        predict,
        {
            "max_steps": (0, "max_steps is 0", ONE_UP),
            "max_steps#none": (None, "max_steps is None", ONE_UP),
            "max_steps#huge": (HUGE, "max_steps is", "at most 2147483648"),
            "max_new_tokens": (-1, "max_new_tokens is -1", "at least 0"),
            "top_k": (True, "top_k is True", ONE_UP),
            "top_k#half": (HALF, "top_k is np.float32(0.5)", ONE_UP),
            "top_p": ("0.9", "top_p is '0.9'", "above 0 and at most 1"),
            "top_p#zero": (0.0, "top_p is 0.0", "above 0"),
            "top_p#huge": (HUGE, "top_p is", "at most 1"),
            "temperature": (NAN, "temperature is nan", "0 is greedy"),
            "temperature#list": ([], "temperature is []", "finite and at least 0"),
            "confidence": ("entropi", "confidence is 'entropi'", "'top_prob', 'prob_diff'"),
            "confidence#dict": (DICT, "confidence is {'a': 1}", "'entropy'"),
            "confidence_temperature": (-0.1, "confidence_temperature is -0.1", "at least 0"),
            "threshold": (0.5, "threshold is 0.5", "confidence is None", "'top_prob'"),
            "skip_special_tokens": ("yes", "skip_special_tokens is 'yes'", BOOL),
            "seed": (1.5, "seed is 1.5", "integer of at least 0"),
            "strategy": ("klas", "strategy is 'klas'", "'klass'"),
            "strategy#empty": ({}, "strategy is {}", "under `name`", "'uniform'"),
            "strategy#kind": ("p2", "strategy is 'p2'", "option revision"),
            "strategy#option": ({"name": "klass", "tua": 1}, "'klass'", "options: tau, kappa"),
            "strategy#value": ({"name": "klass", "tau": 2}, "tau is 2", "above 0 and at most 1"),
            "revision": (5, "revision is 5", "`remask(generated)`"),
            "block_length": ("4", "block_length is '4'", ONE_UP),
            "cfg_scale": (1e7, "cfg_scale is 10000000.0", "to a million"),
            "suppress_tokens": ("[MASK]", "suppress_tokens is '[MASK]'", "a list of"),
            "suppress_tokens#word": (["zzz"], "'zzz'", "no token of the tokenizer"),
            "suppress_tokens#id": ([99], "token id 99", "vocabulary of 27"),
            "allowed_tokens": ({"3:1": [8]}, "position '3:1'", "a range as '1:17'"),
            "allowed_tokens#twice": ({1: [8], "0:2": [9]}, "position 1 twice", "once"),
            "logits_hook": ("shift", "logits_hook is 'shift'", "must be callable"),
            "history": ("out", "history is 'out'", "HistoryTopKPlugin(output_dir)"),
            "model": (3, "model is 3", "must be a network"),
        },
    ),
    Case(
        "predictor-contradiction",
        lambda p: predict(p, top_k=2, top_p=0.5),
        ("top_k=2 and top_p=0.5", "choose one"),
    ),
    *options(
        "predictor-batch",
        predict_of,
        {
            "input_ids": ([[8, 2]], "input_ids is a list", "tensor"),
            "input_ids#float": (torch.rand(1, 4), "float32", "integers"),
            "input_ids#row": (torch.tensor([8, 2]), "shape (2,)", "(batch, length)"),
            "attention_mask": (torch.ones(4), "shape (4,)", "(1, 4)"),
            "attention_mask#additive": (torch.zeros(1, 4), "float32", "additive mask is not taken"),
            "positions": (torch.tensor([[0, 1]]), "positions has shape (1, 2)", "(1, 4)"),
            "segment_ids": (DICT, "segment_ids is a DictConfig", "tensor"),
            "sample_ids": ([-1], "sample_ids are [-1]", "1 integers of at least 0"),
            "allowed_tokens": (torch.ones(3), "allowed_tokens", "boolean tensor"),
            "allowed_tokens#shape": (torch.ones(3, dtype=torch.bool), "shape (3,)", "(27,)"),
        },
    ),
    Case(
        "predictor-batch-list",
        lambda p: MLMPredictor(1, model=p.model, tokenizer=p.tokenizer).predict([batch()]),
        ("batch is a list", "mapping of tensors"),
    ),
    *options(
        "generate",
        generate,
        {
            "prompts": ("1 [MASK]", "prompts is '1 [MASK]'", "list of strings"),
            "prompts#none": ([None], "prompt 0 is None", "must be a string"),
            "prompts#word": (["zzz [MASK]"], "prompt 0", "can't be tokenised"),
            "prompts#no-mask": (["1 2"], "holds no [MASK]", "max_new_tokens"),
        },
    ),
    *options(
        "likelihood",
        nll,
        {
            "maskable": (torch.ones(1, 2), "float32", "must be bool"),
            "mask_id": ("2", "mask_id is '2'", "at least 0"),
            "mask_id#shown": (8, "position 0 of row 0", "holds the mask token"),
            "num_mc_samples": (HUGE, "num_mc_samples is", "at most"),
            "sample_ids": ([0], "sample_ids are [0]", "tensor of 1 integers"),
        },
    ),
    Case(
        "pseudo-likelihood-list",
        lambda p: pseudo_log_likelihood(p.model, [[8]], None, 2),
        ("input_ids are", "tensor (rows, tokens)"),
    ),
    Case("threshold-tau", lambda p: ProbabilityThreshold("0.9"), ("tau is '0.9'", "at most 1")),
    Case("factor-nan", lambda p: ProbabilityFactor(NAN), ("factor is nan", "at least 0")),
    Case("klass-kappa", lambda p: Klass(kappa=0), ("kappa is 0", "above 0")),
    Case("klass-history", lambda p: Klass(history=True), ("history is True", ONE_UP)),
    Case("budget-huge", lambda p: Budget("top_prob", HUGE), ("threshold is", "finite")),
    Case("remdm-rule", lambda p: ReMDM("caps"), ("rule is 'caps'", "'cap', 'rescale', 'conf'")),
    Case("remdm-eta", lambda p: ReMDM(eta=2), ("eta is 2", "from 0 to 1")),
    Case(
        "remdm-loop", lambda p: ReMDM(loop=[0.9, 0.1, 0.5]), ("[0.9, 0.1, 0.5]", "begin before end")
    ),
]
