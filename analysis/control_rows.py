"""The control rows of a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from analysis.controls import (
    FLOOR,
    FLOORS,
    HAND_MADE,
    RANDOM,
    TEACHER,
    TRUNCATED,
    UNTRAINED,
    costliest_within,
    int8_name,
    measured_controls,
    other_controls,
    random_in_window,
    teacher_of,
    used_share,
    way_of,
    window_words,
)
from analysis.rows import Place, Row
from analysis.spending import SEARCH_COLUMNS, Cells, Trained, empty, no_training, stages_cost, training_cost
from analysis.summary import COST_COLUMNS, QUALITY_COLUMNS, architecture_cells, cost_cells, quality_cells, together
from methods.budget import Budget, format_quantity
from search.candidates import rankable
from search.measurement import BYTES, INT8

if TYPE_CHECKING:
    from analysis.winners import Winner
    from methods.space import Architecture
    from search.measurement import Measurement

_NO_SEARCH = empty(SEARCH_COLUMNS, "not searched")
_OF_THE_SUPERNET = "the method's supernet, trained once for all rows"


def control_rows(place: Place, method: str, winners: Sequence[Winner]) -> list[Row]:
    """A method's own controls: random architectures, floors, hand-made networks, the winners' shapes in other weights.

    Ways to finish that the run asked for under other budgets alone have no row.
    """
    names = other_controls(place.run, place.task, method)
    rows = [*int8_rows(place, method, winners), random_row(place, method), *floor_rows(place, method)]
    for name in sorted(names, key=lambda name: (name != HAND_MADE, name in UNTRAINED, name.startswith(HAND_MADE))):
        if name in UNTRAINED:
            rows.append(untrained_row(place, method, winners, name))
        elif name.startswith(HAND_MADE):
            rows += hand_made_rows(place, method, name)
        else:
            rows += _rows_where_measured(place, method, name, ((w.seed, w.answer.architecture) for w in winners))
    if not any(name in UNTRAINED for name in names) and method not in place.run.corpus_methods:
        rows.append(untrained_row(place, method, winners, UNTRAINED[0]))
    return rows


def teacher_row(place: Place) -> Row:
    """The untouched teacher, whatever the limit."""
    teacher = teacher_of(place.run, place.task)
    cost = stages_cost(place.run, place.task, TEACHER)
    if teacher is None:
        return _row(place, TEACHER, "", _nothing("not measured on validation"), cost)
    return _row(place, TEACHER, "", _cells(place, [teacher]), cost)


def int8_rows(place: Place, method: str, winners: Sequence[Winner]) -> list[Row]:
    """The winners with weights of 8 bit, and how large their files are; none where that was not measured."""
    measured = {(m.seed, m.architecture): m for m in measured_controls(place.run, place.task, INT8, method=method)}
    found = [m for w in winners if (m := measured.get((w.seed, w.answer.architecture))) is not None]
    if not found:
        return []
    small, whole = (sum(m.metrics[name] for m in found) / len(found) / 1e6 for name in BYTES)
    cells = _cells(place, found)
    cells = Cells({**cells.values, "architecture": f"the winner in {small:.1f} MB instead of {whole:.1f}"}, cells.why)
    return [_row(place, int8_name(method), method, cells, no_training("the winner's own weights"))]


def random_row(place: Place, method: str) -> Row:
    """Mean and range over random architectures of the same size; they cost what was trained for them alone."""
    found = random_in_window(place.run, place.task, method, place.budget)
    if not found:
        reason = f"none measured with {window_words(place.run, place.task, method, place.budget)}"
        return _row(place, f"{RANDOM} ({method})", method, _nothing(reason), no_training(reason))
    cost = _own_cost(place, method, found)
    if not cost.values and method not in place.run.corpus_methods:
        cost = no_training(_OF_THE_SUPERNET)
    cells = _cells(place, found)
    count = len({m.architecture for m in found})
    qualities = [m.quality for m in found]
    spanned = f", {min(qualities):.4f} to {max(qualities):.4f}" if len(found) > 1 else ""
    values = {**cells.values, "architecture": f"{count} architecture{'s' * (count > 1)}{spanned}"}
    return _row(place, f"{RANDOM} ({method})", method, Cells(values, cells.why), cost)


def floor_rows(place: Place, method: str) -> list[Row]:
    """What the method has to beat, seed by seed: of each kind the costliest that meets the budget; none where it has no such controls."""
    run, task, rows = place.run, place.task, []
    who = f"{method} {FLOOR}"
    if not any(row.method == who for row in run.stages):
        return []
    for name in FLOORS:
        found = list(costliest_within(run, task, name, place.budget).values())
        if found and found[0].architecture.method == method:
            rows.append(_row(place, name, method, _cells(place, found), _own_cost(place, method, found, FLOOR)))
        elif found:
            rows.append(_row(place, name, method, _cells(place, found), stages_cost(run, task, who, [name])))
        elif measured_controls(run, task, name):
            reason = f"none fits: smallest {_smallest(measured_controls(run, task, name), place.budget)}"
            rows.append(_row(place, name, method, _nothing(reason), no_training(reason)))
    return rows


def hand_made_rows(place: Place, method: str, name: str) -> list[Row]:
    """The hand-made network of the budget, seed by seed; finished in another way (`name` says which) it is the same network."""
    chosen = costliest_within(place.run, place.task, HAND_MADE, place.budget, method)
    if name != HAND_MADE:
        return _rows_where_measured(place, method, name, ((m.seed, m.architecture) for m in chosen.values()))
    label = f"{HAND_MADE} ({method})"
    if not chosen:
        reason = f"none fits: smallest {_smallest(measured_controls(place.run, place.task, HAND_MADE, method=method), place.budget)}"
        return [_row(place, label, method, _nothing(reason), no_training(reason))]
    found = list(chosen.values())
    return [_row(place, label, method, _cells(place, found), _own_cost(place, method, found))]


def untrained_row(place: Place, method: str, winners: Sequence[Winner], name: str) -> Row:
    """The winners' shapes cut from the weights before the first trained stage, winner by winner.

    Such weights need not depend on the seed, and are measured once then: that one measurement stands for every seed without its own.
    """
    measured = measured_controls(place.run, place.task, name, method=method)
    last = {(m.architecture, m.seed): m for m in measured}
    of_any_seed = {m.architecture: m for m in measured}
    of_winners = [last.get((w.answer.architecture, w.seed)) or of_any_seed.get(w.answer.architecture) for w in winners]
    found = [m for m in of_winners if m is not None]
    networks = list({m.key: m for m in found}.values())
    reason = "not measured for this winner" if last else "not measured"
    found = networks if len(networks) == 1 else found
    cells = _cells(place, found) if found else _nothing(reason if winners else "there is no winner")
    cells = Cells({**cells.values, "networks": len(networks)}, cells.why)
    return _row(place, f"{name} ({method})", method, cells, no_training("not trained"))


def truncated_row(place: Place) -> Row:
    """The best evenly cut and distilled teacher that fits, chosen on `search` seed by seed (where not measured there: the costliest)."""
    known = measured_controls(place.run, place.task, TRUNCATED)
    fitting = [m for m in known if used_share(place.budget, m) <= 1]
    if not fitting:
        reason = f"none fits: smallest {_smallest(known, place.budget)}" if known else "not measured"
        return _row(place, TRUNCATED, "", _nothing(reason), no_training(reason))
    on_search = {(m.architecture, m.seed): m.quality for m in measured_controls(place.run, place.task, TRUNCATED, "search")}

    def rank(m: Measurement) -> tuple[float, float]:
        return rankable(on_search.get((m.architecture, m.seed), math.nan)), m.costs.flops

    chosen = [max((m for m in fitting if m.seed == seed), key=rank) for seed in sorted({m.seed for m in fitting})]
    cells = _cells(place, chosen)
    scores = [on_search[m.architecture, m.seed] for m in chosen if (m.architecture, m.seed) in on_search]
    if len(scores) == len(chosen):
        cells = Cells({**cells.values, "search_quality": sum(scores) / len(scores)}, _without(cells.why, "search_quality"))
    stages = {f"{TRUNCATED}-{len(m.architecture.choices.get('layers', ()))}" for m in chosen}
    return _row(place, TRUNCATED, "", cells, stages_cost(place.run, place.task, TRUNCATED, sorted(stages)))


def _rows_where_measured(place: Place, method: str, name: str, shapes: Iterable[tuple[int, Architecture]]) -> list[Row]:
    """One row for those of these shapes (seed by seed) that were measured under the control's name; none where none was."""
    measured = {(m.seed, m.architecture): m for m in measured_controls(place.run, place.task, name, method=method)}
    found = [measured[shape] for shape in shapes if shape in measured]
    if not found:
        return []
    cost = _own_cost(place, method, found, way_of(name))
    return [_row(place, f"{name} ({method})", method, _cells(place, found), cost)]


