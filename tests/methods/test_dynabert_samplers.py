"""DynaBERT's samplers: what a step trains, that draws depend on seed, stage and step alone, and what they cost."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.backbone import Backbone
from methods.costs import costs
from methods.dynabert.elastic import ElasticSpace
from methods.dynabert.options import DynaBertOptions
from methods.dynabert.recipe import DEPTH, WIDTH, DynaBertRecipe
from methods.dynabert.samplers import SampledStep, Sampler, StageSpace, make_sampler
from methods.dynabert.space import DynaBertSpace, full_spec
from methods.dynabert.step import DistillationStep, TaskStep, teacher_of, whole_network
from methods.dynabert.supernet import DynaBertSupernet
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.network import Network
from methods.recipe import Context, Hardware, StageRecord
from methods.space import Architecture
from methods.tasks.batches import joint
from methods.tasks.head import Head
from methods.tasks.split import Split
from methods.tasks.task import Task
from methods.training.initialisation import initialise
from methods.training.loop import Loop
from methods.training.options import Schedule
from methods.training.stage import training_flops
from tests.apart import printed_by_several
from tests.conformance.cases import TINY, Case, randomise
from tests.conftest import WORDS

TWO = Head("classification", 2)
GRID = DynaBertSpace(TINY)
ELASTIC = ElasticSpace(GRID)
FAST = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3}
LENGTH = 32


def supernet(space: StageSpace, seed: int = 0) -> DynaBertSupernet:
    net = DynaBertSupernet(space, TINY, TWO)
    randomise(net, seed)
    return net.eval()


def batch() -> dict[str, Tensor]:
    return {**Case("", "dynabert").batch(), "labels": torch.tensor([0, 1, 1, 0])}


def gradients(net: DynaBertSupernet, step: Callable[..., object]) -> dict[str, Tensor]:
    net.zero_grad()
    step(batch(), lambda loss: loss.backward())
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}


@pytest.mark.parametrize("space", [GRID, ELASTIC, ELASTIC.full_depth()], ids=["grid", "elastic", "elastic widths"])
@pytest.mark.parametrize("kind", ["distillation", "task"])
def test_a_sandwich_step_sums_three_gradients(space: StageSpace, kind: str) -> None:
    net, teacher = supernet(space, 1), supernet(space, 2)

    def step_of(*architectures: Architecture) -> DistillationStep | TaskStep:
        return DistillationStep(net, teacher, architectures, 1.0, 0.1) if kind == "distillation" else TaskStep(net, architectures)

    sampled = SampledStep(step_of(), make_sampler("sandwich", 1, space), 0, WIDTH)
    drawn = sampled.drawn()
    assert drawn[:2] == (space.largest(), space.smallest()) and len(set(drawn)) == 3 and all(space.contains(a) for a in drawn)
    together, apart = gradients(net, sampled), [gradients(net, step_of(a)) for a in drawn]
    assert any(g.any() for g in together.values())
    for name, value in together.items():
        torch.testing.assert_close(value, sum(g[name] for g in apart), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", [GRID, GRID.full_depth(), ELASTIC, ELASTIC.full_depth()])
def test_what_the_samplers_draw(space: StageSpace) -> None:
    rng = random.Random(0)
    sandwich, uniform = make_sampler("sandwich", 2, space), make_sampler("uniform", 3, space)
    for _ in range(20):
        drawn = sandwich.draw(rng)
        assert drawn[:2] == (space.largest(), space.smallest()) and len(drawn) == 4 == len(sandwich.fixed) + sandwich.count
        alone = uniform.draw(rng)
        assert len(alone) == 3 == uniform.count and all(space.contains(a) for a in (*drawn, *alone))
        if isinstance(space, DynaBertSpace):
            assert len(set(drawn)) == 4 and len(set(alone)) == 3, "of a grid none is drawn twice"
        if space in (ELASTIC.full_depth(), GRID.full_depth()):
            assert all(len(a.choices["layers"]) == TINY.layers for a in (*drawn, *alone))
    assert len({uniform.draw(rng) for _ in range(30)}) > 1


def test_all_and_more_than_all_of_a_grid_are_the_grid() -> None:
    every = set(GRID.enumerate())
    assert make_sampler("all", 1, GRID).draw(random.Random(0)) == tuple(GRID.enumerate())
    assert set(make_sampler("sandwich", 50, GRID).draw(random.Random(0))) == every
    assert set(make_sampler("uniform", 50, GRID).draw(random.Random(0))) == every
    only = DynaBertSpace(TINY, (1.0,), (1.0,))
    assert make_sampler("sandwich", 2, only).draw(random.Random(0)) == (only.largest(),)


def sampled_step(seed: int = 3, stage: str = DEPTH) -> SampledStep:
    return SampledStep(TaskStep(supernet(ELASTIC), ()), make_sampler("uniform", 2, ELASTIC), seed, stage)


def series(step: SampledStep) -> list[list[str]]:
    found = []
    for number in range(4):
        step.after(number)
        found.append([a.id for a in step.drawn()])
    return found


def test_draws_depend_on_seed_stage_and_step_alone() -> None:
    step = sampled_step()
    first = series(step)
    torch.manual_seed(99)
    random.seed(99)
    step(batch(), lambda loss: None)
    assert series(step) == first == series(sampled_step())
    assert len({str(draw) for draw in first}) == 4
    assert not {str(d) for d in first} & {str(d) for d in series(sampled_step(seed=4)) + series(sampled_step(stage=WIDTH))}
    again = sampled_step()
    step.after(2)
    again.restore(step.state())
    assert again.drawn() == step.drawn()


def test_every_process_draws_the_same() -> None:
    code = "from tests.methods.test_dynabert_samplers import sampled_step, series\nprint(series(sampled_step()))"
    ranks = printed_by_several(code, environments=[{"RANK": "0"}, {"RANK": "1"}])
    assert [eval(printed) for printed in ranks] == [series(sampled_step())] * 2


class StoppedError(Exception):
    pass


def loop_of(backbone: Backbone, task: Task, folder: Path, stop_at: int | None = None) -> tuple[Loop, list[tuple[int, tuple[str, ...]]]]:
    """A stage with two batches a step on the elastic space, and what each of its batches trained."""
    space = ElasticSpace(DynaBertSpace(backbone.config, (0.5, 1.0), (0.5, 1.0)))
    torch.manual_seed(0)
    net = DynaBertSupernet(space, backbone.config, task.head)
    teacher = supernet_like(net, 5)
    step = SampledStep(DistillationStep(net, teacher, (), 1.0, 1.0), make_sampler("sandwich", 2, space), 1, DEPTH)
    collate, seen = joint(backbone.tokenizer, LENGTH), list[tuple[int, tuple[str, ...]]]()

    def watched(batch: dict[str, Tensor], backward: Any) -> dict[str, float]:
        if len(seen) == stop_at:
            raise StoppedError
        seen.append((step.number, tuple(a.id for a in step.drawn())))
        return step(batch, backward)

    schedule = Schedule(epochs=1, batch_size=8, accumulation=2, learning_rate=3e-3)
    where: dict[str, Any] = {"folder": folder, "seed": 1, "hardware": Hardware(checkpoint_seconds=0.0), "fingerprint": {}}
    encoded = collate.encode(task.split("train"))
    return Loop("x", net, watched, encoded, collate, schedule, flops=lambda *_: 0.0, companion=step, **where), seen


@pytest.mark.parametrize("kind", ["all", "sandwich"])
def test_two_half_batches_are_one_whole(tiny_backbone: Backbone, tmp_path: Path, kind: Any) -> None:
    """Texts of one length: a mean over tokens is a mean over rows then. One step of plain gradient descent."""
    texts = tuple(f"{first} {second} film" for first in WORDS[:4] for second in WORDS[:4])
    rows = Split("train", texts, None, np.arange(16) % 2, np.arange(16))
    config, found = replace(tiny_backbone.config, dropout=0.0, attention_dropout=0.0), []
    space = DynaBertSpace(config, (0.5, 1.0), (0.5, 1.0))
    for size, accumulation in ((16, 1), (8, 2)):
        collate, net = joint(tiny_backbone.tokenizer, LENGTH), DynaBertSupernet(space, config, TWO)
        randomise(net, 3)
        sampler = make_sampler(kind, 1, space)
        step = SampledStep(DistillationStep(net, supernet_like(net, 7), (), 1.0, 0.5), sampler, 0, "x")
        schedule = Schedule(epochs=1, batch_size=size, accumulation=accumulation)
        descent: Any = lambda module, _: torch.optim.SGD(module.parameters(), lr=0.1)  # noqa: E731
        where: dict[str, Any] = {"folder": tmp_path / str(size), "seed": 0, "hardware": Hardware(), "fingerprint": {}, "companion": step}
        loop = Loop("x", net, step, collate.encode(rows), collate, schedule, flops=lambda b, n: b * n, stepper=descent, **where)
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        figures = loop.run()
        found.append(({name: tensor - before[name] for name, tensor in net.state_dict().items()}, figures["flops"], figures["steps"]))
    (whole, *spent), (halves, *same) = found
    assert spent == same and spent[1] == 1
    assert max(float(change.abs().max()) for change in whole.values()) > 1e-3
    torch.testing.assert_close(whole, halves, rtol=1e-4, atol=1e-7)


def test_bf16_trains_the_sub_networks_and_resumes_bit_equal(context: Context, tmp_path: Path) -> None:
    """Weights and moments stay float32; the losses do not."""
    hardware = Hardware(precision="bf16", checkpoint_seconds=0.0)
    recipe = DynaBertRecipe(options_of(depth={"sampler": "sandwich"}))
    full, whole, parts = (replace(context, folder=tmp_path / name, hardware=hardware) for name in ("full", "whole", "parts"))
    trained = recipe.train(whole)
    assert all(tensor.dtype == torch.float32 for tensor in trained.state_dict().values())
    assert weights_digest(trained) != weights_digest(recipe.train(replace(full, hardware=Hardware())))

    def stop(record: StageRecord) -> None:
        if record.stage == WIDTH:
            raise StoppedError

    with pytest.raises(StoppedError):
        recipe.train(replace(parts, record=stop))
    assert weights_digest(recipe.train(parts)) == weights_digest(trained)
    with pytest.raises(UserError, match="trained with other precision"):
        recipe.train(replace(parts, hardware=Hardware()))


def supernet_like(net: DynaBertSupernet, seed: int) -> DynaBertSupernet:
    other = DynaBertSupernet(net.space, net.backbone, net.head_kind)
    randomise(other, seed)
    return other.eval().requires_grad_(False)


@pytest.mark.parametrize("stop_at", [4, 7])
def test_a_resumed_stage_draws_the_same(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path, stop_at: int) -> None:
    """Six steps of two batches; stopped between steps, and within one."""
    whole, seen = loop_of(tiny_backbone, tiny_task, tmp_path / "whole")
    whole.run()
    assert len(seen) == 12 and all(seen[i] == seen[i + 1] for i in range(0, 12, 2)), "the batches of a step train the same"
    assert [number for number, _ in seen[::2]] == list(range(6)) and len({draw for _, draw in seen}) > 3
    stopped, before = loop_of(tiny_backbone, tiny_task, tmp_path / "parts", stop_at)
    with pytest.raises(StoppedError):
        stopped.run()
    torch.manual_seed(99)
    resumed, after = loop_of(tiny_backbone, tiny_task, tmp_path / "parts")
    resumed.run()
    assert before[: stop_at // 2 * 2] + after == seen
    assert weights_digest(resumed.model) == weights_digest(whole.model)


@pytest.fixture
def context(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path) -> Context:
    torch.manual_seed(0)
    teacher = Network(full_spec(tiny_backbone.config, tiny_task.head))
    initialise(teacher, 0.2)
    task = tiny_task.restricted("train", "search")
    return Context(tmp_path, tiny_backbone, task, seed=0, max_length=LENGTH, teacher=teacher.eval())


def options_of(**changes: Any) -> DynaBertOptions:
    stages = {"width": dict(FAST), "depth": dict(FAST)}
    for name in ("width", "depth", "final"):
        if name in changes:
            stages[name] = {**FAST, **changes.pop(name)}
    return DynaBertOptions.model_validate({"widths": [0.5, 1.0], "depths": [0.5, 1.0], **stages, **changes})


def test_all_trains_the_grid_as_the_papers_loop_does(context: Context) -> None:
    """Bit-equal to two stages in which a step runs every width, then every sub-network, with nothing drawn."""
    found = DynaBertRecipe(options_of(rewiring=False)).train(context)
    config, head, collate = context.backbone.config, context.task.head, joint(context.backbone.tokenizer, LENGTH)
    net = DynaBertSupernet(DynaBertSpace(config, (0.5, 1.0), (0.5, 1.0)), config, head)
    assert context.teacher is not None
    net.load_state_dict(context.teacher.state_dict())
    every = tuple(net.space.enumerate())
    widths = tuple(a for a in every if len(a.choices["layers"]) == config.layers)
    assert (len(widths), len(every)) == (2, 4)
    where: dict[str, Any] = {"seed": 0, "hardware": Hardware(), "flops": lambda *_: 0.0, "fingerprint": {}}
    for name, architectures, hidden in ((WIDTH, widths, 0.1), (DEPTH, every, 1.0)):
        teacher = DynaBertSupernet(net.space, config, head)
        teacher.load_state_dict(net.state_dict())
        step = DistillationStep(net, teacher.eval().requires_grad_(False), architectures, 1.0, hidden)
        data = collate.encode(context.task.split("train"))
        Loop(name, net, step, data, collate, Schedule.model_validate(FAST), folder=context.folder / "by hand" / name, **where).run()
    assert weights_digest(found) == weights_digest(net)
    assert weights_digest(found) != weights_digest(context.teacher)


@pytest.mark.parametrize(
    "changes", [{"space": "elastic"}, {"width": {"sampler": "uniform"}, "depth": {"sampler": "sandwich", "samples": 1}}]
)
def test_flops_are_those_of_what_was_drawn(context: Context, changes: dict[str, Any]) -> None:
    records: list[StageRecord] = []
    recipe = DynaBertRecipe(options_of(**changes, pad_to_max_length=True, rewiring=False, final={"sampler": "uniform", "accumulation": 2}))
    recipe.train(replace(context, record=records.append))
    config, head = context.backbone.config, context.task.head
    space = recipe.space(config)
    stages = recipe._stages(space)
    assert [r.stage for r in records] == [name for name, _, _ in stages] == ["width", "width-and-depth", "final"]
    if "space" in changes:
        assert [(len(s.fixed), s.count) for _, _, s in stages] == [(2, 2), (2, 2), (0, 2)], "a sandwich of two is the default"
    for record, (name, schedule, sampler) in zip(records, stages, strict=True):
        step, total = SampledStep(TaskStep(supernet(space), ()), sampler, context.seed, name), 0.0
        teachers = [] if name == "final" else [full_spec(config, head)]
        for number in range(record.steps):
            step.after(number)
            drawn = [space.spec(a, config, head) for a in step.drawn()]
            total += training_flops(drawn, teachers)(16 * schedule.accumulation, LENGTH)
        assert record.flops == total
        assert record.examples == record.steps * 16 * schedule.accumulation


@pytest.mark.parametrize("kind", ["sandwich", "uniform"])
@pytest.mark.parametrize("width", ["full", "matched"])
def test_the_expectation_on_a_grid_is_the_mean_of_all_draws(kind: Any, width: Any) -> None:
    sampler = make_sampler(kind, 2, GRID)

    def teachers(architecture: Architecture) -> set[Architecture]:
        return {teacher_of(architecture, TINY, width)}

    def spent(drawn: tuple[Architecture, ...]) -> float:
        taught = set().union(*map(teachers, drawn))
        return training_flops([GRID.spec(a, TINY, TWO) for a in drawn], [GRID.spec(a, TINY, TWO) for a in taught])(1, 9)

    draws = [(*sampler.fixed, *pair) for pair in itertools.combinations(sampler.rest, 2)]
    assert sampler.expected_flops(teachers, TWO, 9) == pytest.approx(np.mean([spent(draw) for draw in draws]), rel=1e-12)


@pytest.mark.parametrize("space", [ELASTIC, ELASTIC.full_depth()], ids=["elastic", "elastic widths"])
def test_the_expectation_in_the_elastic_space_is_the_mean_of_many_draws(space: ElasticSpace) -> None:
    sampler, rng = make_sampler("sandwich", 2, space), random.Random(0)
    flops = lambda a: costs(space.spec(a, TINY, TWO), 9).flops  # noqa: E731
    found = [3 * sum(map(flops, sampler.draw(rng))) + flops(whole_network(TINY)) for _ in range(600)]
    expected = sampler.expected_flops(lambda _: {whole_network(TINY)}, TWO, 9)
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / len(found) ** 0.5 < 0.05 * expected


def test_the_plan_is_the_expectation(context: Context) -> None:
    config, head = context.backbone.config, context.task.head
    recipe = DynaBertRecipe(options_of(space="elastic", rewiring=False))
    space = recipe.space(config)
    assert isinstance(space, ElasticSpace)
    width, depth = recipe.plan(space, config, head, 96, LENGTH)
    corners = sum(costs(space.spec(a, config, head), LENGTH).flops for a in (space.largest(), space.smallest()))
    whole = costs(full_spec(config, head), LENGTH).flops
    assert depth.flops / depth.examples == pytest.approx(3 * (corners + 2 * space.mean_flops(config, head, LENGTH)) + whole)
    assert width.flops > depth.flops and (width.subnetworks, depth.subnetworks) == (4, 4) and width.examples == 96


def test_an_elastic_supernet_is_trained_rated_and_read_back(context: Context) -> None:
    recipe = DynaBertRecipe(options_of(space="elastic", width={"select_every": 3}, final={}))
    trained = recipe.train(context)
    again: list[StageRecord] = []
    assert weights_digest(recipe.train(replace(context, record=again.append))) == weights_digest(trained)
    assert [r.stage for r in again] == ["rewire", "width", "width-and-depth", "final"]
    uneven = trained.space.sample(random.Random(2))
    cut = recipe.finish(context, trained, uneven)
    x = {name: t % context.backbone.config.vocabulary for name, t in Case("", "dynabert").batch().items()}
    with torch.no_grad():
        torch.testing.assert_close(cut(**x)["logits"], trained(x, uneven)["logits"], rtol=1e-5, atol=1e-5)


def test_a_stage_is_known_by_what_it_trains() -> None:
    """Other random ones, or another space, are another training; how many of them is no matter where all are trained."""
    kinds: list[Sampler] = [make_sampler("all", n, GRID) for n in (1, 2)]
    assert kinds[0].identity() == kinds[1].identity() == [a.id for a in GRID.enumerate()]
    spaces: list[StageSpace] = [GRID, GRID.full_depth(), ELASTIC, ELASTIC.full_depth()]
    for kind in ("sandwich", "uniform"):
        kinds += [make_sampler(kind, n, space) for n in (1, 2) for space in spaces]  # type: ignore[arg-type]
    assert len({str(sampler.identity()) for sampler in kinds}) == len(kinds) - 1
