"""What is kept of held-out text, where it is kept, and what the teacher's pass over it costs, planned and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from methods.backbone import Backbone
from methods.corpus.corpus import Corpus
from methods.costs import costs
from methods.nasbert.assembly import MaskedWords, last_state
from methods.nasbert.block_training import BlockwiseStep
from methods.nasbert.networks import teacher_spec
from methods.nasbert.options import NasBertOptions
from methods.nasbert.paths import Paths
from methods.nasbert.plan import plan_stages
from methods.nasbert.ranking import HeldOut, path_losses
from methods.nasbert.space import space_of
from methods.nasbert.supernet import NasBertSupernet
from methods.nasbert.supernet_stage import make_tables, new_survivors, train_supernet
from methods.network import Network
from methods.recipe import Hardware, StagePlan, StageRecord
from methods.tasks.head import Head
from tests.methods.nasbert_cases import CLASSES, TINY, ragged_batch, random_supernet, scramble, small_space
from tests.methods.test_nasbert_training import SHRINKING, SIZES, TRAINING, make_context, make_teacher

WORDS = Head("mlm")
TEXTS = 4
"""Of `SHRINKING`: one batch of four."""


def options_of(shrinking: dict[str, Any] | None = None, selection: dict[str, Any] | None = None, **training: Any) -> NasBertOptions:
    parts = {"supernet": {**TRAINING, **training}, "shrinking": {**SHRINKING, **(shrinking or {})}, "selection": selection or {}}
    return NasBertOptions.model_validate({**SIZES, **parts})


def planned(options: NasBertOptions) -> dict[str, StagePlan]:
    options = options.model_copy(update={"retrain": options.retrain.model_copy(update={"length": 16})})
    options = options.model_copy(update={"teacher": options.teacher.model_copy(update={"length": 16})})
    return {stage.name: stage for stage in plan_stages(options, space_of(options, TINY), TINY, CLASSES, 64, 16)}


def teacher_of_words() -> Network:
    teacher = Network(teacher_spec(TINY, WORDS))
    scramble(teacher, 0)
    return teacher.eval()


def asked(seed: int) -> dict[str, torch.Tensor]:
    batch = ragged_batch(seed=seed)
    return {**batch, "labels": torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)}


def test_held_out_text_stays_where_it_is_and_scores_the_same() -> None:
    batches, teacher = [asked(0), asked(1)], teacher_of_words()
    words = MaskedWords.of(batches, Hardware(), teacher)
    assert all(kept is batch for kept, batch in zip(words.batches, batches, strict=True))
    found = words.score(last_state(teacher), teacher.head, teacher.stem.word.weight)
    assert found["negative_state_error"] == pytest.approx(0.0, abs=1e-12)
    apart = [MaskedWords.of([batch], Hardware(), teacher) for batch in batches]
    alone = [one.score(last_state(teacher), teacher.head, teacher.stem.word.weight) for one in apart]
    assert found["log_likelihood"] == pytest.approx(sum(one["log_likelihood"] for one in alone) / 2, rel=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="what lies on the accelerator can be seen there alone")
def test_the_accelerator_holds_one_batch_at_a_time() -> None:
    """The teacher and the supernet apart, nothing of ten batches is left on the device; the numbers are those of the CPU."""
    batches, hardware, space = [asked(seed) for seed in range(10)], Hardware(device="cuda"), small_space()
    numbers, paths = torch.arange(8).numpy(), Paths(space)
    cpu = path_losses(random_supernet(space), 1, paths, numbers, HeldOut.of(teacher_of_words(), batches, 2, Hardware()), Hardware())
    teacher, supernet = teacher_of_words().to("cuda"), random_supernet(space).to("cuda")
    before = torch.cuda.memory_allocated()
    held_out, words = HeldOut.of(teacher, batches, 2, hardware), MaskedWords.of(batches, hardware, teacher)
    found = path_losses(supernet, 1, paths, numbers, held_out, hardware)
    scores = words.score(last_state(teacher), teacher.head, teacher.stem.word.weight)
    assert torch.cuda.memory_allocated() <= before + 2**20
    assert all(state.device.type == "cpu" for states in held_out.states for state in states)
    assert all(state.device.type == "cpu" for state in words.taught)
    assert found == pytest.approx(cpu, rel=1e-3) and scores["negative_state_error"] == pytest.approx(0.0, abs=1e-6)


def test_the_plan_counts_the_states_that_are_kept() -> None:
    """Four bytes a number: of three states of every held-out text while shrinking, of the last one of every text of the selection."""
    one, three = planned(options_of()), planned(options_of({"dev_batches": 3}))
    states = 4 * 2 * TEXTS * TRAINING["length"] * TINY.hidden * 3  # type: ignore[operator]
    for stage in ("supernet", "shrinking", "tables"):
        assert three[stage].memory - one[stage].memory == states
    few, many = (planned(options_of(selection={"dev_batches": n}))["select"] for n in (1, 6))
    assert many.memory - few.memory == 4 * 5 * TEXTS * 16 * TINY.hidden
    assert f"{4 * 16 * TINY.hidden:,} bytes a text" in planned(options_of(selection={"dev_batches": 0}))["select"].note


def test_the_teacher_s_pass_over_held_out_text_is_planned_once_a_training() -> None:
    forward = TEXTS * costs(teacher_spec(TINY, Head("none")), 12).flops
    fixed: dict[str, Any] = {"epochs": 2}
    together, apart = (planned(options_of({"unit": "none"}, blocks_per_step=how, **fixed)) for how in ("all", "one"))
    assert (together["shrinking"].flops, apart["shrinking"].flops) == (forward, 2 * forward)
    shrunk = planned(options_of())["shrinking"]
    evaluations = planned(options_of({"dev_batches": 2}))["shrinking"]
    assert evaluations.flops == pytest.approx(2 * shrunk.flops) and shrunk.flops > forward


@pytest.mark.parametrize("how", ["all", "one"])
def test_the_record_counts_what_the_plan_does(how: str, tiny_backbone: Backbone, tiny_corpus: Corpus, tmp_path: Path) -> None:
    """Nothing is shrunk and nothing evaluated on the way: what is left is the teacher's pass."""
    options = options_of({"unit": "none"}, epochs=1, blocks_per_step=how)
    space, records = space_of(options, tiny_backbone.config), list[StageRecord]()
    context, teacher = make_context(tmp_path, tiny_backbone, tiny_corpus, records), make_teacher(tiny_backbone)
    supernet, survivors = NasBertSupernet(space, tiny_backbone.config, WORDS), new_survivors(options, space, context)
    train_supernet(context, options, space, supernet, teacher, survivors)
    make_tables(context, options, space, supernet, teacher, survivors)
    forward = TEXTS * costs(teacher_spec(tiny_backbone.config, Head("none")), 12).flops
    shrinking = [record for record in records if record.stage.startswith("shrinking")]
    assert [record.flops for record in shrinking] == [forward] * (1 if how == "all" else 2)
    assert [record.examples for record in shrinking] == [0] * len(shrinking)
    assert forward < records[-1].flops and records[-1].stage == "tables"


