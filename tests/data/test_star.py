"""Star graphs: the host's own, disjoint, of the sizes that the experiments reckon with."""

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
from xlm.datamodule import SimpleSpaceTokenizer

from xlm_mlm.data.star import (
    GENERATORS,
    StarGraphDatasetManager,
    generate_splits,
    graph_key,
    make_generator,
)

COUNTS = {"train": 300, "validation": 20, "test": 100}
# difficulty: generator, its arguments, block size, input block size
DIFFICULTIES = {
    "easy": ("simple", {"degree": 3, "pathlength": 5, "vocab_size": 20}, 14, 28),
    "medium": (
        "asymmetric",
        {
            "degree": 3,
            "min_pathlength": 3,
            "max_pathlength": 6,
            "min_plan_length": 2,
            "vocab_size": 20,
        },
        16,
        36,
    ),
    "hard": (
        "asymmetric",
        {
            "degree": 5,
            "min_pathlength": 6,
            "max_pathlength": 12,
            "min_plan_length": 5,
            "vocab_size": 56,
        },
        28,
        116,
    ),
}


def manager(difficulty="easy", split="train", **options):
    generator, kwargs, _, _ = DIFFICULTIES[difficulty]
    options = {"counts": COUNTS, **options}
    return StarGraphDatasetManager(None, split, {"batch_size": 1}, generator, kwargs, **options)


def rows(difficulty="easy", split="train", **options):
    tokenizer = SimpleSpaceTokenizer.for_numbers(DIFFICULTIES[difficulty][1]["vocab_size"])
    return manager(difficulty, split, **options).make_rows(tokenizer, None)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_rows_fit_the_experiments_and_the_answer_is_the_path(difficulty):
    _, _, block_size, input_block_size = DIFFICULTIES[difficulty]
    made = rows(difficulty)
    assert len(made) == COUNTS["train"]
    assert max(map(len, made["prompt_ids"])) <= input_block_size
    assert max(map(len, made["input_ids"])) + 1 <= block_size  # EOS
    for prompt, answer in zip(made["prompt_ids"], made["input_ids"], strict=True):
        edges = list(zip(prompt[:-2:2], prompt[1:-2:2], strict=True))
        path = list(zip(answer[::2], answer[1::2], strict=True))
        assert set(path) <= set(edges)
        assert (path[0][0], path[-1][1]) == tuple(prompt[-2:])
        assert all(a[1] == b[0] for a, b in itertools.pairwise(path))


def test_splits_are_disjoint_whatever_the_other_managers_made():
    keys = []
    for split in ("train", "validation", "test"):
        made = rows(split=split)
        keys.append({(frozenset(edges_of(p)), *p[-2:]) for p in made["prompt_ids"]})
        assert len(keys[-1]) == len(made) == COUNTS[split]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]


def edges_of(prompt):
    return list(zip(prompt[:-2:2], prompt[1:-2:2], strict=True))


def test_small_world_is_divided_without_repeats_or_refused():
    # Two arms of one edge each, on three of five nodes.
    generator = GENERATORS["simple"](degree=2, pathlength=2, vocab_size=5)
    world = 5 * 4 * 3  # source, goal, the other arm's node
    counts = {"validation": 10, "test": 20, "train": world - 30}
    splits = generate_splits(generator, counts, seed=0)
    everything = [graph_key(graph) for graphs in splits.values() for graph in graphs]
    assert len(set(everything)) == len(everything) == world
    with pytest.raises(ValueError, match=f"train asks for {world - 29} different graphs"):
        generate_splits(generator, {**counts, "train": world - 29}, seed=0)


def test_graph_key_ignores_the_order_of_edges_alone():
    graph = {"edge_list": [[1, 2], [1, 3]], "source": 1, "goal": 3}
    assert graph_key(graph) == graph_key({**graph, "edge_list": [[1, 3], [1, 2]]})
    assert graph_key(graph) != graph_key({**graph, "edge_list": [[1, 3], [2, 1]]})
    assert graph_key(graph) != graph_key({**graph, "goal": 2})


