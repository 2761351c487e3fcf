"""AdaBERT's stages (paper): probe the teacher, search, derive, fine-tune; and the controls that it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from methods.adabert.diagnosis import diagnose
from methods.adabert.finish import Start, finish
from methods.adabert.options import AdaBertOptions
from methods.adabert.plan import Plan
from methods.adabert.selection import Derivation
from methods.adabert.space import AdaBertSpace, check_head
from methods.adabert.statistics import Statistician, training_sample
from methods.adabert.supernet import AdaBertSupernet
from methods.adabert.taught import Rows, rows_of, taught_signals
from methods.backbone import BackboneConfig
from methods.errors import UserError
from methods.network import Network
from methods.recipe import Context, Floor, StagePlan, TaskRecipe
from methods.space import Architecture, SearchSpace
from methods.supernet import Batch, Supernet, inputs
from methods.tasks.batches import separate
from methods.tasks.head import Head
from methods.training.processes import by_main_process

if TYPE_CHECKING:
    from transformers.utils.generic import ModelOutput

    from methods.adabert.teacher_signals import TeacherSignals
    from methods.budget import Budget
    from methods.costs import Costs
    from methods.tasks.spec import TaskSpec

FLOOR = "floor"


class AdaBertRecipe(TaskRecipe):
    """Per task. `variants`: the start of finishing that the options do not choose."""

    scope = "task"
    initial_name = "untrained"
    derived_by = "alpha"
    floor_controls = ("bag-of-embeddings", "fixed-cnn")

    def __init__(self, options: AdaBertOptions) -> None:
        self.options = options
        self.variants = ("scratch",) if options.finish.start == "inherit" else ("inherit",)
        self._statisticians: dict[Path, Statistician] = {}
        self._signals: dict[Path, TeacherSignals] = {}

    def check(self, backbone: BackboneConfig, task: TaskSpec) -> None:  # noqa: ARG002 (one signature)
        if task.kind == "span":
            why = "AdaBERT makes one vector of a text, which can't say where in the text an answer stands"
            raise UserError(f"adabert: task {task.name}: {why}; list the other tasks under the method's `tasks`, or take it out")

    def plan(self, space: SearchSpace, backbone: BackboneConfig, head: Head, rows: int, length: int, copies: int = 0) -> list[StagePlan]:
        """Teacher features, logits and probe logits are computed once per (augmented) row and kept; FLOPs of the search are those
        of all operations that run; the last stage is planned for the largest architecture, so it is an upper bound."""
        check_head(head)
        if length > backbone.positions:
            raise UserError(f"adabert: texts of {length} tokens are planned, the backbone has {backbone.positions} positions")
        plan = Plan(self.options, cast(AdaBertSpace, space), backbone, head, rows, length, copies)
        return [plan.probes(), plan.search(), plan.derive(), plan.finish()]

    def initial(self, context: Context) -> AdaBertSupernet:
        """A supernet with random weights and the teacher's tables."""
        check_head(context.task.head)
        if context.teacher is None:
            raise UserError("adabert: needs a fine-tuned teacher (section `teacher` of the experiment)")
        torch.manual_seed(context.seed)
        supernet = AdaBertSupernet(AdaBertSpace(self.options), context.backbone.config, context.task.head)
        supernet.load_teacher(context.teacher)
        return supernet.to(context.hardware.device).eval()

    def train(self, context: Context) -> AdaBertSupernet:
        from methods.adabert.search_stage import search

        supernet = self.initial(context)
        search(context, self.options, supernet, self._taught(context))
        supernet.eval()
        derivation = self._derivation(context, supernet)
        derivation.run()
        by_main_process(lambda: diagnose(derivation))
        return supernet

    def derive(self, context: Context, supernet: Supernet, budget: Budget, cost_of: Callable[[Architecture], Costs]) -> Architecture | None:
        """By the rule of the options; see `methods.adabert.selection.Derivation.under`."""
        return self._derivation(context, _own(supernet)).under(budget, cost_of)

    def score(self, context: Context, supernet: Supernet, architecture: Architecture) -> Callable[[Batch], ModelOutput]:
        """As an extracted copy whose batch-norm statistics are re-estimated on training rows; they are kept for the next time."""
        network = self._statistician(context).extract(_own(supernet), architecture)
        return lambda batch: cast("ModelOutput", network(**inputs(batch)))

    def rows_before_score(self, context: Context) -> int:
        o = self.options
        estimated = o.derivation.batch_norm_batches * o.search.batch_size if o.normalisation == "batch" else 0
        return min(estimated, len(context.task.split("train")))

    def finish(self, context: Context, supernet: Supernet, architecture: Architecture) -> Network:
        return self._finish(context, supernet, architecture, self.options.finish.start)

    def finish_variant(self, context: Context, supernet: Supernet, architecture: Architecture, variant: str) -> Network:
        if variant not in self.variants:
            raise UserError(f"adabert: there is no other way {variant!r} to finish; there is {self.variants[0]}")
        return self._finish(context, supernet, architecture, cast(Start, variant), variant)

    def _finish(self, context: Context, supernet: Supernet, architecture: Architecture, start: Start, folder: str = "") -> Network:
        rows = self._rows(context)
        return finish(context, self.options, _own(supernet), architecture, start, rows, folder)

    def floors(self, context: Context, supernet: Supernet, fits: Callable[[Architecture], bool]) -> Iterator[Floor]:
        """The bag of embeddings, from scratch for as many steps as search and finishing have together; and the deepest fixed CNN that
        fits, finished as a searched network is."""
        from methods.baselines import floor

        own = _own(supernet)
        rows = self._rows(context)
        yield Floor(floor.BAG, floor.bag_of_embeddings(own.space), floor.train_bag(context, self.options, own.space, rows, FLOOR))
        cnn = floor.deepest_cnn(own.space, fits)
        if cnn is not None:
            yield Floor(floor.CONVOLUTIONS, cnn, finish(context, self.options, own, cnn, self.options.finish.start, rows, FLOOR))

    def _rows(self, context: Context) -> Rows:
        return rows_of(context, self._taught(context), self.options.finish.augmented)

    def _taught(self, context: Context) -> TeacherSignals:
        if context.folder not in self._signals:
            self._signals[context.folder] = taught_signals(context, self.options.probes)
        return self._signals[context.folder]

    def _derivation(self, context: Context, supernet: AdaBertSupernet) -> Derivation:
        collate = separate(context.backbone.tokenizer, context.max_length)
        return Derivation(context, self.options, supernet, self._statistician(context), collate)

    def _statistician(self, context: Context) -> Statistician:
        """One per supernet's folder, so that statistics are estimated once."""
        if context.folder not in self._statisticians:
            o, collate = self.options, separate(context.backbone.tokenizer, context.max_length)
            batches, size = o.derivation.batch_norm_batches, o.search.batch_size
            self._statisticians[context.folder] = Statistician(lambda: training_sample(context, collate, batches, size))
        return self._statisticians[context.folder]


def _own(supernet: Supernet) -> AdaBertSupernet:
    if not isinstance(supernet, AdaBertSupernet):
        raise TypeError(f"AdaBERT's recipe works on AdaBERT's supernet, not {type(supernet).__name__}")
    return supernet
