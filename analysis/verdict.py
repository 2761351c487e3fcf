"""In words: did the search help, against random architectures of the same size?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.controls import random_in_window, window_words
from analysis.paired import NoTestError, against_mean, one_by_one
from analysis.statistics import PairedTest, mean_and_spread
from methods.budget import Budget
from search.candidates import rankable

if TYPE_CHECKING:
    from analysis.runs import Run
    from analysis.winners import Winner
    from search.measurement import Key, Measurement

LEVEL = 0.05
HELPED, UNHELPFUL = "So the search helped", "So the search did not help measurably."
"""How conclusions begin."""


def verdict(run: Run, task: str, method: str, budget: Budget, winners: Sequence[Winner] | str) -> str:
    """One sentence (or two) on one method under one budget; where nothing can be said, why not."""
    head = f"{task}, {budget.label()}, {method}:"
    if isinstance(winners, str):
        return f"{head} no winner ({winners})."
    ours = [w.finished for w in winners if w.finished is not None]
    if len(ours) < len(winners):
        return f"{head} whether the search helped can't be said: {_count(len(winners) - len(ours), 'winner')} not measured on validation."
    theirs = random_in_window(run, task, method, budget)
    window = window_words(run, task, method, budget)
    if not theirs:
        return f"{head} whether the search helped can't be said: no random architecture with {window} was measured."
    mean, _ = mean_and_spread([m.quality for m in ours])
    average, _ = mean_and_spread([m.quality for m in theirs])
    typical, beyond_typical = _tested(mean - average, lambda: against_mean(run, ours, theirs))
    on_search = _search_scores(run, theirs)
    pairs = [(m, _best([r for r in theirs if r.seed == m.seed], on_search)) for m in ours]
    matched = [(m, r) for m, r in pairs if r is not None]
    text = (
        f"{head} the search's choice has {_seeds(ours)}{mean:.4f} {ours[0].metric}, {_points(mean - average)} the mean of "
        f"{_count(len(theirs), 'random network')} with {window} ({average:.4f}; {typical})"
    )
    if not matched:
        return f"{text}. {_conclusion(beyond_typical, None)}"
    best, _ = mean_and_spread([r.quality for _, r in matched])
    gap = sum(m.quality - r.quality for m, r in matched) / len(matched)
    closest, beyond_best = _tested(gap, lambda: one_by_one(run, [m for m, _ in matched], [r for _, r in matched]))
    same = all(m.architecture == r.architecture for m, r in matched)
    against = "which is the same architecture" if same else closest
    return (
        f"{text}, and {_points(gap)} the best of them on {'validation' if on_search is None else 'search'} ({best:.4f}; {against}). "
        + _conclusion(beyond_typical, None if same else beyond_best)
    )


def _best(candidates: Sequence[Measurement], on_search: Mapping[Key, float] | None) -> Measurement | None:
    """The best random network of a seed, by its score on `search` where all of all seeds have one, else by `validation`, which flatters
    it."""
    return max(candidates, key=lambda m: rankable(m.quality if on_search is None else on_search[m.key]), default=None)


def _search_scores(run: Run, candidates: Sequence[Measurement]) -> dict[Key, float] | None:
    """What `search` says of these networks: in one kind for all of them (the control itself, else the supernet's weights), or None."""
    for kind in ("control", "shared"):
        known = {
            (m.architecture, m.seed): m.quality
            for m in run.measurements
            if m.task == candidates[0].task and m.split == "search" and m.kind == kind and m.control in (candidates[0].control, "")
        }
        if all((m.architecture, m.seed) in known for m in candidates):
            return {m.key: known[m.architecture, m.seed] for m in candidates}
    return None


def _tested(difference: float, test: Callable[[], PairedTest | tuple[float, float]]) -> tuple[str, bool | None]:
    """The test in words, and whether our networks are better beyond chance (None: not known)."""
    try:
        result = test()
    except NoTestError as error:
        return f"no test: {error}", None
    if isinstance(result, PairedTest):
        return str(result), result.p_value < LEVEL and difference > 0
    low, high = result
    return f"95 % interval over examples {100 * low:+.1f} to {100 * high:+.1f} points", low > 0


def _conclusion(beyond_typical: bool | None, beyond_best: bool | None) -> str:
    if beyond_typical is None:
        return "Whether that is more than chance is not known."
    if not beyond_typical:
        return UNHELPFUL
    if beyond_best:
        return f"{HELPED}, even against the best of them."
    if beyond_best is None:
        return f"{HELPED} against a random choice."
    return f"{HELPED} against a random choice, but not measurably more than trying those random ones and keeping the best."


def _points(difference: float) -> str:
    points = 100 * difference
    if abs(points) < 0.05:
        return "level with"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"


def _seeds(measured: Sequence[Measurement]) -> str:
    return "" if len(measured) == 1 else f"a mean over {len(measured)} seeds of "


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
