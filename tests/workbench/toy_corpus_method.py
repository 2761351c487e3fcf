"""A method trained on a corpus, whole and tiny: one attention layer in three widths, and the `tables` are their held-out losses."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from methods.budget import Budget
from methods.corpus.masked_words import evaluate_masked_words, masked_word_loss, masked_words_of
from methods.costs import costs
from methods.errors import UserError
from methods.network import Network, task_loss
from methods.recipe import Context, CorpusContext, CorpusRecipe, Estimate, StagePlan, StageRecord, stage_of
from methods.registry import Method
from methods.space import Architecture
from methods.supernet import inputs
from methods.tasks.batches import joint
from methods.tasks.head import Head
from methods.training.options import Optimiser, Options, Schedule, StepSchedule
from methods.training.stage import run_stage, train_stage, training_flops
from tests.toy_method import ToySpace, ToySupernet

LENGTH, WORDS = 16, Head("mlm")
trained: list[str] = []
"""Stages that computed something, in their order; what was read back is not here."""


class ToyCorpusOptions(Options):
    steps: int = 3
    init_from: dict[str, str] = Field(default_factory=dict)
    length: int = LENGTH


class ToyCorpusSpace(ToySpace):
    method = "toycorpus"

    def decode(self, assignment: Mapping[str, Any]) -> Architecture:
        return Architecture.of("toycorpus", {"width": assignment["width"]})

    def hand_made(self, like: Architecture) -> Sequence[Architecture]:
        return [self.decode({"width": width}) for width in (4, 8) if width != like.choices["width"]]


@dataclass(frozen=True)
class ToyEstimates:
    losses: Mapping[Architecture, float]
    space: ToyCorpusSpace
    backbone: Any
    heads: Sequence[Head]
    length: int
    batch: int

    def _all(self) -> list[Estimate]:
        head = max(self.heads, key=lambda head: head.labels)
        found = [
            Estimate(a, loss, costs(self.space.spec(a, self.backbone, head), self.length, self.batch)) for a, loss in self.losses.items()
        ]
        return sorted(found, key=lambda e: e.loss)

    def best(self, budget: Budget, count: int = 1) -> list[Estimate]:
        found = [e for e in self._all() if budget.met_by(e.costs)]
        if not found:
            least = min(e.costs.flops for e in self._all())
            raise UserError(f"budget {budget.label()}: no network of the tables meets it: the smallest achievable max_flops is {least:,}")
        return found[:count]

    def front(self, cost: str = "max_flops", count: int | None = None) -> list[Estimate]:
        found = sorted(self._all(), key=lambda e: e.costs.measured_against()[cost])
        return [e for i, e in enumerate(found) if all(e.loss < before.loss for before in found[:i])][:count]

    def loss(self, architecture: Architecture) -> float | None:
        return self.losses.get(architecture)


class ToyCorpusRecipe(CorpusRecipe):
    shared_stages = ("teacher",)
    variants = ("again",)
    candidates = 2

    def __init__(self, options: ToyCorpusOptions) -> None:
        self.options = options
        self.lengths = (options.length,)

    def plan(self, space: Any, backbone: Any, head: Head, rows: int, length: int, copies: int = 0) -> list[StagePlan]:
        steps = self.options.steps
        return [
            StagePlan("teacher", steps, 8 * steps, 1e6, 1, scope="corpus"),
            StagePlan("supernet", steps, 8 * steps, 3e6, 1, 3, scope="corpus"),
            StagePlan("select", 1, 8, 1e6, 1, 2, scope="corpus", per="budget"),
            StagePlan("pretrain", steps, 8 * steps, 2e6, 1, scope="corpus", per="network"),
            StagePlan("finetune", 4, rows, 5e5, 1, per="network"),
        ]

    def train(self, context: CorpusContext) -> ToySupernet:
        config, space = context.backbone.config, ToyCorpusSpace()
        torch.manual_seed(0)
        teacher = Network(space.spec(space.largest(), config, WORDS))
        self._train(context, "teacher", teacher, [teacher], shared=True)
        torch.manual_seed(context.seed)
        supernet = ToySupernet(space, config, WORDS)
        self._train(context, "supernet", supernet, list(supernet.networks.values()))
        table = context.folder / "tables" / "losses.csv"
        if not table.exists():
            trained.append("tables")
            table.parent.mkdir(parents=True, exist_ok=True)
            rows = [(a.canonical, repr(-self.assemble(context, supernet, a)["log_likelihood"])) for a in space.enumerate()]
            with table.open("w") as file:
                csv.writer(file).writerows(rows)
            (table.parent / "stage.json").write_text(json.dumps(asdict(StageRecord("tables", 1, 8, 1e5, 0.1))))
        context.record(StageRecord(**json.loads((table.parent / "stage.json").read_text())))
        return supernet.eval()

    def _train(
        self,
        context: CorpusContext,
        name: str,
        model: torch.nn.Module,
        networks: list[Network],
        shared: bool = False,
        folder: Path | None = None,
    ) -> None:
        def step(batch: Any, backward: Any) -> dict[str, float]:
            masked = context.corpus.masker(batch)
            for network in networks:
                backward(masked_word_loss(masked_words_of(network)(masked), masked["labels"]))
            return {}

        folder = folder or (context.shared if shared else context.folder)
        if not (folder / name / "stage.json").exists():
            trained.append(name)
        train_stage(
            folder,
            name,
            model,
            step,
            context.corpus.packed("train", self.options.length),
            lambda packed, rows: packed.batch(rows),
            StepSchedule(total=self.options.steps, batch_size=8, optimiser=Optimiser(learning_rate=0.01, warmup_steps=0)),
            seed=0 if shared else context.seed,
            hardware=context.hardware,
            flops=training_flops([network.spec for network in networks]),
            settings={},
            record=context.record_shared if shared else context.record,
        )

    def estimates(
        self,
        folder: Path,
        space: Any,
        backbone: Any,
        heads: Sequence[Head],
        length: int,
        batch: int,
        devices: Mapping[str, Any],
    ) -> ToyEstimates:
        path = folder / "tables" / "losses.csv"
        if not path.exists():
            raise UserError(f"{path}: there are no tables yet")
        with path.open() as file:
            losses = {Architecture("toycorpus", text): float(loss) for text, loss in csv.reader(file)}
        return ToyEstimates(losses, space, backbone, heads, length, batch)

    def assemble(self, context: CorpusContext, supernet: Any, architecture: Architecture) -> dict[str, float]:
        return self.measure(context, supernet.networks[str(architecture.choices["width"])].eval(), "search")

    def measure(self, context: CorpusContext, network: Network, split: str) -> dict[str, float]:
        packed = context.corpus.packed(split, self.options.length)
        return evaluate_masked_words(masked_words_of(network), packed, context.corpus.masker, context.hardware)

    def pretrain(self, context: CorpusContext, supernet: Any, architecture: Architecture, variant: str = "") -> Network:
        network: Network = copy.deepcopy(supernet.networks[str(architecture.choices["width"])])
        if variant:
            torch.manual_seed(context.seed)
            network = Network(network.spec)
        self._train(context, stage_of("pretrain", architecture), network, [network], folder=context.folder / variant)
        return network

    def finish(self, context: Context, pretrained: Network, architecture: Architecture, start: Network | None = None) -> Network:
        head, source = context.task.head, start or pretrained
        torch.manual_seed(context.seed)
        network = Network(ToyCorpusSpace().spec(architecture, context.backbone.config, head))
        network.stem.load_state_dict(source.stem.state_dict())
        network.encoder.load_state_dict(source.encoder.state_dict())

        def step(batch: Any, backward: Any) -> dict[str, float]:
            backward(task_loss(head, network(**inputs(batch))["logits"], batch["labels"]))
            return {}

        name, collate = stage_of("finetune", architecture), joint(context.backbone.tokenizer, context.max_length)
        if not (context.folder / name / "stage.json").exists():
            trained.append(name)
        run_stage(context, name, network, step, Schedule(epochs=1, batch_size=16), collate, training_flops([network.spec]), {})
        return network

    def starts_from(self, task: str) -> str | None:
        return self.options.init_from.get(task)


METHOD = Method(
    "toycorpus",
    "one attention layer in three widths, trained on a corpus",
    "corpus",
    ToyCorpusOptions,
    lambda options, backbone: ToyCorpusSpace(),
    ToySupernet,
    ToyCorpusRecipe,
    joint,
)
