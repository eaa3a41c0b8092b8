"""The host's star graphs, generated here instead of fetched."""

import contextlib
import random
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
from xlm.datamodule import token_ids_to_input_ids_and_prompt_ids
from xlm.tasks.star import (
    AsymmetricVariableArmlengthStarGraphGenerator,
    SimpleStarGraphGenerator,
    preprocess_fn,
)

from xlm_mlm.checks import require_choice, require_int
from xlm_mlm.data.cache import CachedDatasetManager

GENERATORS = {
    "simple": SimpleStarGraphGenerator,
    "asymmetric": AsymmetricVariableArmlengthStarGraphGenerator,
}

# Made in this order: each split leaves out what the earlier ones hold, so the largest is last.
ORDER = ("validation", "test", "train")

# The least that each argument of a generator may be. Arms of one node have no edge, and one arm
# leaves nothing to choose.
_LEAST = {
    "simple": {"degree": 2, "pathlength": 2, "vocab_size": 3},
    "asymmetric": {
        "degree": 2,
        "min_pathlength": 2,
        "max_pathlength": 2,
        "min_plan_length": 0,
        "vocab_size": 2,
    },
}

# numpy takes 32 bits, and every split has a seed of its own.
_MAX_SEED = 2**32 // len(ORDER) - 1

# Consecutive repeats after which a generator is taken to have nothing new.
_PATIENCE = 1000


