"""Everything that would fail later, looked for before anything is trained."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from methods.backbone import BackboneConfig
from methods.budget import Budget
from methods.errors import UserError
from methods.recipe import CorpusRecipe
from methods.tasks.head import Head
from search.front import refuse_unknown
from search.limits import refuse_impossible
from search.strategies.registry import make
from workbench.experiment import Experiment, TaskOptions
from workbench.onnx_files import check_installed
from workbench.session import Member, Session
from workbench.tune_checks import check_tuning

if TYPE_CHECKING:
    from methods.latency import LatencyTable

LOOKED_UP = 200
"""So many drawn networks are looked up in a latency table to see that it has their parts."""


def check(session: Session) -> None:
    """Raises UserError, by its place, for whatever can be known to be wrong. Opens the tasks, not yet the corpus."""
    experiment, name = session.experiment, session.name
    if experiment.controls.int8:
        check_installed(f"{name}: controls.int8")
    check_corpus_recipes(experiment, session.members, session.shape, name)
    check_tuning(experiment, session.shape, name)
    for member in session.members:
        if not member.recipe.trainable:
            why = "can be planned and hosted, but this version does not train it yet; take it out"
            raise UserError(f"{name}: {member.place}: {member.name} {why}")
        if member.on_corpus:
            _check_corpus_method(session, member, member.on_corpus)
        for device, table in session.devices.items():
            _check_table(session, member, device, table)
    for options in experiment.all_tasks:
        head = session.task(options).head
        if options.max_length > session.shape.positions:
            raise UserError(
                f"{name}: task {options.name}: max_length: {options.max_length}, "
                f"but the backbone has only {session.shape.positions} positions"
            )
        if head.kind == "span" and experiment.augmentation.copies:
            why = "other words in a text would move its answers; write copies: 0, or give this task an experiment of its own"
            raise UserError(f"{name}: augmentation.copies: task {options.name}: {why}")
        for member in session.members:
            if member.on_task and member.entry.runs(options.name):
                try:
                    member.on_task.check(session.shape, session.task(options).spec)
                except UserError as error:
                    raise UserError(f"{name}: {member.place}: {error}") from error
                cost_of = session.cost_of(member, head)
                make(experiment.search.strategy, member.space, 0, Budget(), cost_of, 1)
                if experiment.search.report_all and experiment.search.strategy_for(member.space) != "exhaustive":
                    raise UserError(f"{name}: search.report_all: the space of {member.name} is too large to be measured as a whole")
                refuse_unknown(experiment.search.objectives, member.space, cost_of)
                _check_early_stop(session, options)
        _check_budgets(session, head)


def _check_early_stop(session: Session, options: TaskOptions) -> None:
    """Raises UserError where a search is asked to stop early by a metric that is no mean of right answers."""
    metric = session.task(options).spec.metric
    if session.experiment.search.early_stop is not None and metric != "accuracy":
        why = f"task {options.name} is ranked by {metric}, and only of accuracy can it be told early what has no hope"
        raise UserError(f"{session.name}: search.early_stop: {why}; leave it out, or give this task an experiment of its own")


def check_corpus_recipes(experiment: Experiment, members: Sequence[Member], backbone: BackboneConfig, name: str) -> None:
    """Raises UserError, by its place, where the options of a method on the corpus cannot work out with its space and the backbone."""
    for member in members:
        recipe, asked = member.on_corpus, experiment.controls_of(member.entry).variants
        try:
            if recipe:
                recipe.check(member.space, backbone, recipe.variants if asked else ())
        except UserError as error:
            raise UserError(f"{name}: {member.place}: {error}") from error


def _check_corpus_method(session: Session, member: Member, recipe: CorpusRecipe) -> None:
    longest, positions = max(recipe.lengths), session.shape.positions
    if longest > positions:
        raise UserError(
            f"{session.name}: {member.place}: {member.name} reads texts of {longest} tokens, but the backbone has {positions} positions"
        )
    ordered_tasks(session.experiment, [member], session.name)


def _check_table(session: Session, member: Member, device: str, table: LatencyTable) -> None:
    """Raises UserError where the table was measured at another length or batch, or lacks a part of the method's networks."""
    cost, measured = session.experiment.cost, table.fingerprint
    if (measured.length, measured.batch) != (cost.length, cost.batch):
        raise UserError(
            f"{session.name}: devices.{device}: measured with batch {measured.batch} and length {measured.length}, "
            f"but cost says batch {cost.batch} and length {cost.length}"
        )
    rng, heads = random.Random(0), dict.fromkeys(options.spec.head for options in session.experiment.tasks_of(member.entry))
    for architecture in [member.space.sample(rng) for _ in range(LOOKED_UP)]:
        for head in heads:
            try:
                table.network(member.space.spec(architecture, session.shape, head))
            except UserError as error:
                raise UserError(f"{session.name}: devices.{device}: it lacks a part of {member.name}'s networks; {error}") from error


def _check_budgets(session: Session, head: Head) -> None:
    """Raises UserError where a budget is out of reach of every method."""
    costs = [session.cost_of(member, head) for member in session.members]
    for index, budget in enumerate(session.experiment.all_budgets()):
        place = f"{session.name}: budgets[{index}]"
        refusals = []
        for member, cost_of in zip(session.members, costs, strict=True):
            try:
                refuse_impossible(member.space, budget, cost_of)
            except UserError as error:
                refusals.append(str(error))
        if len(refusals) == len(session.members):
            raise UserError(f"{place}: no method can meet it. " + "; ".join(refusals))


def check_corpus(session: Session) -> None:
    """Packs the corpus at every length that will be read. Raises UserError where it is missing, empty, or too short."""
    for member in session.members:
        if member.on_corpus:
            for length in dict.fromkeys(member.on_corpus.lengths):
                for split in ("train", "search", "validation"):
                    try:
                        packed = session.corpus.packed(split, length)
                    except UserError as error:
                        raise UserError(f"{session.name}: {error}") from error
                    if not len(packed):
                        raise UserError(f"{session.name}: corpus.data: {split} has not one text of {length} tokens; lower `length`")


def _run_seeds(experiment: Experiment, member: Member, options: TaskOptions) -> list[int]:
    return [seed for seed in experiment.seeds_of(options) if member.entry.runs(options.name, seed)]


def ordered_tasks(experiment: Experiment, members: list[Member], name: str) -> list[TaskOptions]:
    """The tasks in an order in which each comes after the one whose networks it starts from.

    Raises UserError where that one is not in the experiment, lacks a seed, or starts from this one in turn.
    """
    tasks = {options.name: options for options in experiment.all_tasks}
    done: dict[str, TaskOptions] = {}

    def visit(options: TaskOptions, on_the_way: tuple[str, ...]) -> None:
        if options.name in done:
            return
        for member in members:
            recipe = member.on_corpus if member.entry.runs(options.name) else None
            other = recipe.starts_from(options.name) if recipe else None
            if other is None:
                continue
            place = f"{name}: {member.place}: task {options.name} starts from {other}"
            if other not in tasks:
                raise UserError(f"{place}, which is no task of this experiment; there are {', '.join(tasks)}")
            if other in (*on_the_way, options.name):
                raise UserError(f"{place}, which starts from {options.name} itself")
            lacking = sorted({*_run_seeds(experiment, member, options)} - {*_run_seeds(experiment, member, tasks[other])})
            if lacking:
                raise UserError(f"{place}, which is not run with seed {lacking[0]}; add it to the seeds of {other}")
            visit(tasks[other], (*on_the_way, options.name))
        done[options.name] = options

    for options in experiment.all_tasks:
        visit(options, ())
    return list(done.values())
