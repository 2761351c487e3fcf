"""Training the supernet block by block against the teacher's states, shrinking it on the way (paper, sections 3.2 and 3.3).

A block needs nothing of the others: its input is the teacher's. Masks are drawn from (seed, step), paths and dropout from (seed, step,
block), so that blocks trained together, one after the other or in processes of their own come out the same.
"""

from __future__ import annotations

import csv
import io
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from methods.nasbert.options import NasBertOptions
from methods.nasbert.paths import Indices
from methods.nasbert.ranking import HeldOut, block_error, path_losses, teacher_states, variance, walked
from methods.nasbert.shrinking import shrink, shrunk
from methods.nasbert.survivors import Survivors, as_data, draw
from methods.recipe import Hardware
from methods.training.checkpoint import write_atomically
from methods.training.loop import Backward, Batch, seed_of
from methods.training.processes import of_main_process, summed, weighed

if TYPE_CHECKING:
    from methods.nasbert.block_flops import BlockFlops
    from methods.nasbert.supernet import NasBertSupernet
    from methods.network import Network

SURVIVORS, TRAINING, SHRINKING, SPENT = "survivors.json", "training.csv", "shrinking.csv", "shrinking.json"


@dataclass
class BlockwiseStep:
    """One path of every block in `blocks` per batch; the loss of each goes back on its own, so one path's graph is alive at a time."""

    supernet: NasBertSupernet
    teacher: Network
    masked: Callable[[Batch], Batch]
    survivors: Survivors
    blocks: tuple[int, ...]
    options: NasBertOptions
    seed: int
    step: int = 0
    drawn_at: int = -1
    """The step that paths were last drawn for; all batches of a step have the same."""
    before: dict[int, int] = field(default_factory=dict)
    """Each block's path: this step's where it is drawn, else the one of the step before."""
    sums: dict[int, list[float]] = field(default_factory=dict)
    """Per block since the epoch began: steps, loss, loss over the target's variance."""

    def __call__(self, batch: Batch, backward: Backward) -> dict[str, float]:
        masked = self.masked(batch)
        mask = masked["attention_mask"]
        with torch.no_grad():
            states = teacher_states(self.teacher, masked, len(self.survivors.alive))
        base = int(torch.randint(2**62, (1,)))
        self._draw()
        figures = {}
        for block in self.blocks:
            torch.manual_seed(seed_of(base, block))
            output = self.supernet.block_forward(block, self.survivors.paths[self.before[block]], states[block], mask)
            loss = block_error(output, states[block + 1], mask)
            scale = variance(states[block + 1], mask, summed)
            scaled = loss / scale if self.options.supernet.normalise == "variance" else loss
            backward(weighed(scaled, mask.sum(), len(mask)))
            relative = float(loss.detach() / scale)
            figures[f"block{block + 1}"] = relative
            sums = self.sums.setdefault(block, [0.0, 0.0, 0.0])
            for i, value in enumerate((1.0, float(loss.detach()), relative)):
                sums[i] += value
        torch.manual_seed(seed_of(base, "next batch"))
        return figures

    def _draw(self) -> None:
        if self.drawn_at != self.step:
            self.before |= {block: self.path_number(block) for block in self.blocks}
            self.drawn_at = self.step

    def path_number(self, block: int) -> int:
        """The path of this step; every process draws the same."""
        rng = random.Random(f"{self.seed}/{self.step}/{block}")
        return draw(self.survivors, block, self.options, rng, self.before.get(block))


