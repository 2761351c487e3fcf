"""What the networks of a row cost to train and to search, per seed, from the archive's records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from methods.budget import Budget
from methods.recipe import serves
from methods.space import Architecture

if TYPE_CHECKING:
    from analysis.runs import Run
    from search.tables import StageRow

SEARCH_COLUMNS = ("search_evaluations", "search_seconds")
TRAINING_COLUMNS = ("training_steps", "training_examples", "training_flops", "training_seconds", "training_subnetwork_steps")
CORPUS_COLUMNS = ("corpus_flops", "corpus_seconds")
NO_CORPUS = "no work on a corpus"
_NOTHING_RECORDED = "no training recorded"
_NOT_COUNTED = "not counted when this was trained, or not kept: a run started again keeps what its stages counted"
_ANY = Architecture.of("any", {})

Sums = npt.NDArray[np.float64]
"""(5,): steps, examples, FLOPs, seconds, sub-network steps, which are NaN where those of a stage were not counted."""


class Cells(NamedTuple):
    """Some columns of a row, and why others are empty."""

    values: dict[str, Any]
    why: dict[str, str]


class Trained(NamedTuple):
    """A network of a row, as far as what it cost goes; no architecture: what serves all networks of that seed."""

    seed: int
    architecture: Architecture | None = None


def empty(columns: Sequence[str], reason: str) -> Cells:
    """These columns stay empty for one reason."""
    return Cells({}, dict.fromkeys(columns, reason))


def no_training(reason: str) -> Cells:
    """A row whose networks were not trained for it."""
    return empty((*TRAINING_COLUMNS, *CORPUS_COLUMNS), reason)


def search_cost(run: Run, task: str, method: str, budget: Budget, by: str | None = None) -> Cells:
    """Mean over seeds of what the search under this budget cost; a search that served every budget is counted whole.

    `by`: of one strategy, or of the method's own rule, alone. Methods that are trained on the corpus are searched there, once for all
    tasks.
    """
    place = run.corpus if method in run.corpus_methods else task
    rows = [row for row in run.searches if (row.task, row.method) == (place, method) and by in (None, row.strategy)]
    rows = [row for row in rows if row.budget in (budget.label(), "")]
    if not rows:
        return empty(SEARCH_COLUMNS, "no search recorded")
    return Cells({f"search_{name}": _per_seed(rows, name) for name in ("evaluations", "seconds")}, {})


def stages_cost(run: Run, task: str, who: str, stages: Sequence[str] | None = None) -> Cells:
    """Mean over seeds of what all stages of the teacher or the truncated teacher cost, or those named."""
    rows = [row for row in run.stages if (row.task, row.method) == (task, who) and (stages is None or row.stage in stages)]
    if not rows:
        return no_training(_NOTHING_RECORDED)
    return _cells(_sum(rows) / len({row.seed for row in rows}), {}, dict.fromkeys(CORPUS_COLUMNS, NO_CORPUS))


def training_cost(run: Run, task: str, method: str, networks: Iterable[Trained], found_by_search: bool = True, way: str = "") -> Cells:
    """The mean over the networks of what each cost to train; the teacher's fine-tuning is in no method's sum.

    A network costs the stages of its seed that serve it alone and, where it was `found_by_search`, those that serve all networks: it
    would not have been found without them. Stages on the corpus count in `training_*` divided by what they serve, those for all
    networks by tasks x budgets, a network's own by tasks; `corpus_*` have them whole. `way`: the other way in which the networks were
    finished; the archive keeps its stages apart.
    """
    who = f"{method} {way}".rstrip()
    on_task = [row for row in run.stages if (row.task, row.method) == (task, who)]
    on_corpus = [row for row in run.stages if run.corpus not in ("", task) and (row.task, row.method) == (run.corpus, who)]
    tasks, budgets = run.served
    training, corpus = [], []
    for seed, architecture in networks:
        here = [row for row in on_task if row.seed == seed] if task != run.corpus else of_seed(on_task, seed)
        there = of_seed(on_corpus, run.supernet_seed(seed))
        alone, alone_there = own(here, architecture), own(there, architecture)
        for_all, for_all_there = (common(rows) if found_by_search else [] for rows in (here, there))
        if not alone + alone_there + for_all + for_all_there:
            continue
        training.append(_sum(alone + for_all) + _sum(alone_there) / tasks + _sum(for_all_there) / (tasks * budgets))
        corpus.append(_sum(alone_there + for_all_there))
    if not training:
        return no_training(_NOTHING_RECORDED)
    mean = np.mean(training, axis=0)
    if not on_corpus:
        return _cells(mean, {}, dict.fromkeys(CORPUS_COLUMNS, "is the work on the corpus itself" if task == run.corpus else NO_CORPUS))
    whole = np.mean(corpus, axis=0).tolist()
    return _cells(mean, {"corpus_flops": whole[2], "corpus_seconds": whole[3]}, {})


def common_corpus_work(run: Run, method: str) -> tuple[float, float]:
    """FLOPs and seconds, per supernet, of the stages on the corpus that serve all networks."""
    rows = [row for row in run.stages if (row.task, row.method) == (run.corpus, method)]
    sums = [_sum(common(of_seed(rows, seed))) for seed in run.seeds(run.corpus, method)]
    mean = np.mean(sums, axis=0) if sums else np.zeros(5)
    return float(mean[2]), float(mean[3])


def of_seed(rows: Sequence[StageRow], seed: int) -> list[StageRow]:
    """The corpus stages of a seed, and those for all networks that were recorded under a single other seed: they serve every seed."""
    mine = [row for row in rows if row.seed == seed]
    names = {row.stage for row in mine}
    others = [row for row in common(rows) if row.stage not in names]
    once = [row for row in others if sum(other.stage == row.stage for other in others) == 1]
    return mine + once if mine else []


def common(rows: Sequence[StageRow]) -> list[StageRow]:
    """Those that serve no single architecture; the name alone says it, so any architecture may be asked about."""
    return [row for row in rows if serves(row.stage, _ANY) is None]


def own(rows: Sequence[StageRow], architecture: Architecture | None) -> list[StageRow]:
    """Those that serve this architecture alone."""
    return [row for row in rows if architecture is not None and serves(row.stage, architecture)]


def _sum(rows: Sequence[StageRow]) -> Sums:
    counted = [(row.steps, row.examples, row.flops, row.seconds, _subnetwork_steps(row)) for row in rows]
    total: Sums = np.array(counted, dtype=np.float64).reshape(-1, 5).sum(axis=0)
    return total


def _subnetwork_steps(row: StageRow) -> float:
    """A stage without steps trained nothing, whoever recorded it."""
    if row.subnetwork_steps is None:
        return math.nan if row.steps else 0
    return row.subnetwork_steps


def _cells(training: Sums, values: dict[str, Any], why: dict[str, str]) -> Cells:
    """The columns of training, and more `values` and reasons."""
    found = dict(zip(TRAINING_COLUMNS, training.tolist(), strict=True))
    uncounted = [name for name, value in found.items() if math.isnan(value)]
    return Cells({**found, **values, **dict.fromkeys(uncounted)}, {**why, **dict.fromkeys(uncounted, _NOT_COUNTED)})


def _per_seed(rows: Sequence[Any], name: str) -> float:
    total: float = sum(getattr(row, name) for row in rows)
    return total / len({row.seed for row in rows})
