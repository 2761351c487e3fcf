"""How fast the best networks are found from NAS-BERT's tables: 4 blocks of 100 surviving paths, against enumeration of all 1e8.

Tables of the paper's size (10 bins of at most 10 paths per block, BERT-base's vocabulary, length 128) with made-up losses that fall
with size, and made-up latency. Enumeration adds up loss and limited costs of slabs of combinations of one embedding width and keeps
the best; it is timed on some slabs and extrapolated. The ratio is of the search in that one width.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.costs import seconds
from methods.additive import Chain, top
from methods.backbone import BERT_BASE
from methods.budget import Budget
from methods.errors import UserError
from methods.layers.part import Part
from methods.nasbert.bins import bin_of_classes
from methods.nasbert.chains import cost_chains
from methods.nasbert.estimate import NasBertEstimates
from methods.nasbert.losses import BlockLosses
from methods.nasbert.paths import Paths
from methods.nasbert.space import NasBertSpace
from methods.tasks.head import Head

HEAD, LENGTH, COUNT = Head("classification", 2), 128, 100
SLABS = 400
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Clock:
    """A made-up device on which convolutions are slow for what they compute."""

    scale: float = 1.0
    fixed: float = 0.0

    def part(self, part: Part) -> float:
        return 1e-5 + part.flops(LENGTH) * (2e-10 if "convolution" in part.kind else 5e-11)


BUDGETS = {
    "no limit": Budget(),
    "60M parameters": Budget(max_params=60e6),
    "30M, 3G FLOPs": Budget(max_params=30e6, max_flops=3e9),
    "10M, 1.4G FLOPs, 100 ms": Budget(max_params=10e6, max_flops=1.4e9, max_latency={"clock": 0.1}),
    "5M, 0.75G FLOPs, 60 ms": Budget(max_params=5e6, max_flops=0.75e9, max_latency={"clock": 0.06}),
    "4M, 0.5G FLOPs": Budget(max_params=4e6, max_flops=0.5e9),
    "infeasible together": Budget(max_params=2.7e6, max_flops=0.5e9, max_latency={"clock": 0.035}),
}


def main() -> None:
    space = NasBertSpace()
    losses = survivors(space)
    of_mode = {
        mode: NasBertEstimates(losses, space, BERT_BASE, [HEAD], LENGTH, 1, {"clock": Clock()}, mode) for mode in ("paper", "searched")
    }
    chain = cost_chains(losses, space, Paths(space), BERT_BASE, [HEAD], LENGTH, 1, {"clock": Clock()})[1]
    print(f"{float(np.prod(chain.sizes)):,.0f} combinations of blocks, the {COUNT} best; `best` searches embedding widths too.")
    print(f"Enumeration of one width in slabs of {np.prod(chain.sizes[2:]):,}, extrapolated from {SLABS}.")
    print(f"{'budget':<26}{'found':>6}{'best, paper':>13}{'best, searched':>16}{'one width':>11}{'enumeration':>13}{'ratio':>8}")
    for name, budget in BUDGETS.items():
        limits = limits_of(budget)
        one = seconds(lambda limits=limits: top([chain], limits, COUNT), 5)
        whole = enumeration_seconds(chain, limits)
        taken = {mode: seconds(lambda e=estimates, b=budget: best(e, b), 5) for mode, estimates in of_mode.items()}
        found = best(of_mode["searched"], budget)
        print(
            f"{name:<26}{found:>6}{taken['paper']:>11.3f} s{taken['searched']:>14.3f} s{one:>9.3f} s{whole:>11.1f} s{whole / one:>7,.0f}x"
        )


def best(estimates: NasBertEstimates, budget: Budget) -> int:
    """How many of the best there are; none where a budget is refused."""
    try:
        return len(estimates.best(budget, COUNT))
    except UserError:
        return 0


def survivors(space: NasBertSpace) -> BlockLosses:
    """Of every block and bin at most ten random paths, and losses that fall with size."""
    rng, paths = np.random.default_rng(0), Paths(space)
    table = space.tables(BERT_BASE, HEAD, LENGTH).operation
    size = paths.costs(table[..., 1])
    bins = bin_of_classes(size, paths.costs(table[..., 2]), np.ones(len(paths)), 10, "equal_width", "upper")
    blocks = []
    for _ in range(space.blocks):
        of_bin = [np.flatnonzero(bins == b) for b in range(10)]
        numbers = np.concatenate([rng.choice(rows, min(10, len(rows)), replace=False) for rows in of_bin])
        loss = (size[numbers] / size.max() + 0.02) ** -0.3 * rng.lognormal(-1, 0.05, len(numbers))
        blocks.append((numbers, loss, bins[numbers]))
    return BlockLosses(tuple(blocks))


def limits_of(budget: Budget) -> Floats:
    """The limits in the columns of `cost_columns`."""
    given: Mapping[str, float] = budget.limits()
    names = ("max_params", "max_params_non_embedding", "max_flops", "max_latency.clock")
    return np.array([given.get(name, np.inf) for name in names])


def enumeration_seconds(chain: Chain, limits: Floats) -> float:
    """Seconds that looking at every combination would take: each of the first two blocks with all of the last two at a time."""
    left, before, right, after, border = chain.halves()
    columns = [0, *(1 + np.flatnonzero(limits < np.inf)).tolist()]
    started, kept = time.perf_counter(), np.empty(0)
    for row in np.random.default_rng(0).permutation(len(left))[:SLABS]:
        totals = [left[row, k] + border[before[row], after, k] + right[:, k] for k in columns]
        fits = np.ones(len(right), dtype=bool)
        for total, k in zip(totals[1:], columns[1:], strict=True):
            fits &= total <= limits[k - 1]
        kept = np.concatenate([kept, totals[0][fits]])
        kept = np.partition(kept, COUNT)[:COUNT] if len(kept) > COUNT else kept
    return (time.perf_counter() - started) * len(left) / SLABS


if __name__ == "__main__":
    main()
