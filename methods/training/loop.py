"""The one training loop, of every stage of every method.

A plain loop over steps on accelerate rather than transformers' Trainer: stages of this product step two optimisers, shrink alive sets
and need atomic checkpoints with a digest, all of which the Trainer would have to be argued out of. What the loop guarantees: the order
of batches is a function of (seed, epoch) alone, masks and dropout one of (seed, stage, step, rank); a checkpoint holds weights, moments,
schedule, what the stage keeps beside them, and the place in the data; a run that was stopped goes on bit-equal. Under `accelerate launch`
each process takes its share of every batch, and gradients are averaged over the rows of all.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from methods.errors import StageError, UserError
from methods.recipe import Hardware, StageRecord, Watch
from methods.tasks.batches import training_batches
from methods.training.checkpoint import load_checkpoint, random_state, restore_random_state, save_checkpoint
from methods.training.options import Pace
from methods.training.processes import not_in_all, of_main_process, processes, summed
from methods.training.progress import progress_bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Batch = dict[str, Tensor]
Backward = Callable[[Tensor], None]
Step = Callable[[Batch, Backward], dict[str, float]]
"""Runs forward and backward on one batch (calling `backward` on each loss) and returns figures to log.

A loss is a mean over rows; a mean over something else goes through `methods.training.processes.weighed`."""

LOG_EVERY = 10


class Rows(Protocol):
    """Data whose rows have lengths: an `Encoded` split of a task, or a `Packed` corpus."""

    @property
    def lengths(self) -> NDArray[np.int64]: ...
    def __len__(self) -> int: ...


class Companion(Protocol):
    """What a stage keeps and does beside its weights, such as sets that shrink between epochs."""

    def state(self) -> dict[str, Any]:
        """Plain data and tensors, for the checkpoint."""

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""

    def after(self, step: int) -> bool:
        """Called when `step` optimiser steps are done; True ends the stage. Its time is not counted as the stage's."""


