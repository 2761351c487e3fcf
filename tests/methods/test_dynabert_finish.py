"""DynaBERT's option `finish`: a chosen sub-network is trained on alone before it ships."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from methods.backbone import Backbone
from methods.dynabert.options import DynaBertOptions
from methods.dynabert.recipe import FINISH, DynaBertRecipe
from methods.dynabert.space import full_spec
from methods.dynabert.step import DistillationStep, whole_network
from methods.dynabert.supernet import DynaBertSupernet
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.network import Network
from methods.recipe import Context, StageRecord, stage_of
from methods.space import Architecture
from methods.tasks.batches import joint
from methods.tasks.task import Task
from methods.training.initialisation import initialise

FAST = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2}


def options_of(**changes: Any) -> DynaBertOptions:
    shape = {"widths": [0.5, 1.0], "depths": [0.5, 1.0], "space": "elastic", "rewiring": False}
    return DynaBertOptions.model_validate({**shape, "width": FAST, "depth": FAST, "finish": FAST, **changes})


@pytest.fixture
def records() -> list[StageRecord]:
    return []


@pytest.fixture
def context(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Any, records: list[StageRecord]) -> Context:
    torch.manual_seed(0)
    teacher = Network(full_spec(tiny_backbone.config, tiny_task.head))
    initialise(teacher, 0.2)
    task = tiny_task.restricted("train", "search")
    return Context(tmp_path, tiny_backbone, task, seed=0, max_length=32, teacher=teacher.eval(), record=records.append)


def uneven(context: Context) -> tuple[DynaBertSupernet, Architecture]:
    """A supernet nobody trained, and a sub-network of it."""
    supernet = DynaBertSupernet(DynaBertRecipe(options_of()).space(context.backbone.config), context.backbone.config, context.task.head)
    initialise(supernet, 0.2)
    return supernet.eval(), supernet.space.sample(random.Random(4))


def distance(context: Context, supernet: DynaBertSupernet, architecture: Architecture) -> float:
    """The stage's loss on the training rows."""
    teacher, collate = DynaBertSupernet(supernet.space, supernet.backbone, supernet.head_kind), joint(context.backbone.tokenizer, 32)
    assert context.teacher is not None
    teacher.load_state_dict(context.teacher.state_dict())
    encoded = collate.encode(context.task.split("train"))
    losses: list[Tensor] = []
    DistillationStep(supernet, teacher.eval(), (architecture,), 1.0, 1.0)(collate(encoded, range(len(encoded))), losses.append)
    return float(losses[0].detach())


def test_without_the_option_it_ships_as_it_is_cut_out(context: Context, records: list[StageRecord]) -> None:
    supernet, architecture = uneven(context)
    shipped = DynaBertRecipe(options_of(finish=None)).finish(context, supernet, architecture)
    assert weights_digest(shipped) == weights_digest(supernet.extract(architecture)) and not records


def test_it_learns_from_the_teacher_and_leaves_the_supernet_alone(context: Context, records: list[StageRecord]) -> None:
    supernet, architecture = uneven(context)
    before = weights_digest(supernet)
    shipped = DynaBertRecipe(options_of()).finish(context, supernet, architecture)
    assert weights_digest(supernet) == before and not shipped.training
    assert [record.stage for record in records] == [stage_of(FINISH, architecture)]
    assert records[0].steps == records[0].subnetwork_steps > 0
    alone = DynaBertSupernet(supernet.space, supernet.backbone, supernet.head_kind)
    state = context.folder / stage_of(FINISH, architecture) / "weights.safetensors"
    alone.load_state_dict(load_file(state))
    assert weights_digest(alone.extract(architecture)) == weights_digest(shipped)
    assert distance(context, alone.eval(), architecture) < 0.9 * distance(context, supernet, architecture)


def test_it_is_read_back_and_depends_on_where_it_starts(context: Context, records: list[StageRecord]) -> None:
    supernet, architecture = uneven(context)
    recipe = DynaBertRecipe(options_of())
    shipped = weights_digest(recipe.finish(context, supernet, architecture))
    assert weights_digest(recipe.finish(context, supernet, architecture)) == shipped and records[0] == records[1]
    initialise(supernet, 0.1)
    with pytest.raises(UserError, match="trained with other settings"):
        recipe.finish(context, supernet, architecture)


def test_stages_of_the_supernet_do_not_depend_on_it(context: Context, records: list[StageRecord]) -> None:
    """So that winners can be finished after a run without."""
    trained = DynaBertRecipe(options_of(finish=None)).train(context)
    again = DynaBertRecipe(options_of()).train(context)
    assert weights_digest(again) == weights_digest(trained) and records[: len(records) // 2] == records[len(records) // 2 :]


@pytest.mark.parametrize("copies", [0, 1])
def test_the_plan_is_that_of_the_largest(context: Context, copies: int, records: list[StageRecord]) -> None:
    recipe, config, head = DynaBertRecipe(options_of(pad_to_max_length=True)), context.backbone.config, context.task.head
    planned = recipe.plan(recipe.space(config), config, head, len(context.task.split("train")), 32, copies)[-1]
    assert (planned.name, planned.per, planned.subnetworks) == (FINISH, "network", 1)
    supernet, _ = uneven(context)
    recipe.finish(replace(context, folder=context.folder / "largest"), supernet, whole_network(config))
    assert planned.examples == (1 + copies) * records[0].examples
    assert planned.flops == pytest.approx((1 + copies) * records[0].flops)