def _own_cost(place: Place, method: str, found: Sequence[Measurement], way: str = "") -> Cells:
    """What was trained for these networks alone."""
    return training_cost(place.run, place.task, method, (Trained(m.seed, m.architecture) for m in found), found_by_search=False, way=way)


def _smallest(known: Sequence[Measurement], budget: Budget) -> str:
    """The cost of the cheapest, in the limits that it breaks."""
    used = min(known, key=lambda m: used_share(budget, m)).costs.measured_against()
    over = {name: used.get(name) for name, limit in budget.limits().items() if used.get(name, math.inf) > limit}
    return ", ".join(f"{name} {'not known' if value is None else format_quantity(value)}" for name, value in over.items())


def _cells(place: Place, measured: Sequence[Measurement]) -> Cells:
    chosen_without = Cells({}, {"search_quality": "not chosen on search"})
    quality = quality_cells(place.run, measured, teacher_of(place.run, place.task))
    shape, cost = architecture_cells([m.architecture for m in measured]), cost_cells([m.costs for m in measured])
    return together(shape, chosen_without, quality, cost)


def _nothing(reason: str) -> Cells:
    return empty(("architecture", "architecture_id", "search_quality", *QUALITY_COLUMNS, *COST_COLUMNS), reason)


def _row(place: Place, name: str, method: str, cells: Cells, training: Cells) -> Row:
    all_cells = together(cells, _NO_SEARCH, training)
    return Row(*place.names, name, "control", method, place.metric, **all_cells.values, why=all_cells.why)


def _without(why: dict[str, str], name: str) -> dict[str, str]:
    return {column: reason for column, reason in why.items() if column != name}