class Stepper(Protocol):
    """What changes the weights once their gradients are there: an optimiser with its schedule, or several."""

    def step(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


MakeStepper = Callable[[nn.Module, int], Stepper]
"""From a model and the number of steps to what steps it."""


@dataclass
class Loop:
    """One stage's training: `model` is changed in place.

    `flops(batch_size, length)` is what one batch costs, for the record. `score` rates the current model where
    `schedule.select_every` asks for it. `fingerprint` describes everything that a checkpoint must share to be continued.
    """

    name: str
    model: nn.Module
    step: Step
    data: Any
    collate: Callable[[Any, Sequence[int]], Batch]
    schedule: Pace
    folder: Path
    seed: int
    hardware: Hardware
    flops: Callable[[int, int], float]
    fingerprint: dict[str, Any]
    score: Callable[[], float] | None = None
    companion: Companion | None = None
    clipped: Sequence[nn.Module] = ()
    """Parts whose gradients are clipped apart; the whole model where there are none."""
    seeded_as: str = ""
    """Stages of the same name here draw the same masks; the stage's own name where it is empty."""
    stepper: MakeStepper | None = None
    """What steps the weights; AdamW at the schedule's rate where there is none."""
    watch: Watch | None = None
    shown: nn.Module | None = None
    """The part of the model that the watch looks at; all of it where there is none."""

    def run(self) -> dict[str, float]:
        """Trains to the end, from the last checkpoint where there is one. Returns steps, examples, flops, seconds and sub-network steps.
        Raises StageError."""
        try:
            return self._run()
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            kind = StageError if processes() == 1 else UserError  # the others wait for this process: the run can't go on
            raise kind(
                f"stage {self.name}: out of memory; lower its batch_size ({self.schedule.batch_size}) and raise its accumulation by as "
                f"much, shorten the texts, or write hardware.precision: bf16 ({str(error).splitlines()[0]})"
            ) from error

    def _run(self) -> dict[str, float]:
        accelerator = make_accelerator(self.hardware)
        self.model.to(accelerator.device).train()
        total = self.schedule.steps(len(self.data))
        steppers = self._steppers(total)
        fingerprint = hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True, default=str).encode()).hexdigest()
        parts = {"model": self.model, **steppers}
        state = self._restore(fingerprint, parts)
        display = _Display(self.folder.parent / "tensorboard" / self.name, self.name, total, state["step"], accelerator.process_index == 0)
        started = saved_at = time.monotonic()
        before, ended, aside = state["seconds"], False, 0.0
        for batches in self._batches(state["step"], total):
            figures = self._gradients(accelerator, batches, state)
            for stepper in steppers.values():
                stepper.step()
            self.model.zero_grad(set_to_none=True)
            state["step"] += 1
            display.show(state["step"], figures)
            if self.schedule.select_every and (state["step"] % self.schedule.select_every == 0 or state["step"] == total):
                self._select(state)
            if self.companion is not None:
                paused = time.monotonic()
                ended = self.companion.after(state["step"])
                aside += time.monotonic() - paused
            state["seconds"] = before + time.monotonic() - started - aside
            if self.watch is not None and self.watch.wants(self.name, state["step"], total):
                paused = time.monotonic()
                self._save(fingerprint, parts, state)
                self._show(self.watch, state, total)
                aside += time.monotonic() - paused
            if ended:
                break
            if accelerator.process_index == 0 and time.monotonic() - saved_at > self.hardware.checkpoint_seconds:
                self._save(fingerprint, parts, state)
                saved_at = time.monotonic()
        display.close()
        accelerator.wait_for_everyone()
        if state["best"] is not None:
            self.model.load_state_dict(state["best"])
        self.model.eval()
        return {name: state[name] for name in ("examples", "flops", "seconds", "subnetwork_steps")} | {"steps": state["step"]}

    def _steppers(self, total: int) -> dict[str, Any]:
        """By their names in the checkpoint."""
        if self.stepper is not None:
            return {"stepper": self.stepper(self.model, total)}
        optimizer = make_optimizer(self.model, self.schedule)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.schedule.rate(step, total))
        return {"optimizer": optimizer, "scheduler": scheduler}

    def _restore(self, fingerprint: str, parts: dict[str, Any]) -> dict[str, Any]:
        """The state of the last checkpoint, `parts` and the companion brought to it; a fresh one where there is none."""
        saved = load_checkpoint(self.folder, fingerprint)
        if saved is None:
            return {"step": 0, "seconds": 0.0, "examples": 0, "flops": 0.0, "subnetwork_steps": 0, "best": None, "best_score": None}
        if "subnetwork_steps" not in saved["state"]:
            raise UserError(f"{self.folder}: holds a checkpoint of an earlier version; remove it, and the stage begins anew")
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        restore_random_state(saved["random"])
        if self.companion is not None:
            self.companion.restore(saved["companion"])
        state: dict[str, Any] = saved["state"]
        return state

    def _save(self, fingerprint: str, parts: dict[str, Any], state: dict[str, Any]) -> None:
        kept = self.companion.state() if self.companion is not None else {}
        save_checkpoint(
            self.folder, {name: part.state_dict() for name, part in parts.items()} | {"state": state, "companion": kept}, fingerprint
        )

    def _show(self, watch: Watch, state: dict[str, Any], total: int) -> None:
        """Nothing that is trained changes, and no random number is lost."""
        random = random_state()
        model = copy.deepcopy(self.model if self.shown is None else self.shown).eval()
        done = [state[name] for name in ("step", "examples", "flops", "seconds", "subnetwork_steps")]
        watch.look(state["step"] / total, model, StageRecord(self.name, *done))
        restore_random_state(random)

    def _gradients(self, accelerator: Any, batches: Sequence[Sequence[int]], state: dict[str, Any]) -> dict[str, float]:
        """Forward and backward over the batches of one step, averaged over the rows of all processes, clipped."""
        rank, world = accelerator.process_index, accelerator.num_processes
        figures: dict[str, float] = {}
        torch.manual_seed(seed_of(self.seed, self.seeded_as or self.name, state["step"], rank))
        for rows in batches:
            mine = rows[rank::world] if len(rows) >= world else rows
            weight = len(mine) * world / len(rows) if len(rows) >= world else 1.0
            batch = {name: tensor.to(accelerator.device) for name, tensor in self.collate(self.data, mine).items()}
            with accelerator.autocast():
                figures = self.step(batch, partial(_backward, accelerator, state, len(batches) / weight))
            state["examples"] += len(rows)
            state["flops"] += self.flops(len(rows), batch["input_ids"].shape[1] if "input_ids" in batch else 1)
        average_gradients(self.model)
        limit = self.schedule.clip or float("inf")
        norms = [float(torch.nn.utils.clip_grad_norm_(part.parameters(), limit)) for part in self.clipped or [self.model]]
        self._check(figures, max(norms), state["step"])
        return figures

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
        finite = all(abs(value) < float("inf") for value in (*figures.values(), norm))
        if not_in_all(finite, next(self.model.parameters()).device):
            raise StageError(
                f"stage {self.name}: loss or gradient is not finite at step {step} ({figures}, gradient norm {norm}); "
                f"lower its learning_rate ({self.schedule.learning_rate}) or use hardware.precision: fp32"
            )

    def _select(self, state: dict[str, Any]) -> None:
        if self.score is None:
            raise UserError(f"stage {self.name}: select_every is set, but nothing to score by")
        self.model.eval()
        score = of_main_process(self.score())
        self.model.train()
        if state["best_score"] is None or score > state["best_score"]:
            best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.model.state_dict().items()}
            state.update(best=best, best_score=score)