@contextlib.contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seed `random` and `numpy.random`, from which the host's generators draw; restore them."""
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def graph_key(graph: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two graphs the same problem: their edges in any order, source and goal."""
    edges = frozenset((int(a), int(b)) for a, b in graph["edge_list"])
    return edges, int(graph["source"]), int(graph["goal"])


def generate_splits(
    generator: Any, counts: Mapping[str, int], seed: int, last: str = "train"
) -> dict[str, list[dict[str, Any]]]:
    """Graphs of each split up to `last`, all different within a split and between splits.

    Raises:
        ValueError: the generator has fewer different graphs than are asked for.
    """
    seen: set[tuple[Any, ...]] = set()
    made: dict[str, list[dict[str, Any]]] = {}
    for number, split in enumerate(ORDER):
        with seeded_globals(len(ORDER) * seed + number):
            made[split] = _distinct(generator, counts[split], seen, split)
        if split == last:
            break
    return made


def _distinct(
    generator: Any, count: int, seen: set[tuple[Any, ...]], split: str
) -> list[dict[str, Any]]:
    graphs: list[dict[str, Any]] = []
    repeats = 0
    while len(graphs) < count:
        (graph,) = generator.graphs(1)
        key = graph_key(graph)
        repeats = repeats + 1 if key in seen else 0
        if repeats > _PATIENCE:
            raise ValueError(
                f"{split} asks for {count} different graphs, but after {len(graphs)} of them "
                f"{_PATIENCE} in a row were repeats; ask for fewer or for larger graphs "
                f"({generator.unique_str()})"
            )
        if not repeats:
            seen.add(key)
            graphs.append(_plain(graph))
    return graphs


def _plain(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The same graph without numpy's integers."""
    return {
        "edge_list": [[int(a), int(b)] for a, b in graph["edge_list"]],
        "source": int(graph["source"]),
        "goal": int(graph["goal"]),
        "path": [int(node) for node in graph["path"]],
    }


def make_generator(name: str, kwargs: Mapping[str, int]) -> Any:
    """The host's generator `name`, its arguments checked: the host does so late or not at all.

    Raises:
        ValueError: an unknown generator or argument, or arguments that no graph fits.
    """
    require_choice("generator", name, GENERATORS)
    least = _LEAST[name]
    if not isinstance(kwargs, Mapping):
        raise ValueError(f"generator_kwargs is {kwargs!r}; it must map {', '.join(least)} to sizes")
    given = dict(kwargs)
    try:
        for key in given:
            require_choice("a key", key, least)
        sizes = {key: require_int(key, value, least[key]) for key, value in given.items()}
        generator = GENERATORS[name](**sizes)
        _check_sizes(generator)
    except ValueError as error:
        raise ValueError(f"generator_kwargs is {given!r}: {error}") from None
    return generator


def _check_sizes(generator: Any) -> None:
    """Refuse arguments, the host's defaults among them, that do not go together."""
    if isinstance(generator, SimpleStarGraphGenerator):
        nodes = generator.degree * generator.pathlength + 1
        rule = "degree * pathlength + 1"
    else:
        shortest = generator.min_pathlength
        require_int("max_pathlength", generator.max_pathlength, shortest)
        if generator.min_plan_length >= shortest:
            raise ValueError(
                f"min_plan_length is {generator.min_plan_length}; it must be less than "
                f"min_pathlength ({shortest})"
            )
        nodes = generator.degree * (generator.max_pathlength - 1) + 1
        rule = "degree * (max_pathlength - 1) + 1"
    if generator.vocab_size < nodes:
        raise ValueError(
            f"vocab_size is {generator.vocab_size}; it must be at least {rule} = {nodes}"
        )


class StarGraphDatasetManager(CachedDatasetManager):
    """Paths through star graphs: given the edges, the source and the goal, name the path's edges.

    Rows hold `prompt_ids` (two tokens an edge, then source and goal) and `input_ids` (two tokens
    an edge of the path), made by the host's own preprocessing. Splits are disjoint, and
    "predict" is "test". The global random states are left as they were.

    Args:
        generator: "simple" (arms of one length) or "asymmetric" (arms of varied length).
        generator_kwargs: as the host's generator takes them, less `count`.
        counts: graphs in each of "train", "validation" and "test".
        seed: decides the graphs; at least 0 and less than 2**32 / 3.
        options: see `CachedDatasetManager`.

    Raises:
        ValueError: an unknown generator or argument of it, a number out of range, a missing
            count, graphs that do not fit the collator; later, more graphs than there are.
    """

    dataset_name = "star_graphs"
    same_rows: ClassVar[Mapping[str, str]] = {"predict": "test"}

    def __init__(
        self,
        collator: Any,
        split: str,
        dataloader_kwargs: Mapping[str, Any],
        generator: str,
        generator_kwargs: Mapping[str, Any],
        counts: Mapping[str, int],
        seed: int = 0,
        **options: Any,
    ):
        super().__init__(collator, split, dataloader_kwargs, **options)
        if not isinstance(counts, Mapping) or set(counts) != set(ORDER):
            raise ValueError(f"counts is {counts!r}; it must have the keys {', '.join(ORDER)}")
        self.counts = {name: require_int(f"counts.{name}", n, 1) for name, n in counts.items()}
        self.seed = require_int("seed", seed, 0)
        if self.seed > _MAX_SEED:
            raise ValueError(f"seed is {seed}; it must be at most {_MAX_SEED}")
        self.generator = make_generator(generator, generator_kwargs)
        self.generator_kwargs = {key: int(size) for key, size in generator_kwargs.items()}
        self._check_room()

    def _check_room(self) -> None:
        """Refuse graphs that the collator would have to cut: an edge less is another problem."""
        needs = {
            # Two tokens an edge, then source and goal; and the path's edges, then EOS.
            "input_block_size": 2 * self.generator.max_num_edges + 2,
            "block_size": 2 * (self.generator.max_pathlength - 1) + 1,
        }
        for name, need in needs.items():
            size = getattr(self.collator, name, None)
            if size is not None and size < need:
                raise ValueError(
                    f"{name} is {size}, but graphs of generator_kwargs {self.generator_kwargs} "
                    f"take up to {need} tokens there; raise {name}, or make the graphs smaller"
                )

    def cache_inputs(self) -> dict[str, Any]:
        """The generator, its options, and the host's version, whose code generates."""
        return {
            "generator": type(self.generator).__name__,
            "generator_kwargs": self.generator_kwargs,
            "counts": self.counts,
            "seed": self.seed,
            "host": version("xlm-core"),
        }

    def make_rows(self, tokenizer: Any, workspace: Path) -> datasets.Dataset:
        """Generate the graphs of `self.split`; they fit in memory."""
        splits = generate_splits(self.generator, self.counts, self.seed, last=self.split)
        graphs = splits[self.split]
        return datasets.Dataset.from_list([_ids(graph, tokenizer) for graph in graphs])


def _ids(graph: dict[str, Any], tokenizer: Any) -> dict[str, list[int]]:
    try:
        tokens: Any = preprocess_fn(graph, tokenizer)
    except KeyError as error:
        raise ValueError(
            f"the tokenizer has no token for node {error}; a generator with vocab_size N needs "
            "xlm.datamodule.SimpleSpaceTokenizer.for_numbers(N)"
        ) from None
    return token_ids_to_input_ids_and_prompt_ids(tokens, tokenizer)
