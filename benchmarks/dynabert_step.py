"""How fast a step of DynaBERT's width-and-depth stage is: all sub-networks of the grid, distilled.

`python -m benchmarks.dynabert_step [--backbone DIRECTORY] [--data DIRECTORY] [--rows N] [--rounds N] [--base-rows N] [--only PART ...]`

- `reference`: against the released code's way on the same module, every text padded to 128 and the teacher run anew for every width.
  Targets: 5 times as fast on real texts, 1.12 times where ours is padded too; there the gradients must be equal.
- `parts`: against the sum of what it can't do without: the teacher's forward pass, the optimiser's step, and forward and backward of the
  extracted networks with the task's own loss, at the texts' lengths. Target: at most 1.15.
- `base`: one step at BERT-base's size with random weights, `--base-rows` texts of 128 tokens (0: none), optimiser included.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.setting import HEAD, LENGTH, Setting, padded, parser
from benchmarks.timing import in_turns
from methods.backbone import BERT_BASE
from methods.dynabert.space import DynaBertSpace
from methods.dynabert.step import DistillationStep, whole_network
from methods.dynabert.supernet import DynaBertSupernet
from methods.network import Network, task_loss
from methods.supernet import inputs
from methods.training.loop import make_optimizer
from methods.training.options import Schedule

PARTS = ("reference", "parts", "base")
Batch = dict[str, Tensor]


def main() -> None:
    options = parser("dynabert_step")
    options.add_argument("--rows", type=int, default=32, help="of a batch")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--base-rows", type=int, default=8)
    options.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    asked = options.parse_args()
    setting = Setting.of(asked)
    if {"reference", "parts"} & set(asked.only):
        student = setting.supernet()
        teacher = copy.deepcopy(student).eval().requires_grad_(False)
        (batch,) = setting.batches(1, asked.rows)
        print(f"{setting.about}; {asked.rows} texts of up to {batch['input_ids'].shape[1]} tokens, medians of {asked.rounds} rounds")
    if "reference" in asked.only:
        against_reference(student, teacher, batch, asked.rounds)
    if "parts" in asked.only:
        against_parts(student, teacher, batch, asked.rounds)
    if "base" in asked.only and asked.base_rows:
        bert_base(asked.base_rows)


def step_of(student: DynaBertSupernet, teacher: DynaBertSupernet, padding_counts: bool = False) -> Callable[[Batch], object]:
    """A stage-2 step as the recipe takes it, without the optimiser's part; gradients are left behind."""
    step = DistillationStep(student, teacher, tuple(student.space.enumerate()), 1.0, 1.0, padded=padding_counts)
    return lambda batch: step(batch, lambda loss: loss.backward())


def reference_step(student: DynaBertSupernet, teacher: DynaBertSupernet, batch: Batch) -> None:
    """The released code's loop: the teacher's outputs for every width, then depth by depth and width by width, padding counted."""
    space = student.space
    widths, depths = (sorted(choice.values, reverse=True) for choice in space.choices)
    with torch.no_grad():
        taught = [teacher(batch, whole_network(student.backbone)) for _ in widths]
    for depth in depths:
        for width, guide in zip(widths, taught, strict=True):
            architecture = space.decode({"width": width, "depth": depth})
            output = student(batch, architecture)
            logits = -(guide.logits.softmax(-1) * output.logits.log_softmax(-1)).sum(-1).mean()
            faced = [guide.hidden_states[layer] for layer in architecture.choices["layers"]] + [guide.hidden_states[-1]]
            hidden = sum(F.mse_loss(mine, theirs) for mine, theirs in zip(output.hidden_states, faced, strict=True))
            (logits + hidden).backward()


def against_reference(student: DynaBertSupernet, teacher: DynaBertSupernet, batch: Batch, rounds: int) -> None:
    long = padded(batch)
    short_step, long_step = step_of(student, teacher), step_of(student, teacher, padding_counts=True)
    runs = {
        "ours": lambda: short_step(batch),
        "ours, padded": lambda: long_step(long),
        "reference": lambda: reference_step(student, teacher, long),
    }
    gradients = {name: gradient_of(student, runs[name]) for name in ("reference", "ours, padded")}
    stepped = optimiser_of(student)
    turns = in_turns({name: training_step(student, run, stepped) for name, run in runs.items()}, rounds, warm=0)
    expected, found = gradients.values()
    error = float((found - expected).norm() / expected.norm())
    print(f"stage-2 step: {turns.median('ours'):.2f} s; {turns.ratio('reference', 'ours'):.2f} times as fast as the reference's way")
    faster = turns.ratio("reference", "ours, padded")
    print(f"  padded to {LENGTH} too: {faster:.3f} times as fast; the gradients differ by {error:.1e} of their norm")
    if error > 1e-5:
        sys.exit("the gradients are not equal")


def training_step(model: nn.Module, run: Callable[[], object], stepped: Callable[[], None]) -> Callable[[], None]:
    """The run from no gradients on, and the optimiser's step."""

    def whole() -> None:
        model.zero_grad(set_to_none=True)
        run()
        stepped()

    return whole


def gradient_of(model: nn.Module, run: Callable[[], object]) -> Tensor:
    """All gradients of the run as one vector; dropout from seed 0."""
    torch.manual_seed(0)
    model.zero_grad(set_to_none=True)
    run()
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()])


def against_parts(student: DynaBertSupernet, teacher: DynaBertSupernet, batch: Batch, rounds: int) -> None:
    networks = [student.extract(architecture) for architecture in student.space.enumerate()]
    step, stepped = step_of(student, teacher), optimiser_of(student)

    @torch.no_grad()
    def taught() -> None:
        teacher(batch, whole_network(student.backbone))

    parts = {"teacher": taught, "optimiser": stepped, "networks": lambda: plain(networks, batch)}
    turns = in_turns({"step": training_step(student, lambda: step(batch), stepped), **parts}, rounds)
    said = ", ".join(f"{name} {turns.median(name):.2f} s" for name in parts)
    print(f"stage-2 step: {turns.median('step'):.2f} s; {turns.ratio('step', *parts):.3f} times the sum of its parts ({said})")


def optimiser_of(model: nn.Module) -> Callable[[], None]:
    """Clipping and AdamW on whatever gradients are there."""
    optimizer = make_optimizer(model, Schedule())

    def step() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def plain(networks: list[Network], batch: Mapping[str, Tensor]) -> None:
    """Forward and backward of each network with the task's loss."""
    for network in networks:
        network.zero_grad(set_to_none=True)
        task_loss(HEAD, network(**inputs(batch))["logits"], batch["labels"]).backward()


def bert_base(rows: int) -> None:
    torch.manual_seed(0)
    student = DynaBertSupernet(DynaBertSpace(BERT_BASE), BERT_BASE, HEAD).train()
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    ids = torch.randint(1000, 20_000, (rows, LENGTH))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}
    step, stepped = step_of(student, teacher), optimiser_of(student)
    started, wall = time.process_time(), time.perf_counter()
    step(batch)
    stepped()
    taken, wall = time.process_time() - started, time.perf_counter() - wall
    print(f"BERT-base, random weights, {rows} x {LENGTH} tokens: one stage-2 step in {taken:.0f} s of processor time ({wall:.0f} s passed)")


if __name__ == "__main__":
    main()