def test_same_seed_same_graphs_and_global_random_states_stay():
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()
    first = rows(seed=3).to_dict()
    assert random.getstate() == before[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
    random.seed(6)
    assert rows(seed=3).to_dict() == first
    assert rows(seed=4).to_dict() != first


def test_global_random_states_stay_after_an_error():
    before = random.getstate()
    # Five nodes: 5 sources, 4 goals and 3 ends of the other arm are 60 graphs.
    kwargs = {"degree": 2, "pathlength": 2, "vocab_size": 5}
    few = StarGraphDatasetManager(None, "test", {}, "simple", kwargs, {**COUNTS, "test": 200})
    with pytest.raises(ValueError, match="200 different graphs"):
        few.make_rows(SimpleSpaceTokenizer.for_numbers(5), None)
    assert random.getstate() == before


def test_a_seed_and_a_split_share_their_graphs_with_no_other():
    made = [rows(split=split, seed=s)["prompt_ids"] for s in (0, 1, 2) for split in COUNTS]
    firsts = {tuple(prompts[0]) for prompts in made}
    assert len(firsts) == len(made) == 9


def test_the_cache_is_keyed_by_graphs_counts_and_seed():
    tokenizer = SimpleSpaceTokenizer.for_numbers(20)

    def folder(split="train", generator="simple", kwargs=DIFFICULTIES["easy"][1], **options):
        options = {"counts": COUNTS, **options}
        made = StarGraphDatasetManager(None, split, {}, generator, kwargs, **options)
        made._tokenizer = tokenizer
        return made._get_cache_dir("data")

    changed = [
        folder(split="test"),
        folder(generator="asymmetric", kwargs={}),
        folder(kwargs={**DIFFICULTIES["easy"][1], "pathlength": 4}),
        folder(counts={**COUNTS, "train": 301}),
        # Training graphs are those that the other splits leave.
        folder(counts={**COUNTS, "validation": 21}),
        folder(seed=1),
    ]
    assert len({folder(), *changed}) == 1 + len(changed)
    assert folder(kwargs=dict(reversed(DIFFICULTIES["easy"][1].items()))) == folder()


def test_predict_is_test():
    assert rows(split="predict").to_dict() == rows(split="test").to_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": {"train": 1}}, "counts.*validation"),
        ({"counts": None}, "counts is None.*validation"),
        ({"counts": {**COUNTS, "test": 0}}, "counts.test is 0"),
        ({"counts": {**COUNTS, "test": "x"}}, "counts.test is 'x'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": None}, "seed is None"),
        ({"seed": 1431655765}, "seed is .*at most 1431655764"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        manager(**options)


def test_the_largest_seed_seeds_every_split():
    assert len(rows(seed=1431655764, counts=dict.fromkeys(COUNTS, 1))) == 1


@pytest.mark.parametrize(
    ("difficulty", "changes", "message"),
    [
        ("easy", {"length": 5}, "'length'; it must be one of 'degree', 'pathlength'"),
        ("easy", {"count": 5}, "'count'"),
        ("easy", {"pathlength": "x"}, "pathlength is 'x'"),
        ("easy", {"pathlength": 1}, "pathlength is 1; .* at least 2"),
        ("easy", {"degree": None}, "degree is None"),
        ("easy", {"vocab_size": 15}, r"vocab_size is 15; .* = 16$"),
        ("medium", {"vocab_size": 15}, r"vocab_size is 15; .* = 16$"),
        ("medium", {"min_pathlength": 7}, "max_pathlength is 6; .* at least 7"),
        ("medium", {"min_plan_length": 3}, r"min_plan_length is 3; .* min_pathlength \(3\)"),
    ],
)
def test_arguments_that_no_graph_fits(difficulty, changes, message):
    kwargs = {**DIFFICULTIES[difficulty][1], **changes}
    with pytest.raises(ValueError, match=f"^generator_kwargs is {{.*}}: .*{message}"):
        make_generator(DIFFICULTIES[difficulty][0], kwargs)


@pytest.mark.parametrize("other", [None, "x", ["degree"]])
def test_generator_arguments_that_are_no_mapping(other):
    with pytest.raises(ValueError, match=r"generator_kwargs is .*must map degree, pathlength"):
        StarGraphDatasetManager(None, "train", {}, "simple", other, COUNTS)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("simple", {"degree": 2, "pathlength": 2, "vocab_size": 5}),
        ("simple", {"degree": 3, "pathlength": 5, "vocab_size": 16}),
        (
            "asymmetric",
            {"degree": 3, "min_pathlength": 2, "max_pathlength": 6, "min_plan_length": 0}
            | {"vocab_size": 16},
        ),
    ],
)
def test_the_least_arguments_make_graphs(name, kwargs):
    """At the limits the host's generator ends, and its path leads from source to goal."""
    for graph in make_generator(name, kwargs).graphs(30):
        assert (graph["path"][0], graph["path"][-1]) == (graph["source"], graph["goal"])
        edges = {tuple(edge) for edge in graph["edge_list"]}
        assert set(itertools.pairwise(graph["path"])) <= edges


def test_unknown_generator_and_too_small_a_tokenizer():
    with pytest.raises(ValueError, match="'spiral'.*'simple'"):
        StarGraphDatasetManager(None, "train", {}, "spiral", {}, COUNTS)
    with pytest.raises(ValueError, match="for_numbers"):
        manager().make_rows(SimpleSpaceTokenizer.for_numbers(4), None)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"block_size": 14, "input_block_size": 25}, "input_block_size is 25.* up to 26 tokens"),
        ({"block_size": 8, "input_block_size": 28}, "^block_size is 8.* up to 9 tokens"),
    ],
)
def test_graphs_that_the_collator_would_cut_are_refused(sizes, words):
    generator, kwargs, _, _ = DIFFICULTIES["easy"]

    def made(**sizes):
        collator = SimpleNamespace(**sizes)
        return StarGraphDatasetManager(collator, "train", {}, generator, kwargs, COUNTS)

    assert made(block_size=9, input_block_size=26).counts == COUNTS
    with pytest.raises(ValueError, match=words):
        made(**sizes)


@pytest.mark.parametrize("change", [{"degree": 1}, {"degree": 0}, {"pathlength": 1}])
def test_graphs_that_leave_nothing_to_choose_are_refused(change):
    with pytest.raises(ValueError, match="must be an integer of at least 2"):
        make_generator("simple", {**DIFFICULTIES["easy"][1], **change})
