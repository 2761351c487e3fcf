"""AdaBERT's recipe as a whole: derive under budgets, finish by inheritance and from scratch, deploy; and the floor controls."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from methods import UserError
from methods.adabert.derivation import AlphaModel, derive
from methods.adabert.finish import FinishStep, Student, finish
from methods.adabert.folding import fold
from methods.adabert.mapping import teacher_layer
from methods.adabert.options import AdaBertOptions, LossOptions
from methods.adabert.recipe import AdaBertRecipe
from methods.adabert.selection import sample_best
from methods.adabert.statistics import norms_of, reestimate, training_sample
from methods.adabert.supernet import AdaBertSupernet
from methods.backbone import Backbone
from methods.baselines.floor import BAG, CONVOLUTIONS, bag_spec, deepest_cnn, fixed_cnn
from methods.budget import Budget
from methods.costs import Costs, costs
from methods.network import Network, load_network, save_network
from methods.recipe import Context, StageRecord, stage_of
from methods.space import Architecture
from methods.supernet import inputs
from methods.tasks.batches import separate
from methods.tasks.head import Head
from methods.tasks.spec import TaskSpec
from methods.tasks.task import Task
from tests.conformance.cases import TINY, randomise
from tests.methods.adabert_cases import PAIR, SMALL, batch_of, supernet_of
from tests.methods.adabert_search_cases import context_of, options_of

Batch = dict[str, Tensor]


@dataclass
class Trained:
    """A searched supernet with its recipe, and what was recorded."""

    recipe: AdaBertRecipe
    context: Context
    supernet: AdaBertSupernet
    records: list[StageRecord] = field(default_factory=list)

    def batch(self) -> Batch:
        collate = separate(self.context.backbone.tokenizer, 16)
        return collate(collate.encode(self.context.task.split("search")), range(8))

    def cost_of(self, architecture: Architecture) -> Costs:
        return costs(self.supernet.spec(architecture, "deployed"), 16)


def options_with(loss: dict[str, Any] | None = None, **changes: dict[str, Any]) -> AdaBertOptions:
    data = options_of(loss=loss).model_dump()
    data["derivation"] |= {"batch_norm_batches": 2, "diagnosed_draws": 2, "diagnosed_rows": 8}
    data["finish"] |= {"epochs": 1.0, "batch_size": 16}
    for key, value in changes.items():
        data[key] |= value
    return AdaBertOptions(**data)


def trained(backbone: Backbone, folder: Path, kind: str = "classes", loss: dict[str, Any] | None = None, **changes: Any) -> Trained:
    records: list[StageRecord] = []
    context = replace(context_of(backbone, folder, kind), record=records.append)
    recipe = AdaBertRecipe(options_with(loss, **changes))
    return Trained(recipe, context, recipe.train(context), records)


def again(run: Trained, folder: Path | None = None, **changes: Any) -> AdaBertRecipe:
    """A recipe with other options of the last two stages, on the same search."""
    data = run.recipe.options.model_dump()
    for key, value in changes.items():
        data[key] |= value
    return AdaBertRecipe(AdaBertOptions(**data))


@pytest.fixture(scope="module")
def run(tiny_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tiny_backbone, tmp_path_factory.mktemp("run"), "pairs")


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def largest(run: Trained) -> Architecture:
    return run.supernet.space.architecture(2, [[(0, "conv_3"), (1, "max_pool_3")], [(1, "identity"), (2, "conv_3")]])


def test_a_recipe_runs_its_stages_and_reads_them_back(run: Trained) -> None:
    names = [record.stage for record in run.records]
    assert names[:4] == ["probes", "signals", "search", "derive"]
    fresh: list[StageRecord] = []
    recipe = AdaBertRecipe(run.recipe.options)
    supernet = recipe.train(replace(run.context, record=fresh.append))
    assert equal(state(supernet), state(run.supernet)) and not supernet.training
    assert fresh[:4] == run.records[:4]
    found = json.loads((run.context.folder / "derive" / "architecture.json").read_text())
    derived = derive(supernet.space, *supernet.architecture_parameters())
    assert Architecture.from_json(found["architecture"]) == derived and found["choices"] == derived.choices
    assert found["log_probability"] == pytest.approx(AlphaModel.of_supernet(supernet).log_probability(derived))
    diagnostics = json.loads((run.context.folder / "derive" / "diagnostics.json").read_text())
    assert {"value", "alarm", "why"} == diagnostics["D3"].keys() == diagnostics["D9"].keys()


@pytest.mark.parametrize(
    ("kind", "distillation"), [("classes", "split"), ("pairs", "probes"), ("regression", "final"), ("regression", "probes")]
)
def test_networks_are_finished_and_deployed_whatever_the_task(
    tiny_backbone: Backbone, tmp_path: Path, kind: str, distillation: str
) -> None:
    run = trained(tiny_backbone, tmp_path, kind, {"distillation": distillation})
    before = state(run.supernet)
    architecture = largest(run)
    network = run.recipe.finish(run.context, run.supernet, architecture)
    assert network.spec == run.supernet.spec(architecture, "deployed") and not network.training and not norms_of(network)
    assert equal(state(run.supernet), before)
    # the stage's weights, statistics re-estimated, are the unfolded network: logits within 1e-4 of their largest
    hosted = Network(run.supernet.spec(architecture))
    kept = load_file(tmp_path / stage_of("finish", architecture) / "weights.safetensors")
    hosted.load_state_dict({name.removeprefix("network."): tensor for name, tensor in kept.items() if name.startswith("network.")})
    reestimate(hosted, training_sample(run.context, separate(tiny_backbone.tokenizer, 16), 2, 16))
    with torch.no_grad():
        expected, found = (net(**inputs(run.batch()))["logits"] for net in (hosted, network))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert sum("hidden_heads" in name for name in kept) == (0 if distillation == "final" else 2 * 2)


def test_finishing_inherits_or_starts_from_scratch(run: Trained) -> None:
    """With a rate of nothing a network stays what it began as: the supernet's with re-estimated statistics, or a fresh one."""
    architecture, still = largest(run), {"weights": {"learning_rate": 1e-12, "final_learning_rate": 1e-12, "weight_decay": 0.0}}
    recipe = again(run, finish=still)
    context = replace(run.context, record=lambda _: None)
    inherited = recipe.finish(context, run.supernet, architecture)
    # deployed statistics are estimated on batches of finishing, here as large as those of the search
    with torch.no_grad():
        shared = recipe.score(context, run.supernet, architecture)(run.batch())["logits"]
        torch.testing.assert_close(inherited(**inputs(run.batch()))["logits"], shared, rtol=1e-4, atol=1e-5)
    scratch = recipe.finish_variant(context, run.supernet, architecture, "scratch")
    other = AdaBertSupernet(run.supernet.space, run.supernet.backbone, run.supernet.head_kind)
    randomise(other, 5)
    assert (run.context.folder / "scratch" / stage_of("finish", architecture) / "stage.json").exists()
    assert equal(state(scratch), state(recipe.finish_variant(context, other, architecture, "scratch")))
    assert not equal(state(scratch), state(inherited))
    with pytest.raises(UserError, match="trained with other settings"):
        recipe.finish(context, other, architecture)
    with pytest.raises(UserError, match="no other way 'half' to finish; there is scratch"):
        recipe.finish_variant(context, run.supernet, architecture, "half")
    assert again(run, finish={"start": "scratch"}).variants == ("inherit",)


