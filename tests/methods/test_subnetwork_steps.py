"""The plan's column `sub-nets` and what a real training counts: backward passes, one for each sub-network that a step trains.

Of stages that train: so many sub-networks x batches, which are `accumulation` a step. Where networks are trained one after the other
(NAS-BERT's grid) or only evaluated (shrinking, tables), the column says how many they are in all, and the count is that of the steps, or 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from methods.adabert.recipe import AdaBertRecipe
from methods.adabert.space import AdaBertSpace
from methods.backbone import Backbone
from methods.corpus.corpus import Corpus
from methods.dynabert.options import DynaBertOptions
from methods.dynabert.recipe import DynaBertRecipe
from methods.dynabert.space import full_spec
from methods.network import Network
from methods.recipe import Context, StagePlan, StageRecord
from methods.tasks.task import Task
from methods.training.initialisation import initialise
from tests.methods import adabert_search_cases, test_nasbert_recipe

LENGTH = 32


def counted(records: Sequence[StageRecord], stage: str) -> int:
    """Of a stage, or of all runs of its grid; one that was read back is recorded anew."""
    found = {r.stage: r.subnetwork_steps for r in records if re.fullmatch(rf"{stage}(-lr.*)?(-[0-9a-f]{{12}})?", r.stage)}
    assert found and None not in found.values()
    return sum(count or 0 for count in found.values())


def planned(plans: Sequence[StagePlan], stage: str) -> tuple[int, int]:
    """Sub-networks and steps."""
    return next((p.subnetworks, p.steps) for p in plans if p.name == stage)


def test_dynabert_trains_its_sub_networks_in_every_step(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path) -> None:
    fast, config, records = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3}, tiny_backbone.config, list[StageRecord]()
    sampled = {**fast, "sampler": "sandwich", "samples": 2}
    shape = {"space": "elastic", "widths": [0.5, 1.0], "depths": [0.5, 1.0], "importance_batch_size": 16}
    recipe = DynaBertRecipe(DynaBertOptions.model_validate({**shape, "width": {**fast, "accumulation": 3}, "depth": sampled}))
    torch.manual_seed(0)
    teacher = Network(full_spec(config, tiny_task.head))
    initialise(teacher)
    task = tiny_task.restricted("train", "search")
    recipe.train(Context(tmp_path, tiny_backbone, task, 0, teacher.eval(), record=records.append, max_length=LENGTH))
    plans = recipe.plan(recipe.space(config), config, task.head, len(task.split("train")), LENGTH)
    (widths, steps), (drawn, more) = planned(plans, "width"), planned(plans, "width-and-depth")
    assert (widths, drawn) == (4, 4), "the largest, the smallest and two drawn ones"
    assert [counted(records, name) for name in ("width", "width-and-depth")] == [3 * widths * steps, drawn * more]
    scored = planned(recipe.plan(recipe.space(config), config, task.head, 9 * len(task.split("search")), LENGTH), "rewire")
    assert counted(records, "rewire") == scored[0] * scored[1], "importance takes backward passes, too"


def test_adabert_draws_its_samples_in_every_step(tiny_backbone: Backbone, tmp_path: Path) -> None:
    options = adabert_search_cases.options_of(steps=5, samples_per_step=3, level="bilevel1")
    options = options.model_copy(update={"finish": options.finish.model_copy(update={"epochs": 1, "batch_size": 16})})
    recipe, records, config = AdaBertRecipe(options), list[StageRecord](), tiny_backbone.config
    context = replace(adabert_search_cases.context_of(tiny_backbone, tmp_path), record=records.append)
    supernet = recipe.train(context)
    recipe.finish(context, supernet, supernet.space.uniform(1, "conv_3"))
    plans = recipe.plan(AdaBertSpace(options), config, context.task.head, len(context.task.split("train")), 16)
    assert planned(plans, "search") == (3, 5)
    for name in ("probes", "search", "finish"):
        subnetworks, steps = planned(plans, name)
        assert counted(records, name) == subnetworks * steps > 0, name


def test_nasbert_trains_a_path_of_every_block_and_only_looks_at_others(
    tiny_backbone: Backbone, tiny_corpus: Corpus, tiny_task: Task, tmp_path: Path
) -> None:
    base = test_nasbert_recipe.OPTIONS
    grid = base.finetune.model_copy(update={"learning_rates": (0.001, 0.003)})
    run = test_nasbert_recipe.Run(tmp_path, tiny_backbone, tiny_corpus, tiny_task, base.model_copy(update={"finetune": grid}))
    supernet = run.recipe.train(run.corpus)
    architecture = test_nasbert_recipe.some_estimates(run)[0].architecture
    run.recipe.finish(run.task, run.recipe.pretrain(run.corpus, supernet, architecture), architecture)
    head, rows = run.task.task.head, len(run.task.task.split("train"))
    plans, records = run.recipe.plan(run.space, tiny_backbone.config, head, rows, LENGTH), [*run.shared, *run.records]
    assert planned(plans, "supernet")[0] == run.space.blocks == 2
    for name in ("teacher", "supernet", "retrain"):
        subnetworks, steps = planned(plans, name)
        assert counted(records, name) == subnetworks * steps > 0, name
    runs, steps = planned(plans, "finetune")
    assert runs == 2 and counted(records, "finetune") == steps
    for name in ("shrinking", "tables"):
        assert planned(plans, name)[0] > 0 and counted(records, name) == 0
