"""The one training loop, of every stage of every method.

A plain loop over steps on accelerate rather than transformers' Trainer: stages of this product step two optimisers, shrink alive sets
and need atomic checkpoints with a digest, all of which the Trainer would have to be argued out of. What the loop guarantees: the order
of batches is a function of (seed, epoch) alone; a checkpoint holds weights, moments, schedule, random states and the place in the
data; a run that was stopped goes on bit-equal.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from methods.errors import UserError
from methods.recipe import Hardware
from methods.tasks.batches import training_batches
from methods.training.checkpoint import load_checkpoint, restore_random_state, save_checkpoint
from methods.training.options import Schedule
from methods.training.progress import progress_bar

if TYPE_CHECKING:
    from methods.tasks.batches import Collate, Encoded

Batch = dict[str, Tensor]
Backward = Callable[[Tensor], None]
Step = Callable[[Batch, Backward], dict[str, float]]
"""Runs forward and backward on one batch (calling `backward` on each loss) and returns figures to log."""

CHECKPOINT_SECONDS = 60.0
LOG_EVERY = 10


@dataclass
class Loop:
    """One stage's training: `model` is changed in place.

    `flops(batch_size, length)` is what one batch costs, for the record. `score` rates the current model where
    `schedule.select_every` asks for it. `fingerprint` describes everything that a checkpoint must share to be continued.
    """

    name: str
    model: nn.Module
    step: Step
    data: Encoded
    collate: Collate
    schedule: Schedule
    folder: Path
    seed: int
    hardware: Hardware
    flops: Callable[[int, int], float]
    fingerprint: dict[str, Any]
    score: Callable[[], float] | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    def run(self) -> dict[str, float]:
        """Trains to the end, from the last checkpoint where there is one. Returns steps, examples, flops and seconds."""
        accelerator = make_accelerator(self.hardware)
        self.model.to(accelerator.device).train()
        optimizer = make_optimizer(self.model, self.schedule)
        total = self.schedule.steps(len(self.data))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, total, self.schedule.warmup))
        fingerprint = hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True, default=str).encode()).hexdigest()
        state: dict[str, Any] = {"step": 0, "seconds": 0.0, "examples": 0, "flops": 0.0, "best": None, "best_score": None}
        torch.manual_seed(int(hashlib.sha256(f"{self.seed}/{self.name}".encode()).hexdigest()[:15], 16))
        saved = load_checkpoint(self.folder, fingerprint)
        if saved is not None:
            self.model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            scheduler.load_state_dict(saved["scheduler"])
            restore_random_state(saved["random"])
            state = saved["state"]

        def save() -> None:
            states = {"model": self.model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
            save_checkpoint(self.folder, {**states, "state": state}, fingerprint)

        writer = _writer(self.folder.parent / "tensorboard" / self.name, state["step"])
        bar = progress_bar(total, self.name, state["step"])
        started = saved_at = time.monotonic()
        before = state["seconds"]
        for batches in self._batches(state["step"], total):
            figures: dict[str, float] = {}
            for rows in batches:
                batch = {name: tensor.to(accelerator.device) for name, tensor in self.collate(self.data, rows).items()}
                with accelerator.autocast():
                    figures = self.step(batch, lambda loss: accelerator.backward(loss / len(batches)))  # noqa: B023 (used within the step)
                state["examples"] += len(rows)
                state["flops"] += self.flops(*batch["input_ids"].shape)
            norm = accelerator.clip_grad_norm_(self.model.parameters(), self.schedule.clip)
            self._check(figures, float(norm), state["step"])
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            state["step"] += 1
            state["seconds"] = before + time.monotonic() - started
            bar.update(1)
            if state["step"] % LOG_EVERY == 0 or state["step"] == total:
                bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items()}, refresh=False)
                for name, value in figures.items():
                    writer.add_scalar(name, value, state["step"])
            if self.schedule.select_every and (state["step"] % self.schedule.select_every == 0 or state["step"] == total):
                self._select(state)
            if time.monotonic() - saved_at > self.checkpoint_seconds:
                save()
                saved_at = time.monotonic()
        bar.close()
        writer.close()
        if state["best"] is not None:
            self.model.load_state_dict(state["best"])
        self.model.eval()
        return {name: state[name] for name in ("steps", "examples", "flops", "seconds") if name in state} | {"steps": state["step"]}

    def _batches(self, start: int, total: int) -> Iterator[Sequence[Sequence[int]]]:
        """The batches of each step from `start` on, `accumulation` at a time; a last, shorter group of an epoch is left out."""
        size, group = self.schedule.batch_size, self.schedule.accumulation
        per_epoch = max(1, -(-len(self.data) // size) // group)
        for step in range(start, total):
            epoch, place = divmod(step, per_epoch)
            if place == 0 or step == start:
                order = training_batches(self.data.lengths, size, self.seed, epoch)
            yield order[place * group : (place + 1) * group]

    def _check(self, figures: dict[str, float], norm: float, step: int) -> None:
        values = [*figures.values(), norm]
        if not all(abs(value) < float("inf") for value in values):
            raise UserError(
                f"stage {self.name}: loss or gradient is not finite at step {step} ({figures}, gradient norm {norm}); "
                f"lower its learning_rate ({self.schedule.learning_rate}) or use hardware.precision: fp32"
            )

    def _select(self, state: dict[str, Any]) -> None:
        if self.score is None:
            raise UserError(f"stage {self.name}: select_every is set, but nothing to score by")
        self.model.eval()
        score = self.score()
        self.model.train()
        if state["best_score"] is None or score > state["best_score"]:
            best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.model.state_dict().items()}
            state.update(best=best, best_score=score)


def make_accelerator(hardware: Hardware) -> Any:
    """accelerate's device, autocast and backward for this hardware."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    torch.set_num_threads(hardware.threads)
    return Accelerator(mixed_precision="bf16" if hardware.precision == "bf16" else "no", cpu=hardware.device == "cpu")


def make_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay; biases and norms are spared."""
    spared = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm | nn.modules.batchnorm._BatchNorm) for p in m.parameters()}
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if id(p) not in spared and not name.endswith("bias")]
    rest = [p for name, p in trained if id(p) in spared or name.endswith("bias")]
    groups = [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    betas = (schedule.beta1, schedule.beta2)
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=betas, eps=schedule.epsilon)


def rate(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at a step: linear rise over the warm-up, linear fall to 0."""
    rise = int(total * warmup)
    if step < rise:
        return (step + 1) / (rise + 1)
    return max(0.0, (total - step) / max(1, total - rise))


def _writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step)