def test_a_finished_network_is_read_back_and_other_options_are_refused(run: Trained) -> None:
    architecture, records = run.supernet.space.uniform(1, "conv_3"), list[StageRecord]()
    context = replace(run.context, record=records.append)
    first = run.recipe.finish(context, run.supernet, architecture)
    second = AdaBertRecipe(run.recipe.options).finish(context, run.supernet, architecture)
    assert equal(state(first), state(second))
    finished = [record for record in records if record.stage == stage_of("finish", architecture)]
    assert len(finished) == 2 and finished[0] == finished[1] and finished[0].steps == 3 and finished[0].examples == 48
    for changes in ({"finish": {"epochs": 2.0}}, {"finish": {"objective": "labels"}}):
        with pytest.raises(UserError, match="trained with other"):
            again(run, **changes).finish(context, run.supernet, architecture)


def test_what_is_no_architecture_of_the_space_is_not_finished(run: Trained) -> None:
    genes = largest(run).choices
    for change in ({"K": 0}, {"nodes": [[[0, "zero"], [1, "conv_3"]], genes["nodes"][1]]}):
        wrong = Architecture.of("adabert", {**genes, **change})
        with pytest.raises(UserError, match="no architecture of its space"):
            finish(run.context, run.recipe.options, run.supernet, wrong, "inherit", run.recipe._rows(run.context))


def test_nothing_is_dead_in_a_deployed_network_and_padding_changes_nothing() -> None:
    supernet, batch = supernet_of(head=PAIR), batch_of(PAIR)
    longer = {name: nn.functional.pad(tensor, (0, 7)) for name, tensor in batch.items()}
    for seed in range(4):
        edges = torch.randn(len(supernet.space.edges), len(supernet.space.columns), generator=torch.Generator().manual_seed(seed))
        edges[:, -1] += 5  # zero is the most probable operation of every edge
        architecture = derive(supernet.space, edges, torch.tensor([0.0, 1.0, 0.5]))
        network = fold(supernet.extract(architecture))
        logits = network(**inputs(batch))["logits"]
        logits.square().sum().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []
        assert all(edge.operation.kind != "zero" for node in network.spec.encoder.cell.nodes for edge in node)  # type: ignore[attr-defined]
        with torch.no_grad():
            torch.testing.assert_close(network(**inputs(longer))["logits"], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["probes", "split", "final"])