def _out_of_memory(error: BaseException) -> bool:
    """Of a device, or of the host as Python or torch's allocator say it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def _backward(accelerator: Any, state: dict[str, Any], parts: float, loss: Tensor) -> None:
    accelerator.backward(loss / parts)
    state["subnetwork_steps"] += 1


def make_accelerator(hardware: Hardware) -> Any:
    """accelerate's device, autocast and backward for this hardware."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    accelerator = Accelerator(mixed_precision="bf16" if hardware.precision == "bf16" else "no", cpu=hardware.device == "cpu")
    torch.set_num_threads(hardware.threads)  # accelerate chooses for itself where several processes share a machine
    return accelerator


def make_optimizer(model: nn.Module, schedule: Pace) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay; biases and norms are spared."""
    spared = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm | nn.modules.batchnorm._BatchNorm) for p in m.parameters()}
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if id(p) not in spared and not name.endswith("bias")]
    rest = [p for name, p in trained if id(p) in spared or name.endswith("bias")]
    groups = [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    betas = (schedule.beta1, schedule.beta2)
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=betas, eps=schedule.epsilon)


def seed_of(*parts: int | str) -> int:
    """A seed for torch's generator from a hash of the parts, the same in every process."""
    return int(hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:15], 16)


def average_gradients(model: nn.Module) -> None:
    """The mean over all processes of every gradient; all of them must have run the same sub-networks."""
    if processes() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = summed(torch.cat([gradient.reshape(-1) for gradient in gradients])) / processes()
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


class _Display:
    """The progress bar and the TensorBoard log of a stage; silent in all processes but the first."""

    def __init__(self, folder: Path, name: str, total: int, step: int, loud: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.total = total
        self.writer = SummaryWriter(str(folder), purge_step=step) if loud else None
        self.bar = progress_bar(total, name, step) if loud else None

    def show(self, step: int, figures: dict[str, float]) -> None:
        if self.writer is None or self.bar is None:
            return
        self.bar.update(1)
        if step % LOG_EVERY == 0 or step == self.total:
            self.bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items()}, refresh=False)
            for name, value in figures.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self.writer is not None and self.bar is not None:
            self.bar.close()
            self.writer.close()
