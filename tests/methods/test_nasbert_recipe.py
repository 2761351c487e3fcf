"""NAS-BERT from text to a network for a task, whole and tiny: teacher, supernet, tables, assembled, pre-trained, fine-tuned."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from methods.backbone import Backbone
from methods.budget import Budget
from methods.corpus.corpus import Corpus
from methods.costs import costs
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.nasbert.options import NasBertOptions
from methods.nasbert.recipe import NasBertRecipe
from methods.nasbert.space import space_of
from methods.recipe import Context, CorpusContext, Estimate, StageRecord, serves
from methods.tasks.task import ClosedSplit, Task
from tests.methods.test_nasbert_training import SHRINKING, SIZES, TRAINING, spoilt

STEPS = {"batch_size": 4, "length": 12, "optimiser": {"learning_rate": 0.003, "warmup_steps": 0}}
OPTIONS = NasBertOptions.model_validate(
    {
        **SIZES,
        "teacher": {"source": "backbone", "head_steps": 4, **STEPS},
        "supernet": TRAINING,
        "shrinking": SHRINKING,
        "selection": {"candidates": 3, "dev_batches": 2},
        "retrain": {"start": "inherit", "steps": 4, **STEPS},
        "finetune": {"rows": 48, "learning_rates": [0.003], "batch_sizes": [16], "epochs": [1]},
    }
)


class Run:
    """A recipe with its contexts and what it recorded."""

    def __init__(self, folder: Path, backbone: Backbone, corpus: Corpus, task: Task, options: NasBertOptions = OPTIONS) -> None:
        self.recipe, self.records, self.shared = NasBertRecipe(options), [], []
        opened = corpus.restricted("train", "search")
        self.corpus = CorpusContext(
            folder / "seed-0", folder, backbone, opened, 0, record=self.records.append, record_shared=self.shared.append
        )
        teacher = self.recipe._teacher(self.corpus)
        self.task = Context(
            folder / "task", backbone, task.restricted("train", "search"), 0, None, record=self.records.append, max_length=32
        )
        self.teacher, self.space = teacher, space_of(options, backbone.config)

    def estimates(self) -> Any:
        config = self.corpus.backbone.config
        return self.recipe.estimates(self.corpus.folder, self.space, config, [self.task.task.head], 16, 1, {})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone, tiny_corpus: Corpus, tiny_task: Task) -> Run:
    made = Run(tmp_path_factory.mktemp("recipe"), tiny_backbone, tiny_corpus, tiny_task)
    made.supernet = made.recipe.train(made.corpus)  # type: ignore[attr-defined]
    return made


def some_estimates(run: Run) -> list[Estimate]:
    found: list[Estimate] = run.estimates().best(Budget(max_flops=150_000), 3)
    return found


def test_the_tables_alone_answer_a_budget_and_costs_are_recounted_exactly(run: Run) -> None:
    found = some_estimates(run)
    assert len(found) == 3 and [e.loss for e in found] == sorted(e.loss for e in found)
    for estimate in found:
        spec = run.space.spec(estimate.architecture, run.corpus.backbone.config, run.task.task.head)
        assert costs(spec, 16) == estimate.costs and estimate.costs.flops <= 150_000
    with pytest.raises(UserError, match="max_flops"):
        run.estimates().best(Budget(max_flops=10), 1)


def test_what_is_assembled_is_measured_as_the_extracted_network_is(run: Run) -> None:
    estimate = some_estimates(run)[0]
    found = run.recipe.assemble(run.corpus, run.supernet, estimate.architecture)  # type: ignore[attr-defined]
    assert set(found) == {"log_likelihood", "masked_accuracy", "negative_state_error"} and found["log_likelihood"] < 0
    extracted = run.supernet.extract(estimate.architecture).eval()  # type: ignore[attr-defined]
    measured = copy.copy(run.recipe)
    again = measured.measure(run.corpus, extracted, "search")
    every = NasBertRecipe(OPTIONS.model_copy(update={"selection": OPTIONS.selection.model_copy(update={"dev_batches": 0})}))
    whole = every.assemble(run.corpus, run.supernet, estimate.architecture)  # type: ignore[attr-defined]
    assert again["log_likelihood"] == pytest.approx(whole["log_likelihood"], abs=1e-5)
    assert again["masked_accuracy"] == whole["masked_accuracy"]


def test_from_the_tables_to_a_network_for_a_task(run: Run) -> None:
    estimate = some_estimates(run)[0]
    supernet = run.supernet  # type: ignore[attr-defined]
    before = len(run.records)
    pretrained = run.recipe.pretrain(run.corpus, supernet, estimate.architecture)
    network = run.recipe.finish(run.task, pretrained, estimate.architecture)
    assert network.spec == run.space.spec(estimate.architecture, run.corpus.backbone.config, run.task.task.head)
    stages = run.records[before:]
    assert [s.stage.partition("-")[0] for s in stages] == ["retrain", "finetune"]
    assert all(serves(s.stage, estimate.architecture) for s in stages)
    again = run.recipe.finish(run.task, run.recipe.pretrain(run.corpus, supernet, estimate.architecture), estimate.architecture)
    assert weights_digest(again) == weights_digest(network)
    scratch = run.recipe.pretrain(run.corpus, supernet, estimate.architecture, "scratch")
    assert weights_digest(scratch) != weights_digest(pretrained) and (run.corpus.folder / "scratch").is_dir()
    with pytest.raises(UserError, match="no other way"):
        run.recipe.pretrain(run.corpus, supernet, estimate.architecture, "luck")


def test_it_says_what_no_table_shows(run: Run) -> None:
    found = run.recipe.about(run.corpus)
    assert found["teacher"].endswith("trained on frozen features") and "ours" in found["pre-training"]


def test_validation_stays_closed(run: Run) -> None:
    with pytest.raises(ClosedSplit):
        run.recipe.measure(run.corpus, run.teacher, "validation")


def test_run_again_everything_is_read_back(run: Run, tiny_backbone: Backbone, tiny_corpus: Corpus, tiny_task: Task) -> None:
    again = Run(run.corpus.shared, tiny_backbone, tiny_corpus, tiny_task)
    supernet = again.recipe.train(again.corpus)
    assert weights_digest(supernet) == weights_digest(run.supernet)  # type: ignore[attr-defined]
    assert [r.stage for r in again.records] == ["supernet", "shrinking", "tables"]
    assert all(a in run.records for a in again.records) and set(again.shared) == set(run.shared)


def test_every_seed_hears_what_the_shared_teacher_cost(run: Run) -> None:
    heard: list[StageRecord] = []
    run.recipe._teacher(replace(run.corpus, seed=1, record_shared=heard.append))
    assert [record.stage for record in heard] == ["teacher"] and heard == run.shared[:1] and heard[0].flops > 0


@pytest.mark.parametrize("name", ["stage.json", "losses.csv"])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_tables_that_are_not_whole_are_not_read(run: Run, name: str, damage: str) -> None:
    path = run.corpus.folder / "tables" / name
    with spoilt(path, damage), pytest.raises(UserError, match=rf"tables/{name}: .*{damage}"):
        run.estimates()
    assert run.estimates().best(Budget(max_flops=150_000), 1)


def test_a_block_can_be_trained_by_a_process_of_its_own(
    run: Run, tiny_backbone: Backbone, tiny_corpus: Corpus, tiny_task: Task, tmp_path: Path
) -> None:
    apart = OPTIONS.model_copy(update={"supernet": OPTIONS.supernet.model_copy(update={"blocks_per_step": "one"})})
    for block in (1, 0):
        one = Run(tmp_path, tiny_backbone, tiny_corpus, tiny_task, apart)
        one.recipe.train_block(one.corpus, block)
        assert [r.stage for r in one.records] == [f"supernet-{block + 1}", f"shrinking-{block + 1}"]
    both = Run(tmp_path, tiny_backbone, tiny_corpus, tiny_task, apart)
    supernet = both.recipe.train(both.corpus)
    assert weights_digest(supernet) == weights_digest(run.supernet)  # type: ignore[attr-defined]


def test_records_of_several_seeds_are_their_own(run: Run) -> None:
    assert all(isinstance(r, StageRecord) and r.flops > 0 for r in run.records[:3])
    assert replace(run.corpus, seed=1).seed != run.corpus.seed