def test_the_loss_of_finishing_is_the_formula(kind: str) -> None:
    torch.manual_seed(0)
    supernet = supernet_of(head=PAIR)
    student = Student(supernet.extract(largest_small(supernet)), 0 if kind == "final" else 3).eval()
    batch = batch_of(PAIR) | {"labels": torch.tensor([0, 1, 2, 0])}
    layers, seen = 4, list[float]()
    taught, final = torch.randn(4, layers + 1, 3), torch.randn(4, 3)
    losses = nn.functional.cross_entropy(taught.transpose(1, 2), batch["labels"][:, None].expand(4, layers + 1), reduction="none")
    batch |= {"probe_logits": taught, "teacher_logits": final, "probe_losses": losses}
    options = LossOptions(gamma=0.7, temperature=2.0, distillation=kind)  # type: ignore[arg-type]
    FinishStep(student, PAIR, options, 0.7, layers)(batch, lambda loss: seen.append(float(loss.detach())))
    with torch.no_grad():
        output = student.network(**inputs(batch))
        logits = output["logits"]

        def soft(theirs: Tensor, mine: Tensor) -> Tensor:
            return 4 * nn.functional.cross_entropy(mine / 2, (theirs / 2).softmax(-1), reduction="none")

        mask = torch.maximum(batch["attention_mask"], batch["attention_mask_b"])[..., None]
        means = [(s * mask).sum(1) / mask.sum(1) for s in output["hidden_states"]]
        spoken = [head(torch.tanh(mean)) for head, mean in zip(student.hidden_heads, means, strict=False)]
        spoken += [logits] if kind == "probes" else []
        pairs = [(own, teacher_layer(i, 3, layers)) for i, own in enumerate(spoken)]
        wanted = soft(final, logits).mean()
        if kind != "final":
            shares = torch.stack([-losses[:, j] for _, j in pairs]).softmax(0)
            probed = sum((w * soft(taught[:, j], own)).mean() for w, (own, j) in zip(shares, pairs, strict=True))
            wanted = probed if kind == "probes" else (wanted + probed) / 2
        wanted = 0.3 * nn.functional.cross_entropy(logits, batch["labels"]) + 0.7 * wanted
    assert seen == [pytest.approx(float(wanted), rel=1e-5)]


def largest_small(supernet: AdaBertSupernet) -> Architecture:
    return supernet.space.architecture(3, [[(0, "conv_3"), (1, "conv_5")], [(0, "max_pool_3"), (2, "conv_7")]])


def test_scores_are_of_a_copy_with_its_own_statistics(run: Trained) -> None:
    before, architecture = state(run.supernet), largest(run)
    score = run.recipe.score(run.context, run.supernet, architecture)
    with torch.no_grad():
        found, shared = score(run.batch())["logits"], run.supernet(run.batch(), architecture)["logits"]
    assert not torch.allclose(found, shared) and equal(state(run.supernet), before)
    without = again(run, derivation={"batch_norm_batches": 0})
    with torch.no_grad():
        plain = without.score(run.context, run.supernet, architecture)(run.batch())["logits"]
    torch.testing.assert_close(plain, shared, rtol=1e-5, atol=1e-5)


