"""What test_several_processes runs in two processes, and alone: steps of every kind of loss on batches that can't be shared evenly."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.corpus.masking import IGNORED
from methods.dynabert.options import Sampling
from methods.dynabert.samplers import SampledStep, make_sampler
from methods.dynabert.space import DynaBertSpace, full_spec
from methods.dynabert.step import DistillationStep
from methods.dynabert.supernet import DynaBertSupernet
from methods.nasbert.block_training import BlockwiseStep
from methods.nasbert.networks import teacher_spec
from methods.nasbert.options import CorpusTeacher, NasBertOptions, Retraining
from methods.nasbert.retrain import DistilledStep
from methods.nasbert.space import space_of
from methods.nasbert.supernet import NasBertSupernet
from methods.nasbert.supernet_stage import new_survivors, train_blocks
from methods.nasbert.teacher import corpus_teacher
from methods.network import Network, task_loss
from methods.recipe import CorpusContext, Hardware
from methods.tasks.head import Head
from methods.training.distillation import hidden_loss, soft_cross_entropy
from methods.training.initialisation import initialise
from methods.training.loop import Backward, Batch, Loop, Step
from methods.training.options import Schedule
from tests.conformance.cases import CLASSES
from tests.conformance.cases import TINY as SIX_LAYERS
from tests.methods.nasbert_cases import drawn_paths
from tests.methods.test_nasbert_training import SHRINKING, SIZES, TRAINING

TINY = replace(SIX_LAYERS, layers=2)
WORDS = Head("mlm")
SCHEDULE = Schedule(epochs=1, batch_size=3, clip=1e9)
"""Of 10 rows: batches of 3 rows and one of a single row."""


SAMPLED: tuple[Sampling, ...] = ("sandwich", "uniform")


class Text:
    """A packed corpus of ten texts of 3 to 12 random words, with labels."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(1, TINY.vocabulary, (10, 12), generator=generator)
        self.labels = torch.randint(3, (10,), generator=generator)
        self.lengths, self.digest = np.array([3, 12, 5, 9, 4, 12, 7, 3, 11, 6]), str(seed)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Any) -> Batch:
        places = list(rows)
        mask = torch.from_numpy(np.arange(12) < self.lengths[places][:, None]).long()
        return {"input_ids": self.ids[places] * mask, "attention_mask": mask, "labels": self.labels[places]}


def every_third_word(batch: Batch, _: Any = None) -> Batch:
    """Asks for the first word and some others by what they are, so that the halves of a batch ask for what the whole one does."""
    first = torch.arange(batch["input_ids"].shape[1]) == 0
    asked = (first | (batch["input_ids"] % 3 == 1)) & batch["attention_mask"].bool()
    return {**batch, "labels": torch.where(asked, batch["input_ids"], IGNORED)}


def network(head: Head, seed: int) -> Network:
    torch.manual_seed(seed)
    made = Network(teacher_spec(TINY, head) if head == WORDS else full_spec(TINY, head))
    initialise(made, 0.2)
    return made.eval()


def options_of(**supernet: Any) -> NasBertOptions:
    sizes = {**SIZES, "dropout": 0.0, "attention_dropout": 0.0}
    return NasBertOptions.model_validate({**sizes, "supernet": {**TRAINING, **supernet}, "shrinking": SHRINKING})


def context_of(folder: Path, search: int = 6) -> Any:
    """`search`: the seed of the held-out text."""
    corpus = SimpleNamespace(packed=lambda split, _: Text(search if split == "search" else 5), masker=every_third_word)
    backbone: Any = SimpleNamespace(config=TINY, weights=lambda: backbone_weights()[0], masked_word_head=lambda: backbone_weights()[1])
    return CorpusContext(folder, folder / "shared", backbone, corpus, 0)  # type: ignore[arg-type]