@pytest.mark.parametrize("sampler", ["bins", "gradual"])
def test_the_batches_of_a_step_train_the_same_paths(sampler: str, tiny_backbone: Backbone, tiny_corpus: Corpus, tmp_path: Path) -> None:
    options = options_of(sampler=sampler, accumulation=3, gradual_changes=1)
    space = space_of(options, tiny_backbone.config)
    supernet = NasBertSupernet(space, tiny_backbone.config, WORDS)
    survivors = new_survivors(options, space, make_context(tmp_path, tiny_backbone, tiny_corpus))
    step = BlockwiseStep(supernet, make_teacher(tiny_backbone), tiny_corpus.masker, survivors, (0, 1), options, 0)
    drawn = []
    for number in range(12):
        step.step = number
        paths = []
        for rows in ([0, 1], [2, 3], [4, 5]):
            step(tiny_corpus.packed("train", 12).batch(rows), lambda loss: loss.backward())
            paths.append(dict(step.before))
        assert paths[0] == paths[1] == paths[2]
        drawn.append(paths[0])
    assert all(len({one[block] for one in drawn}) > 3 for block in (0, 1))


def test_an_accumulated_gradual_training_reaches_one_path_a_step(tiny_backbone: Backbone, tiny_corpus: Corpus, tmp_path: Path) -> None:
    """Through the loop: one draw for each of three steps of two batches, for either block."""
    options = options_of({"unit": "none"}, epochs=1, sampler="gradual", accumulation=2)
    space, teacher = space_of(options, tiny_backbone.config), make_teacher(tiny_backbone)
    context = make_context(tmp_path, tiny_backbone, tiny_corpus)
    drawn: list[tuple[int, int, int]] = []
    supernet, survivors = NasBertSupernet(space, tiny_backbone.config, WORDS), new_survivors(options, space, context)
    original = BlockwiseStep.path_number

    def remembered(self: BlockwiseStep, block: int) -> int:
        drawn.append((self.step, block, original(self, block)))
        return drawn[-1][2]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlockwiseStep, "path_number", remembered)
        train_supernet(context, options, space, supernet, teacher, survivors)
    assert [(at, block) for at, block, _ in drawn] == [(at, block) for at in range(3) for block in (0, 1)]