def test_every_rule_answers_under_a_budget(run: Trained, tmp_path: Path) -> None:
    context = replace(run.context, folder=tmp_path, record=lambda _: None)
    space, small = run.supernet.space, run.cost_of(run.supernet.space.smallest())
    tight, wide = Budget(max_flops=small.flops), Budget(max_params=10**9)
    supernet = AdaBertSupernet(space, run.supernet.backbone, run.supernet.head_kind)
    supernet.load_state_dict(run.supernet.state_dict())
    with torch.no_grad():
        supernet.edge_logits[:, 0] = 4.0  # convolutions are likely, and too dear for the tight budget
        supernet.depth_logits.copy_(torch.tensor([0.0, 3.0]))
    likely = derive(space, supernet.edge_logits, supernet.depth_logits)
    for rule in ("argmax", "budget", "sample_best", "perturbation"):
        recipe = again(run, derivation={"rule": rule, "candidates": 3, "masked_rows": 8})
        folder = replace(context, folder=tmp_path / rule)
        found = recipe.derive(folder, supernet, tight, run.cost_of)
        if rule == "argmax":
            assert found is None and recipe.derive(folder, supernet, wide, run.cost_of) == likely
        if rule == "perturbation":
            kept = json.loads((tmp_path / rule / "derive" / "architecture.json").read_text())
            assert found == (one if tight.met_by(run.cost_of(one := Architecture.from_json(kept["architecture"]))) else None)
            # five edges of three operations, then the three edges of node 1, then two depths, on eight rows each
            assert kept["record"]["examples"] == 8 * (5 * 3 + 3 + 2) and kept["record"]["flops"] > 0
        if rule in ("budget", "sample_best"):
            assert found is not None and tight.met_by(run.cost_of(found))
            assert recipe.derive(folder, supernet, tight, run.cost_of) == found
        if rule == "budget":
            model = AlphaModel.of_supernet(supernet)
            fitting = [a for a in space.enumerate() if tight.met_by(run.cost_of(a))]
            assert model.log_probability(found) == pytest.approx(max(map(model.log_probability, fitting)))  # type: ignore[arg-type]
            assert recipe.derive(folder, supernet, wide, run.cost_of) == likely
            with pytest.raises(UserError, match="the smallest achievable"):
                recipe.derive(folder, supernet, Budget(max_params=10), run.cost_of)
    changed = again(run, derivation={"rule": "budget", "candidates": 7})
    with pytest.raises(UserError, match="derived with other derivation"):
        changed.derive(replace(context, folder=tmp_path / "budget"), supernet, tight, run.cost_of)


def test_sample_best_takes_the_best_of_its_draws() -> None:
    supernet = supernet_of(SMALL)
    model, asked = AlphaModel.of_supernet(supernet), list[Architecture]()

    def score(architecture: Architecture) -> float:
        asked.append(architecture)
        return float(len(architecture.canonical))

    def shallow(architecture: Architecture) -> bool:
        return bool(architecture.choices["K"] < 3)

    found = sample_best(model, 12, 0, score, shallow)
    assert len(set(asked)) == 12 and all(map(shallow, asked)) and found in asked
    assert found is not None and len(found.canonical) == max(len(a.canonical) for a in asked)
    assert sample_best(model, 2, 0, score, lambda _: False) is None


def test_floor_controls(run: Trained, tmp_path: Path) -> None:
    space, config, head = run.supernet.space, run.context.backbone.config, run.context.task.head
    context = replace(run.context, record=lambda _: None)
    dear = run.cost_of(space.largest()).parameters
    bag, cnn = run.recipe.floors(context, run.supernet, lambda a: run.cost_of(a).parameters <= dear)
    assert (bag.name, cnn.name) == (BAG, CONVOLUTIONS)
    assert bag.network.spec == bag_spec(space, config, head) and bag.network.spec.encoder.count == 0  # type: ignore[attr-defined]
    assert costs(bag.network.spec, 16).parameters < run.cost_of(space.smallest()).parameters
    assert sum(p.numel() for p in bag.network.parameters()) == costs(bag.network.spec, 16).parameters
    save_network(bag.network, tmp_path / "bag")
    with torch.no_grad():
        found, loaded = (net(**inputs(run.batch()))["logits"] for net in (bag.network, load_network(tmp_path / "bag")))
    assert torch.equal(found, loaded)
    assert cnn.architecture == fixed_cnn(space, 2) and cnn.network.spec == run.supernet.spec(cnn.architecture, "deployed")
    assert {name for node in cnn.architecture.choices["nodes"] for _, name in node} == {"conv_3"}
    wide = supernet_of(SMALL).space
    nodes = fixed_cnn(wide, 1).choices["nodes"]  # type: ignore[union-attr]
    assert [{name for _, name in node} for node in nodes] == [{"conv_3"}, {"conv_5"}]
    assert deepest_cnn(wide, lambda a: a.choices["K"] <= 2) == fixed_cnn(wide, 2)
    assert deepest_cnn(wide, lambda _: False) is None
    free = wide.__class__(SMALL.model_copy(update={"operations": ("identity", "max_pool_3")}))
    assert fixed_cnn(free, 1) is None


def test_question_answering_and_a_missing_teacher_are_refused(run: Trained) -> None:
    recipe = AdaBertRecipe(run.recipe.options)
    with pytest.raises(UserError, match="needs a fine-tuned teacher"):
        recipe.initial(replace(run.context, teacher=None))

    class Questions(Task):
        head = Head("span")

    spec: TaskSpec = run.context.task.spec
    with pytest.raises(UserError, match="classification and regression only"):
        recipe.train(replace(run.context, task=Questions(spec, {})))


def test_initial_has_the_teachers_tables(run: Trained) -> None:
    supernet = run.recipe.initial(run.context)
    assert run.context.teacher is not None
    assert torch.equal(supernet.stem.word.weight, run.context.teacher.stem.word.weight)
    assert TINY.hidden and not supernet.training