@dataclass
class EpochEnds:
    """What happens at the end of each epoch: the log, and from the end of the warm-up on the shrinking."""

    step: BlockwiseStep
    held_out: HeldOut
    hardware: Hardware
    flops: BlockFlops
    training: list[dict[str, float]] = field(default_factory=list)
    shrinking: list[dict[str, float]] = field(default_factory=list)
    spent: dict[str, float] = field(init=False)
    """The teacher's pass over the held-out text and all evaluations of paths."""

    def __post_init__(self) -> None:
        taught = float(self.held_out.texts * self.flops.teacher)
        self.spent = {"evaluated": 0, "examples": 0, "flops": taught, "seconds": 0.0}

    def after(self, step: int) -> bool:
        """See `methods.training.loop.Companion`."""
        self.step.step = step
        o = self.step.options
        if step % o.supernet.epoch_steps:
            return False
        started = time.monotonic()
        epoch = step // o.supernet.epoch_steps
        for block in self.step.blocks:
            self._log(epoch, block)
            if epoch > o.supernet.warmup_epochs:
                self._shrink(epoch, block)
        self.spent["seconds"] += time.monotonic() - started
        self.step.sums.clear()
        self._train_mode()
        counts = [self.step.survivors.count(block) for block in self.step.blocks]
        done = epoch >= o.supernet.warmup_epochs and shrunk(counts, o.shrinking.kept)
        return done and o.supernet.epochs is None and o.shrinking.unit == "path"

    def _train_mode(self) -> None:
        for block in self.step.blocks:
            self.step.supernet.block_modules(block).train()

    def _log(self, epoch: int, block: int) -> None:
        """Mean loss of the epoch's steps, and of the probes on held-out text, over the variance of the target."""
        steps, loss, relative = self.step.sums.get(block, [1.0, float("nan"), float("nan")])
        row = {"epoch": epoch, "block": block + 1, "loss": loss / steps, "relative": relative / steps}
        probes = self.step.survivors.probes[block]
        if len(probes):
            row["probes"] = float(self.losses(block, probes).mean()) / self.held_out.variance(block)
        self.training.append(row)

    def _shrink(self, epoch: int, block: int) -> None:
        o, step = self.step.options.shrinking, self.step
        rounds = shrink(step.survivors, block, o, lambda numbers: self.losses(block, numbers), f"{step.seed}/{epoch}/{block}")
        step.survivors.alive[block] = of_main_process(step.survivors.alive[block])
        self.shrinking += [{"epoch": epoch, "block": block + 1, **vars(found), "bin": found.bin + 1} for found in rounds]

    def losses(self, block: int, numbers: Indices) -> Any:
        """Held-out losses, with what they cost added to `spent`."""
        if not len(numbers):
            return np.zeros(0)
        found = path_losses(self.step.supernet, block, self.step.survivors.paths, numbers, self.held_out, self.hardware)
        texts = self.held_out.texts
        self.spent["evaluated"] += len(numbers)
        self.spent["examples"] += len(numbers) * texts
        self.spent["flops"] += texts * walked(self.step.survivors.paths, numbers, self.flops.operations, self.flops.maps)
        return found

    def state(self) -> dict[str, Any]:
        """See `methods.training.loop.Companion`."""
        step = self.step
        own = {"training": self.training, "shrinking": self.shrinking, "spent": self.spent}
        shared = {
            "step": step.step,
            "before": {str(k): v for k, v in step.before.items()},
            "sums": {str(k): v for k, v in step.sums.items()},
        }
        return {**own, **shared, "alive": step.survivors.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """See `methods.training.loop.Companion`."""
        self.training, self.shrinking, self.spent = state["training"], state["shrinking"], state["spent"]
        self.step.step = state["step"]
        self.step.before = {int(k): v for k, v in state["before"].items()}
        self.step.sums = {int(k): v for k, v in state["sums"].items()}
        self.step.survivors.restore(state["alive"])

    def write(self, folder: Path) -> tuple[str, ...]:
        """Leaves the survivors, both logs and what the shrinking cost in the stage's folder; see `StageCompanion`."""
        survivors = self.step.survivors
        alive = {str(block): [numbers.tolist() for numbers in survivors.alive[block]] for block in self.step.blocks}
        write_atomically(folder / SURVIVORS, json.dumps({"numbers": alive, "readable": as_data(survivors)["blocks"]}))
        write_atomically(folder / TRAINING, _csv(self.training))
        write_atomically(folder / SHRINKING, _csv(self.shrinking))
        write_atomically(folder / SPENT, json.dumps(self.spent))
        return SURVIVORS, SPENT


def read_survivors(folder: Path, survivors: Survivors) -> None:
    """The survivors that `EpochEnds.write` left, put into those of the blocks concerned."""
    data = json.loads((folder / SURVIVORS).read_text())
    for block, bins in data["numbers"].items():
        survivors.alive[int(block)] = [np.array(numbers, dtype=np.int64) for numbers in bins]


def _csv(rows: Sequence[dict[str, float]]) -> str:
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
