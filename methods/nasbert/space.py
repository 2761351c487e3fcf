"""NAS-BERT's space: per block a hidden size and a path of operations, and the width of the embedding (paper, section 3)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from methods.backbone import BERT_BASE, BackboneConfig
from methods.costs import CostArrays
from methods.errors import UserError
from methods.nasbert.encoding import (
    METHOD_NAME,
    PAPER_EMBEDDING_SIZES,
    PAPER_HIDDEN_SIZES,
    PAPER_OPERATIONS,
    architecture_of,
    check_sizes,
)
from methods.nasbert.hand_made import hand_made
from methods.nasbert.networks import Settings, network_spec
from methods.nasbert.tables import CostTables, Extreme, Table, cost_tables, extreme, part_tables
from methods.network import NetworkSpec
from methods.space import Architecture, Assignment, Choice, Form, SearchSpace, Value
from methods.tasks.head import Head

if TYPE_CHECKING:
    from methods.latency import LatencyTable
    from methods.nasbert.options import NasBertOptions


class NasBertSpace(SearchSpace):
    """`sublayers` in `blocks` of equal length; identities stand at the end of a block, so that no network occurs twice.

    `backbone` only decides which architectures are `smallest` and `largest` (its vocabulary weighs embedding against the rest).
    """

    method = METHOD_NAME
    deployed_only = frozenset({"embedding"})

    def __init__(
        self,
        sublayers: int = 24,
        blocks: int = 4,
        hidden_sizes: Sequence[int] = PAPER_HIDDEN_SIZES,
        operations: Sequence[str] = PAPER_OPERATIONS,
        embedding_sizes: Sequence[int] = PAPER_EMBEDDING_SIZES,
        head_size: int = 64,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        convolution_dropout: float = 0.0,
        dynamic_dropout: bool = False,
        backbone: BackboneConfig = BERT_BASE,
        method: str = METHOD_NAME,
    ) -> None:
        """Raises ValueError where the sizes do not go together."""
        check_sizes(sublayers, blocks, hidden_sizes, operations, embedding_sizes, head_size)
        self.blocks, self.per_block = blocks, sublayers // blocks
        self.hidden_sizes, self.operations, self.embedding_sizes = tuple(hidden_sizes), tuple(operations), tuple(embedding_sizes)
        self.settings = Settings(head_size, dropout, attention_dropout, convolution_dropout, dynamic_dropout, max(hidden_sizes))
        self.backbone, self.method = backbone, method
        self.choices = (Choice("embedding", self.embedding_sizes), *(c for b in range(1, blocks + 1) for c in self._block_choices(b)))
        self._tables: dict[tuple[BackboneConfig, Head, int], CostTables] = {}

    def _block_choices(self, b: int) -> Iterator[Choice]:
        yield Choice(f"block{b}.hidden", self.hidden_sizes)
        yield Choice(f"block{b}.length", tuple(range(1, self.per_block + 1)), ordered=True, monotone=True)
        for j in range(1, self.per_block + 1):
            yield Choice(f"block{b}.op{j}", self.operations)

    def _architecture(self, embedding: int, blocks: Iterable[tuple[int, Sequence[str]]]) -> Architecture:
        return architecture_of(embedding, blocks, self.method)

    def decode(self, assignment: Assignment) -> Architecture:
        """Operations beyond a block's length do not exist."""
        pairs = []
        for b in range(1, self.blocks + 1):
            length = int(assignment[f"block{b}.length"])
            operations = [str(assignment[f"block{b}.op{j}"]) for j in range(1, length + 1)]
            pairs.append((int(assignment[f"block{b}.hidden"]), operations))
        return self._architecture(int(assignment["embedding"]), pairs)

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        genes = architecture.choices
        if architecture.method != self.method or set(genes) != {"embedding", "blocks"} or len(genes["blocks"]) != self.blocks:
            raise ValueError(f"no architecture of this space (nasbert, {self.blocks} blocks): {architecture.to_json()}")
        assignment: dict[str, Value] = {"embedding": genes["embedding"]}
        for b, block in enumerate(genes["blocks"], start=1):
            operations = block["ops"]
            spare = [self.operations[0]] * (self.per_block - len(operations))
            assignment |= {f"block{b}.hidden": block["hidden"], f"block{b}.length": len(operations)}
            assignment |= {f"block{b}.op{j}": name for j, name in enumerate([*operations, *spare], start=1)}
        for choice in self.choices:
            if assignment.get(choice.name) not in choice.values:
                raise ValueError(f"{choice.name}: {assignment.get(choice.name)!r} is none of {list(choice.values)}")
        return assignment

    def paths_per_block(self) -> int:
        """|H| (o + o^2 + ... + o^n): the all-identity block is no block."""
        kinds = len(self.operations)
        return len(self.hidden_sizes) * sum(int(kinds**k) for k in range(1, self.per_block + 1))

    def size(self) -> int:
        return len(self.embedding_sizes) * int(self.paths_per_block() ** self.blocks)

    def enumerate(self) -> Iterator[Architecture]:
        paths = [
            (hidden, operations)
            for hidden in self.hidden_sizes
            for k in range(1, self.per_block + 1)
            for operations in itertools.product(self.operations, repeat=k)
        ]
        for embedding in self.embedding_sizes:
            for blocks in itertools.product(paths, repeat=self.blocks):
                yield self._architecture(embedding, blocks)

    def sample(self, rng: random.Random) -> Architecture:
        """Uniform over the architectures of the space (most of a block's paths are long, so uniform lengths would not be)."""
        return self._architecture(rng.choice(self.embedding_sizes), [self.sample_path(rng) for _ in range(self.blocks)])

    def sample_path(self, rng: random.Random) -> tuple[int, list[str]]:
        """A hidden size and operations, uniform over the paths of a block."""
        lengths = range(1, self.per_block + 1)
        length = rng.choices(lengths, weights=[len(self.operations) ** (k - self.per_block) for k in lengths])[0]
        return rng.choice(self.hidden_sizes), [rng.choice(self.operations) for _ in range(length)]

    def mutate(self, architecture: Architecture, rng: random.Random) -> Architecture:
        """One move, uniform over those there are: another embedding size, another hidden size of a block (operations kept),
        another operation, an operation appended to a block or removed from its end."""
        genes = architecture.choices
        blocks = [(block["hidden"], list(block["ops"])) for block in genes["blocks"]]
        moves: list[tuple[int, str]] = [(0, "embedding")] * (len(self.embedding_sizes) > 1)
        for n, (_, operations) in enumerate(blocks):
            moves += [(n, "hidden")] * (len(self.hidden_sizes) > 1) + [(n, "change")] * (len(self.operations) > 1)
            moves += [(n, "append")] * (len(operations) < self.per_block) + [(n, "remove")] * (len(operations) > 1)
        if not moves:
            return architecture
        n, move = rng.choice(moves)
        embedding, (hidden, operations) = genes["embedding"], blocks[n]
        if move == "embedding":
            embedding = rng.choice([e for e in self.embedding_sizes if e != embedding])
        elif move == "hidden":
            hidden = rng.choice([h for h in self.hidden_sizes if h != hidden])
        elif move == "append":
            operations.append(rng.choice(self.operations))
        elif move == "remove":
            operations.pop()
        else:
            j = rng.randrange(len(operations))
            operations[j] = rng.choice([name for name in self.operations if name != operations[j]])
        blocks[n] = (hidden, operations)
        return self._architecture(embedding, blocks)

    def smallest(self) -> Architecture:
        """The fewest parameters, and among those the fewest FLOPs (classification at length 128, on `backbone`).

        Nothing undercuts its FLOPs either, unless an embedding as wide as the first block, which needs no projection, does;
        `cost_range` knows each cost's own minimum.
        """
        return self._extreme(1, 1)

    def largest(self) -> Architecture:
        """The most parameters, and among those the most FLOPs; `cost_range` knows each cost's own maximum."""
        return self._extreme(self.per_block, -1)

    def _extreme(self, path_length: int, sign: int) -> Architecture:
        def score(table: Table) -> Table:
            return sign * np.stack([table[..., 0] + table[..., 1], table[..., 2]], axis=-1)

        return self._found(
            extreme(self.tables(self.backbone, Head("classification", 2), 128), self.blocks, path_length, score), path_length
        )

    def _found(self, found: Extreme, path_length: int) -> Architecture:
        pairs = [(self.hidden_sizes[h], [self.operations[o]] * path_length) for h, o in zip(found.hidden, found.operations, strict=True)]
        return self._architecture(self.embedding_sizes[found.embedding], pairs)

    def fastest(self, table: LatencyTable, backbone: BackboneConfig, head: Head) -> Architecture:
        """The times of stem, operations, links and head add up as the other costs do."""
        parts = part_tables(self.embedding_sizes, self.hidden_sizes, self.operations, self.settings, backbone, head)
        seconds = parts.measured(lambda part: (0.0 if part is None else table.part(part),))
        return self._found(extreme(CostTables(**seconds), self.blocks, 1, lambda values: values), 1)

    def cost_range(self, backbone: BackboneConfig, head: Head, length: int = 128, batch: int = 1) -> dict[str, tuple[float, float]]:
        """The least and the greatest value of each cost in the whole space (deployed form), by the name of its limit.

        One network need not have all minima: an embedding as wide as the first block costs parameters and saves a projection.
        """
        tables = self.tables(backbone, head, length)
        columns = {"max_params": (1, 1, 0), "max_params_non_embedding": (0, 1, 0), "max_flops": (0, 0, batch)}
        ranges: dict[str, tuple[float, float]] = {}
        for name, weights in columns.items():
            low = extreme(tables, self.blocks, 1, lambda t, w=weights: t @ np.array(w)[:, None])  # type: ignore[misc]
            high = extreme(tables, self.blocks, self.per_block, lambda t, w=weights: -t @ np.array(w)[:, None])  # type: ignore[misc]
            ranges[name] = (low.score[0], -high.score[0])
        return ranges

    def anchors(self) -> Sequence[Architecture]:
        """The smallest, the largest, and hand-made BERTs: attention and feed-forward in turn, one width, at full and half depth."""
        cycle = [str(name) for name in ("M", "F") if name in self.operations] or list(self.operations[:1])
        found = [self.smallest(), self.largest()]
        for hidden in self.hidden_sizes:
            embedding = max((e for e in self.embedding_sizes if e <= hidden), default=min(self.embedding_sizes))
            for depth in {self.per_block, max(1, self.per_block // 2)}:
                operations = list(itertools.islice(itertools.cycle(cycle), depth))
                found.append(self._architecture(embedding, [(hidden, operations)] * self.blocks))
        return list(dict.fromkeys(found))

    def hand_made(self, like: Architecture) -> Sequence[Architecture]:
        """BERTs of every hidden size and depth, with the embedding width of `like`."""
        return hand_made(self.blocks, self.per_block, self.hidden_sizes, self.operations, like.choices["embedding"], self.method)

    def spec(self, architecture: Architecture, backbone: BackboneConfig, head: Head, form: Form = "deployed") -> NetworkSpec:
        if architecture.method != self.method:
            raise ValueError(f"an architecture of {architecture.method} is none of {self.method}")
        return network_spec(architecture.choices, self.settings, backbone, head, hosted=form == "hosted")

    def tables(self, backbone: BackboneConfig, head: Head, length: int) -> CostTables:
        """The additive cost tables, computed once per backbone, head and length."""
        key = (backbone, head, length)
        if key not in self._tables:
            sizes = (self.embedding_sizes, self.hidden_sizes, self.operations)
            self._tables[key] = cost_tables(*sizes, self.settings, backbone, head, length)
        return self._tables[key]

    def batch_costs(
        self, assignments: Mapping[str, npt.NDArray[Any]], backbone: BackboneConfig, head: Head, length: int = 128, batch: int = 1
    ) -> CostArrays:
        total = self.tables(backbone, head, length).total(assignments, self.blocks, self.per_block)
        return CostArrays.of(len(total), total[:, 0], total[:, 1], total[:, 2], length, batch)


def space_of(options: NasBertOptions, backbone: BackboneConfig) -> NasBertSpace:
    """The space of the options. Raises UserError where the backbone does not divide into as many blocks."""
    if backbone.layers % options.blocks:
        fitting = [n for n in range(1, backbone.layers + 1) if backbone.layers % n == 0 and options.sublayers % n == 0]
        raise UserError(
            f"nasbert: blocks: {options.blocks} do not divide the backbone's {backbone.layers} layers;"
            f" with {options.sublayers} sublayers {', '.join(map(str, fitting))} would"
        )
    return NasBertSpace(**options.sizes(), backbone=backbone, method=options.label or METHOD_NAME)
