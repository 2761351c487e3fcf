"""Early stop: an architecture that is shown to be worse than one already known need not be evaluated on every row.

The rows of `search` are read in a random order, and after an eighth, a quarter and a half of them (`LOOKS`) the architecture is set
against its rivals, the best ones evaluated whole, row by row. It is hopeless if at that look the hypothesis that over *all* rows it is at
least as good is rejected against each of them, at the level

    error / (evaluations x looks).

By the union bound a search of so many evaluations then stops, with at most the probability `error`, any architecture that is at least
as good as the best one known under a budget that it meets: the only ones that could become a winner. (Of an architecture that would win
under some budget the rival of *that* budget has to be rejected wrongly, which one test does with at most the level. So several rivals
cost nothing.) The probability is over the orders of rows; each pair of architecture and rivals has one of its own, so it depends on
nothing that led to the pair, and what was told of estimates before does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from methods.space import Architecture
from search.measurement import Evaluated
from search.predictions import Predictions
from search.strategies.strategy import seed_of

LOOKS = (1 / 8, 1 / 4, 1 / 2)
"""Shares of the rows after which it is asked whether an architecture is hopeless."""
Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def level_of(error: float, evaluations: int) -> float:
    """What each look may spend of a search's error."""
    return error / (evaluations * len(LOOKS))


def p_value(wins: int, losses: int, seen: int, rows: int) -> float:
    """How likely so few wins are at most, among `seen` of `rows` rows drawn without replacement, if over all rows the architecture wins
    at least as often as it loses. A win: it is right where its rival is wrong; rows where both are right or both wrong say nothing.

    Let W and L be wins and losses of all rows, D = W + L, and w and l those seen, m = w + l. Given m, the seen rows that differ are a
    uniform sample of m of the D, so w is hypergeometric: P(w <= x | m) = F(x; D, W, m). That falls as W grows, so under W >= L it is
    largest at W = ceil(D / 2). D is not known, but m <= D <= m + rows - seen. With x < m / 2 it grows along D:

    - Even D = 2K. From K to K + 1 the probability of j wins changes by a factor proportional to 1 / ((K + 1 - j)(K + 1 - m + j)),
      symmetric about j = m / 2 and growing away from it. So |w - m/2| becomes stochastically larger, and w being symmetric about m / 2,
      its tail P(w <= x) as well.
    - Odd D = 2K - 1 with K wins: one loss more makes it D = 2K with K wins, of which a sample has stochastically fewer wins.

    So the largest of all is at D = m + rows - seen or, where that is odd, perhaps at the even number below it. Given every m the p-value
    is valid, so it is valid without the condition. 1 where nothing speaks against the hypothesis, 0 where all rows left can't mend it.
    """
    from scipy.stats import hypergeom

    differing = wins + losses
    if wins >= losses:
        return 1.0
    most = differing + rows - seen
    return max(float(hypergeom.cdf(wins, d, (d + 1) // 2, differing)) for d in {most, max(differing, most - most % 2)})


def right(logits: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Flags:
    """Which rows are classified as labelled (n,); none where logits (n, classes) are not finite: such a network has no quality."""
    if not np.isfinite(logits).all():
        return np.zeros(len(labels), dtype=np.bool_)
    found: Flags = logits.argmax(axis=1) == labels
    return found


@dataclass(frozen=True)
class Rival:
    """An architecture that was evaluated whole; `packed`: which rows it was right on, in the split's order, a bit each."""

    id: str
    packed: bytes
    rows: int

    @classmethod
    def of(cls, architecture: Architecture, predictions: Predictions) -> Rival | None:
        """None where it is not known what would have been right."""
        if predictions.labels is None:
            return None
        return cls(architecture.id, np.packbits(right(predictions.logits, predictions.labels)).tobytes(), len(predictions.labels))

    @cached_property
    def right(self) -> Flags:
        return np.unpackbits(np.frombuffer(self.packed, dtype=np.uint8), count=self.rows).astype(np.bool_)


@dataclass(frozen=True)
class Race:
    """An architecture to be evaluated against its rivals, best first; plain data, that any process can do. Without rivals it is evaluated
    whole. `level`: of the test at each look."""

    architecture: Architecture
    rivals: tuple[Rival, ...] = ()
    level: float = 0.0
    seed: int = 0

    @property
    def id(self) -> str:
        """As messages call it."""
        return self.architecture.id

    def parts(self) -> list[Rows]:
        """The rows in random order, cut where it is looked; every row is in one part."""
        rows = self.rivals[0].rows
        names = [self.architecture.id, *(rival.id for rival in self.rivals)]
        order = np.random.default_rng(seed_of("rows", self.seed, *names)).permutation(rows)
        looks = sorted({look for share in LOOKS if (look := math.ceil(share * rows)) < rows})
        return np.split(order.astype(np.int64), looks)

    def p_value(self, seen: Rows, right: Flags) -> float:
        """The largest of those against each rival; `right`: whether the architecture was, on the rows seen."""
        rows = self.rivals[0].rows
        counts = [_differences(right, rival.right[seen]) for rival in self.rivals]
        return max(p_value(wins, losses, len(seen), rows) for wins, losses in counts)

    def estimate(self, seen: Rows, right: Flags) -> float:
        """Its accuracy over all rows: the best rival's, which is known, and the difference on the rows seen. That varies less than the
        accuracy on the rows seen, and is less than the rival's where the architecture was hopeless."""
        best = self.rivals[0].right
        wins, losses = _differences(right, best[seen])
        return max(0.0, float(best.mean()) + (wins - losses) / len(seen))


def _differences(right: Flags, rivals: Flags) -> tuple[int, int]:
    """Wins and losses."""
    return int((right & ~rivals).sum()), int((rivals & ~right).sum())


@dataclass(frozen=True)
class Stopped(Evaluated):
    """An architecture that was found hopeless after `rows` of the split's rows: no `Measurement`, and never ranked.

    `estimate` of the main metric is what the strategy is told; `rivals`: ids of those that it is worse than; `p`: the largest p-value of
    the last look; `seconds`: what was spent.
    """

    rows: int
    estimate: float
    rivals: Sequence[str]
    p: float
    seconds: float = 0.0
    created: str = field(default="", compare=False)
