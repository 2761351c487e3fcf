"""What shrinking did to a supernet, judged on text and paths that it never used: `python -m benchmarks.shrinking RUN OTHER-RUN`.

Two runs of the same corpus and space, one with shrinking and one without (`shrinking.unit: none`, equal `supernet.epochs`), are set side
by side on the corpus's `validation`: the mean block error of the probe paths (set apart in both, never trained or ranked), the same of
each run's best path per bin, both over the variance of the teacher's states, and what the tables put first under each budget of the first
run, assembled from either supernet. Beside them the least error that any path of a width can have, from the principal components of the
teacher's states: an Out map from h dimensions spans h directions at most.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from methods.corpus.masked_words import masked_batches
from methods.nasbert.assembly import MaskedWords
from methods.nasbert.losses import BlockLosses
from methods.nasbert.ranking import HeldOut, path_losses
from methods.nasbert.recipe import NasBertRecipe
from methods.nasbert.supernet_stage import MASK_SEED, losses_file, new_survivors
from workbench.folder import RunFolder
from workbench.session import Session

TEXTS, SIZE = 256, 32


class Opened:
    """One run's supernet, tables and validation text."""

    def __init__(self, run: Path) -> None:
        folder = RunFolder(run)
        self.session = Session(folder.experiment(), folder, str(run))
        member = next(m for m in self.session.members if m.name == "nasbert")
        assert isinstance(member.recipe, NasBertRecipe)
        self.recipe, self.space, self.options = member.recipe, member.space, member.options
        self.context = self.session.corpus_context("nasbert", self.session.experiment.corpus.seed or 0, lambda _: None)  # type: ignore[union-attr]
        torch.set_num_threads(self.context.hardware.threads)
        self.supernet = self.recipe.train(self.context)
        self.losses = BlockLosses.load(losses_file(self.context.folder), self.space)  # type: ignore[arg-type]
        self.survivors = new_survivors(self.options, self.space, self.context)  # type: ignore[arg-type]

    def text(self) -> list[dict[str, torch.Tensor]]:
        """The first texts of `validation`, masked."""
        packed = self.session.corpus.packed("validation", self.options.supernet.length)
        return list(masked_batches(packed, self.context.corpus.masker, SIZE, TEXTS // SIZE, MASK_SEED))

    def held_out(self) -> HeldOut:
        return HeldOut.of(self.recipe._teacher(self.context), self.text(), self.space.blocks, self.context.hardware)  # type: ignore[attr-defined]

    def errors(self, block: int, numbers: Any, held_out: HeldOut) -> Any:
        """Relative errors of paths of a block."""
        found = path_losses(self.supernet, block, self.survivors.paths, numbers, held_out, self.context.hardware)
        return found / held_out.variance(block)


def main(first: Path, second: Path) -> None:
    a, b = Opened(first), Opened(second)
    held_out = a.held_out()
    print(f"relative block errors on {held_out.texts} texts of validation: {first.name} | {second.name}")
    for block in range(a.space.blocks):  # type: ignore[attr-defined]
        probes = a.survivors.probes[block]
        if (probes != b.survivors.probes[block]).any():
            raise SystemExit("the two runs set other probes apart; they need the same space, bins and supernet.probe_paths")
        ours, theirs = a.errors(block, probes, held_out), b.errors(block, probes, held_out)
        better = int((ours < theirs).sum())
        print(f"block {block + 1}: {len(probes)} probes {ours.mean():.4f} | {theirs.mean():.4f} (lower in {better})", end="")
        best = [_best_per_bin(run, block, held_out) for run in (a, b)]
        print(f"; best path of each bin {_row(best[0])} | {_row(best[1])}; floor by width {_floor(held_out, block, a.space)}")
    words = MaskedWords.of(a.text(), a.context.hardware, a.recipe._teacher(a.context))
    for budget in a.session.experiment.all_budgets():
        scores = [_assembled(run, budget, words) for run in (a, b)]
        text = " | ".join(f"{s['log_likelihood']:.4f} nats, state error {-s['negative_state_error']:.4f}" for s in scores)
        print(f"{budget.label()}: best of the tables, assembled: {text}")


def _best_per_bin(run: Opened, block: int, held_out: HeldOut) -> list[float]:
    """By each run's own table, measured on validation."""
    numbers, losses, bins = run.losses.blocks[block]
    chosen = [numbers[bins == k][losses[bins == k].argmin()] for k in np.unique(bins)]
    return [float(x) for x in run.errors(block, np.array(chosen), held_out)]


def _floor(held_out: HeldOut, block: int, space: Any) -> str:
    """Share of the target's variance outside its first h principal components."""
    states = torch.cat([s[block + 1].reshape(-1, s[block + 1].shape[-1]) for s in held_out.states]).double()
    states = states - states.mean(0)
    values = torch.linalg.eigvalsh(states.T @ states).flip(0)
    return ", ".join(f"{h}: {float(values[h:].sum() / values.sum()):.3f}" for h in space.hidden_sizes)


def _assembled(run: Opened, budget: Any, words: MaskedWords) -> dict[str, float]:
    e = run.session.experiment
    where = (run.context.folder, run.space, run.session.shape, [t.spec.head for t in e.all_tasks], e.cost.length, e.cost.batch, {})
    best = run.recipe.estimates(*where).best(budget, 1)[0].architecture  # type: ignore[arg-type]
    net = run.supernet
    return words.score(lambda batch: net.encode(batch, best)[-1], net.head, net.stem.word.weight)


def _row(values: list[float]) -> str:
    return " ".join(f"{v:.3f}" for v in values)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
