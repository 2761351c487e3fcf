"""How well scores that are had early order the networks: rank correlations with scores that are had later."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from analysis.controls import HAND_MADE, RANDOM, measured_controls
from analysis.statistics import bootstrap_interval, spearman

if TYPE_CHECKING:
    from analysis.runs import Run
    from methods.space import Architecture
    from search.measurement import Kind, Measurement

FEWEST = 3
"""Fewer architectures say nothing about an order."""
FEWEST_FOR_INTERVAL = 10
"""Below, draws with replacement repeat so many architectures that the interval is narrower than the truth."""
SCORES = (
    "Rank correlations: Spearman, over architectures, each with its mean over the seeds in which both scores were measured. Shared: with "
    "the supernet's weights on `search`. Predicted: from the tables. Assembled, pre-trained: masked words that the whole network finds on "
    "the corpus, with the supernet's weights (its `search`) or its own (its `validation`). Finished: on `validation`, winners, random "
    "and hand-made networks."
)

Scores = dict["Architecture", dict[int, float]]
"""By architecture and seed."""


class Correlation(NamedTuple):
    """Spearman's, None where a score is the same for all, with its 95 % bootstrap interval, None where there are too few."""

    spearman: float | None
    low: float | None = None
    high: float | None = None

    @property
    def words(self) -> str:
        if self.spearman is None:
            return "undefined (a score is the same for all)"
        return f"{self.spearman:.2f}" + ("" if self.low is None else f" (95 % interval {self.low:.2f} to {self.high:.2f})")


def correlation(before: Sequence[float], after: Sequence[float]) -> Correlation:
    """Of two scores (n,) of the same architectures; the interval is over architectures."""
    value = spearman(before, after)
    if math.isnan(value):
        return Correlation(None)
    return Correlation(value, *bootstrap_interval(spearman, before, after)) if len(before) >= FEWEST_FOR_INTERVAL else Correlation(value)


@dataclass(frozen=True)
class RankCorrelation:
    """Between two scores of a method's networks; `spearman` is None where one of them is the same for all `architectures`.

    `task`: where the later score was measured. `low`, `high`: 95 % bootstrap interval over architectures.
    """

    run: str
    method: str
    task: str
    before: str
    after: str
    architectures: int
    spearman: float | None
    low: float | None = None
    high: float | None = None

    @property
    def words(self) -> str:
        """The correlation with its interval."""
        return Correlation(self.spearman, self.low, self.high).words

    def data(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


def rank_correlations(run: Run, method: str) -> list[RankCorrelation]:
    """All pairs of scores that at least `FEWEST` of a method's architectures have: what is had before finishing with what is after.

    A method trained on the corpus has there `predicted`, `assembled` and `pre-trained` scores, each of which is set against the later
    ones and against `finished` on every task; any other has `shared` and `finished` on the task.
    """
    if method not in run.corpus_methods:
        return [found for task in run.tasks for found in _pair(run, method, task, *_on_task(run, method, task))]
    corpus = run.corpus
    early = [
        ("predicted", _first_scores(run, method, corpus, "predicted")),
        ("assembled", _first_scores(run, method, corpus, "assembled")),
        ("pre-trained", _last_scores(run, method, corpus)),
    ]
    found = [c for before, after in combinations(early, 2) for c in _pair(run, method, corpus, before, after)]
    for task in run.tasks:
        finished = _last_scores(run, method, task)
        for name, scores in early:
            found += _pair(run, method, task, (name, _by_task_seed(run, scores, finished)), ("finished", finished))
    return found


def sentences(correlations: Iterable[RankCorrelation], named: bool) -> list[str]:
    """One line per method and place. `named`: with the run's name."""
    lines: dict[str, list[str]] = {}
    for c in correlations:
        head = f"{f'{c.run}, ' if named else ''}{c.task}, {c.method}"
        lines.setdefault(head, []).append(f"{c.before} with {c.after} {c.words}, n = {c.architectures}")
    return [f"{head}: rank correlation of {'; '.join(parts)}." for head, parts in lines.items()]


def ranks_table(correlations: Sequence[RankCorrelation], named: bool) -> tuple[list[str], list[list[str]]]:
    """Headings and cells."""
    headings = ["method", "on", "score", "later score", "architectures", "Spearman"]
    body = [[c.method, c.task, c.before, c.after, str(c.architectures), c.words] for c in correlations]
    if named:
        return ["run", *headings], [[c.run, *line] for c, line in zip(correlations, body, strict=True)]
    return headings, body


def _on_task(run: Run, method: str, task: str) -> tuple[tuple[str, Scores], tuple[str, Scores]]:
    return ("shared", _first_scores(run, method, task, "shared")), ("finished", _last_scores(run, method, task))


def _by_task_seed(run: Run, scores: Scores, finished: Scores) -> Scores:
    """Scores on the corpus by the seeds that the same architectures were finished with."""
    seeds = {a: [(seed, run.supernet_seed(seed)) for seed in by_seed] for a, by_seed in finished.items()}
    return {a: {seed: by_seed[there] for seed, there in seeds.get(a, []) if there in by_seed} for a, by_seed in scores.items()}


def score_pairs(run: Run, method: str, task: str) -> tuple[list[float], list[float]]:
    """With shared weights on `search`, and finished on `validation`, of the architectures that have both; means over common seeds."""
    return _both(_on_task(run, method, task)[0][1], _on_task(run, method, task)[1][1])


def _both(before: Scores, after: Scores) -> tuple[list[float], list[float]]:
    xs, ys = [], []
    for architecture, scores in before.items():
        seeds = scores.keys() & after.get(architecture, {}).keys()
        if seeds:
            xs.append(fmean(scores[seed] for seed in seeds))
            ys.append(fmean(after[architecture][seed] for seed in seeds))
    return xs, ys


def _pair(run: Run, method: str, task: str, before: tuple[str, Scores], after: tuple[str, Scores]) -> Iterator[RankCorrelation]:
    xs, ys = _both(before[1], after[1])
    if len(xs) >= FEWEST:
        yield RankCorrelation(run.name, method, task, before[0], after[0], len(xs), *correlation(xs, ys))


def _first_scores(run: Run, method: str, task: str, kind: Kind) -> Scores:
    """On `search`, with the weights of the supernet (per seed) that was measured last."""
    found = [m for m in run.measurements if (m.task, m.architecture.method, m.kind, m.split) == (task, method, kind, "search")]
    last = {m.seed: m.weights_digest for m in found}
    return _by_architecture(m for m in found if m.weights_digest == last[m.seed])


def _last_scores(run: Run, method: str, task: str) -> Scores:
    """On `validation`: winners, and the controls that were finished as winners are."""
    from search.candidates import candidates

    mine = [m for m in run.measurements if (m.task, m.architecture.method) == (task, method)]
    winners = [m for candidate in candidates(mine, "finished", "validation") for m in candidate.measurements]
    controls = [m for name in (RANDOM, HAND_MADE) for m in measured_controls(run, task, name, method=method)]
    return _by_architecture([*controls, *winners])


def _by_architecture(found: Iterable[Measurement]) -> Scores:
    scores: Scores = {}
    for m in found:
        if math.isfinite(m.quality):
            scores.setdefault(m.architecture, {})[m.seed] = m.quality
    return scores