def backbone_weights() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """As `transformers` calls them, with an output layer for masked words."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    sizes = {"vocab_size": TINY.vocabulary, "hidden_size": TINY.hidden, "num_hidden_layers": TINY.layers}
    sizes |= {"num_attention_heads": TINY.heads, "intermediate_size": TINY.intermediate, "max_position_embeddings": TINY.positions}
    config = BertConfig(**sizes)
    state = BertForMaskedLM(config).state_dict()
    inner = {name.removeprefix("bert."): tensor for name, tensor in state.items() if name.startswith("bert.")}
    skipped = ("cls.predictions.decoder.weight", "cls.predictions.bias")
    return inner, {name: tensor for name, tensor in state.items() if name.startswith("cls.") and name not in skipped}


def labels(_: Path) -> tuple[nn.Module, Step]:
    """A mean over rows."""
    model = network(CLASSES, 0)

    def step(batch: Batch, backward: Backward) -> dict[str, float]:
        backward(task_loss(CLASSES, model(batch["input_ids"], batch["attention_mask"])["logits"], batch["labels"]))
        return {}

    return model, step


def states(_: Path) -> tuple[nn.Module, Step]:
    """Means over rows and over tokens, added up."""
    model, teacher = network(CLASSES, 0), network(CLASSES, 1)

    def step(batch: Batch, backward: Backward) -> dict[str, float]:
        out, taught = (one(batch["input_ids"], batch["attention_mask"]) for one in (model, teacher))
        hidden = hidden_loss(out["hidden_states"], [t.detach() for t in taught["hidden_states"]], batch["attention_mask"])
        backward(soft_cross_entropy(out["logits"], taught["logits"].detach()) + hidden)
        return {}

    return model, step


def distilled(_: Path, objective: str) -> tuple[nn.Module, Step]:
    """Means over masked words; `hidden`: and over tokens, over a variance."""
    student, teacher = network(WORDS, 0), network(WORDS, 1)
    torch.manual_seed(2)
    bridge = nn.Linear(TINY.hidden, TINY.hidden) if objective == "hidden" else None
    options = Retraining.model_validate({"objective": objective, "distillation": 0.5})
    model = nn.ModuleDict({"student": student} | ({"bridge": bridge} if bridge else {}))
    return model, DistilledStep(student, teacher, every_third_word, options, bridge)  # type: ignore[arg-type]


def blocks(folder: Path, normalise: str) -> tuple[nn.Module, Step]:
    """Means over tokens, over a variance where `normalise` says so."""
    options = options_of(normalise=normalise)
    torch.manual_seed(0)
    space = space_of(options, TINY)
    supernet = NasBertSupernet(space, TINY, WORDS)
    survivors = new_survivors(options, space, context_of(folder))
    return supernet, BlockwiseStep(supernet, network(WORDS, 1), every_third_word, survivors, (0, 1), options, 0)


@dataclass
class Watched(SampledStep):
    """Remembers what it trains."""

    seen: list[list[str]] = field(default_factory=list)

    def __call__(self, batch: Batch, backward: Backward) -> dict[str, float]:
        self.seen.append([architecture.id for architecture in self.drawn()])
        return super().__call__(batch, backward)


def sampled(kind: Sampling, folder: Path) -> dict[str, Any]:
    """DynaBERT's sub-networks that are drawn for each step, and what four steps of gradient descent take from the weights."""
    space = DynaBertSpace(TINY, (0.25, 0.5, 1.0), (0.5, 1.0))
    nets = [DynaBertSupernet(space, TINY, CLASSES) for _ in range(2)]
    for seed, net in enumerate(nets):
        net.load_state_dict(network(CLASSES, seed).state_dict())
    before = _weights(nets[0])
    step = Watched(DistillationStep(nets[0], nets[1].eval(), (), 1.0, 0.5), make_sampler(kind, 1, space), 1, "sampled")
    _descend(kind, nets[0], step, folder, companion=step)
    return {"drawn": step.seen, "gradients": [b - a for b, a in zip(before, _weights(nets[0]), strict=True)]}


STEPS: dict[str, Callable[[Path], tuple[nn.Module, Step]]] = {
    "labels": labels,
    "states": states,
    "words": partial(distilled, objective="logits"),
    "last states": partial(distilled, objective="hidden"),
    "blocks": partial(blocks, normalise="none"),
    "blocks over variance": partial(blocks, normalise="variance"),
}


def trained(name: str, folder: Path) -> list[float]:
    """All weights after an epoch of plain gradient descent."""
    model, step = STEPS[name](folder)
    _descend(name, model, step, folder)
    return _weights(model)


def _descend(name: str, model: nn.Module, step: Step, folder: Path, **more: Any) -> None:
    where: dict[str, Any] = {"folder": folder / name, "seed": 0, "hardware": Hardware(), "flops": lambda *_: 0.0, "fingerprint": {}}
    descent: Any = lambda module, _: torch.optim.SGD(module.parameters(), lr=0.1)  # noqa: E731
    Loop(name, model, step, Text(5), lambda text, rows: text.batch(rows), SCHEDULE, stepper=descent, **where, **more).run()


def _weights(model: nn.Module) -> list[float]:
    return [float(value) for parameter in model.parameters() for value in parameter.detach().flatten()]


def taught(folder: Path) -> list[float]:
    """What a teacher says that was pre-trained for a few steps."""
    optimiser = {"learning_rate": 0.003, "warmup_steps": 0}
    options = CorpusTeacher.model_validate({"steps": 4, "batch_size": 3, "length": 12, "optimiser": optimiser})
    teacher = corpus_teacher(context_of(folder), options)
    batch = Text(5).batch(range(10))
    with torch.no_grad():
        logits = teacher(batch["input_ids"], batch["attention_mask"])["logits"][batch["attention_mask"].bool()]
    return logits.flatten().tolist()


def shrunk(folder: Path, search: int) -> dict[str, Any]:
    """The paths that are drawn, and what survives, with this held-out text."""
    options = options_of()
    torch.manual_seed(0)
    space = space_of(options, TINY)
    supernet, context = NasBertSupernet(space, TINY, WORDS), context_of(folder, search)
    survivors = new_survivors(options, space, context)
    with drawn_paths() as drawn:
        train_blocks(context, options, space, supernet, network(WORDS, 1), survivors, "supernet", (0, 1))
    return {"paths": drawn, "alive": survivors.state()}


def main() -> None:
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    corpus_teacher(context_of(folder / f"own{rank}"), CorpusTeacher(source="backbone"))
    found: dict[str, Any] = {name: trained(name, folder / "steps") for name in STEPS}
    found |= {kind: sampled(kind, folder / "sampled") for kind in SAMPLED}
    found["teacher"] = taught(folder / "teacher")
    found["shrunk"] = shrunk(folder / "shrunk", search=6 + rank)
    (folder / f"rank{rank}.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
