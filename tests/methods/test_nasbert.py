"""NAS-BERT: its space and canonical form, options, plan and recipe."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from methods import registry
from methods.backbone import BERT_BASE
from methods.corpus.masked_words import word_flops
from methods.costs import costs
from methods.errors import UserError
from methods.layers.heads import NoHead
from methods.nasbert.encoding import PAPER_HIDDEN_SIZES, PAPER_OPERATIONS, architecture_of, compact, from_reference, from_short, to_short
from methods.nasbert.networks import teacher_spec
from methods.nasbert.options import NasBertOptions
from methods.nasbert.recipe import NasBertRecipe
from methods.nasbert.space import NasBertSpace, space_of
from methods.nasbert.supernet import NasBertSupernet
from methods.space import Architecture
from methods.tasks.head import Head
from tests.methods.nasbert_cases import CLASSES, PAPER, REFERENCE, TINY, few, small_space


def test_counts_of_the_paper() -> None:
    assert NasBertSpace(hidden_sizes=(192,)).paths_per_block() == 19_530
    assert PAPER.paths_per_block() == 97_650
    assert NasBertSpace(sublayers=12, blocks=3, hidden_sizes=(64,)).paths_per_block() == 780
    assert PAPER.size() == 5 * 97_650**4


def test_enumeration_lists_every_architecture_once() -> None:
    space = small_space()
    assert space.paths_per_block() == 2 * (4 + 16)
    listed = set(space.enumerate())
    assert len(listed) == len(list(space.enumerate())) == space.size() == 2 * 40**2
    assert all(space.contains(a) for a in listed)


@given(st.lists(st.sampled_from(["I", *PAPER_OPERATIONS]), min_size=1, max_size=6))
@few
def test_identities_do_not_count(operations: list[str]) -> None:
    kept = [name for name in operations if name != "I"]
    if not kept:
        with pytest.raises(ValueError, match="block of identities alone"):
            architecture_of(64, [(128, operations)])
        return
    assert compact(operations) == kept
    assert architecture_of(64, [(128, operations)]).id == architecture_of(64, [(128, kept)]).id


@given(data=st.data())
@few
def test_genes_beyond_the_length_do_not_exist(data: st.DataObject) -> None:
    assignment = {c.name: data.draw(st.sampled_from(c.values)) for c in PAPER.choices}
    architecture = PAPER.decode(assignment)
    block = data.draw(st.integers(1, 4))
    for j in range(int(assignment[f"block{block}.length"]) + 1, 7):
        assignment[f"block{block}.op{j}"] = data.draw(st.sampled_from(PAPER_OPERATIONS))
    assert PAPER.decode(assignment) == architecture
    assert PAPER.decode(PAPER.encode(architecture)) == architecture
    assert from_short(to_short(architecture)) == architecture


def test_foreign_architectures_are_not_contained() -> None:
    good = small_space().smallest()
    genes = good.choices
    for wrong in (
        {**genes, "embedding": 9},
        {**genes, "embedding": 8.0},
        {**genes, "blocks": genes["blocks"][:1]},
        {**genes, "blocks": [genes["blocks"][0], {"hidden": 8, "ops": []}]},
        {**genes, "blocks": [genes["blocks"][0], {"hidden": 8, "ops": ["M", "M", "M"]}]},
        {**genes, "blocks": [genes["blocks"][0], {"hidden": 8, "ops": ["S7"]}]},
        {**genes, "extra": 1},
    ):
        assert not small_space().contains(Architecture.of("nasbert", wrong)), wrong
    assert not small_space().contains(Architecture.of("dynabert", genes))
    with pytest.raises(ValueError, match=r"block2\.op1: 'S7' is none of"):
        small_space().encode(architecture_of(8, [(8, ["M"]), (8, ["S7"])]))


def test_short_spelling() -> None:
    assert to_short(architecture_of(64, [(192, ["S3", "I", "M"]), (128, ["F"])])) == "E64|192:S3.M|128:F"
    for wrong in ("64|192:M", "E64|192", "E64|192:M|", "E64|192:X", "E64|192:S4"):
        with pytest.raises(ValueError, match=r"reads E64|unknown|odd"):
            from_short(wrong)


def test_reference_integers_are_the_shipped_network() -> None:
    shipped = from_reference(REFERENCE, embedding=64)
    assert to_short(shipped) == "E64|192:S3.S7.M|192:S7.S7.M|192:S3.M.S7|192:S5.M.S3"
    assert PAPER.contains(shipped)
    with pytest.raises(ValueError, match="block 1: all sub-layers have one hidden size"):
        from_reference([9, 17, *REFERENCE[2:]], embedding=64)
    with pytest.raises(ValueError, match="identities alone"):
        from_reference([0] * 24, embedding=64)
    with pytest.raises(ValueError, match="from 0 to 29"):
        from_reference([30, *REFERENCE[1:]], embedding=64)


def test_sampling_is_uniform_over_architectures() -> None:
    space, rng = small_space(operations=("M", "F"), embedding_sizes=(8,), sublayers=2, blocks=1), random.Random(0)
    counts = Counter(space.sample(rng) for _ in range(6000))
    assert set(counts) == set(space.enumerate()) and len(counts) == 12
    assert sum((n - 500) ** 2 / 500 for n in counts.values()) < 31.3  # chi-square, 11 degrees of freedom, p = 0.001


def test_mutation_is_one_move_and_reaches_every_kind() -> None:
    rng, kinds = random.Random(0), set()
    for _ in range(400):
        start = PAPER.sample(rng)
        moved = PAPER.mutate(start, rng)
        assert moved != start and PAPER.contains(moved)
        before, after = start.choices, moved.choices
        different = [i for i in range(4) if before["blocks"][i] != after["blocks"][i]]
        if not different:
            kinds.add("embedding")
            continue
        assert len(different) == 1 and before["embedding"] == after["embedding"]
        old, new = before["blocks"][different[0]], after["blocks"][different[0]]
        if old["hidden"] != new["hidden"]:
            assert old["ops"] == new["ops"]
            kinds.add("hidden")
            continue
        grown = len(new["ops"]) - len(old["ops"])
        assert grown in (-1, 0, 1) and sum(a != b for a, b in zip(old["ops"], new["ops"], strict=False)) == (grown == 0)
        kinds.add(f"length {grown}")
    assert kinds == {"embedding", "hidden", "length -1", "length 0", "length 1"}


def test_anchors_are_in_the_space() -> None:
    for space in (PAPER, small_space(operations=("S3",))):
        anchors = space.anchors()
        assert {space.smallest(), space.largest()} < set(anchors) and all(space.contains(a) for a in anchors)
    assert from_short("E128|128:M.F.M.F.M.F" + "|128:M.F.M.F.M.F" * 3) in PAPER.anchors()


def test_impossible_sizes_are_refused() -> None:
    for changes, message in (
        ({"sublayers": 7}, "sublayers: 7 do not divide into 2 blocks"),
        ({"operations": ("M", "S4")}, "operation 'S4': the kernel"),
        ({"operations": ("M", "X")}, "operation 'X' is unknown"),
        ({"operations": ("M", "M")}, "operations: at least one value and none twice"),
        ({"operations": ("M", "I")}, "operation 'I' is unknown"),
        ({"hidden_sizes": (8, 12)}, "hidden_sizes: 12 is no multiple of head_size 8"),
        ({"embedding_sizes": ()}, "embedding_sizes: at least one"),
        ({"embedding_sizes": (0, 8)}, "embedding_sizes: 0 is no size"),
    ):
        with pytest.raises(ValueError, match=message):
            small_space(**changes)
    assert small_space(operations=("F", "S3"), hidden_sizes=(7,)).size() == 2 * (2 + 4) ** 2, "head_size matters to attention alone"


def test_defaults_are_the_papers() -> None:
    o = NasBertOptions()
    assert (o.sublayers, o.blocks, o.hidden_sizes, o.operations, o.head_size) == (24, 4, PAPER_HIDDEN_SIZES, PAPER_OPERATIONS, 64)
    shrinking = o.shrinking
    assert (shrinking.bins, shrinking.kept, shrinking.sample, shrinking.drop_fraction, shrinking.dev_batches) == (10, 10, 2000, 0.5, 5)
    assert (o.supernet.warmup_epochs, o.supernet.batch_size, o.supernet.length, o.selection.candidates) == (3, 1024, 512, 100)
    assert (o.retrain.start, o.retrain.steps, o.retrain.batch_size, o.retrain.distillation) == ("scratch", 125_000, 2_048, 0.5)
    assert NasBertOptions.model_validate_json(o.model_dump_json()) == o
    assert space_of(o, BERT_BASE).choices == PAPER.choices


def test_wrong_options_are_named() -> None:
    for wrong, message in (
        ({"widths": [1]}, "widths"),
        ({"shrinking": {"bin": 3}}, r"shrinking\.bin"),
        ({"sublayers": 10}, "sublayers: 10 do not divide into 4 blocks"),
        ({"operations": ["M", "S2"]}, "operation 'S2'"),
        ({"hidden_sizes": [96]}, "96 is no multiple of head_size 64"),
        ({"retrain": {"distillation": 2}}, r"retrain\.distillation"),
        ({"shrinking": {"unit": "none"}}, r"supernet\.epochs: needs a number"),
        ({"supernet": {"epochs": 2}}, r"supernet\.epochs: 2 is less than"),
    ):
        with pytest.raises(ValidationError, match=message):
            NasBertOptions.model_validate(wrong)
    with pytest.raises(UserError, match=r"blocks: 4 do not divide the backbone's 6 layers; with 24 sublayers 1, 2, 3, 6 would"):
        space_of(NasBertOptions(), replace(BERT_BASE, layers=6))


def test_plan_of_the_paper() -> None:
    stages = {p.name: p for p in NasBertRecipe(NasBertOptions()).plan(PAPER, BERT_BASE, CLASSES, 67_349, 128)}
    assert list(stages) == ["teacher", "supernet", "shrinking", "tables", "select", "retrain", "finetune"]
    assert all(p.steps > 0 and p.examples > 0 and p.flops > 0 and p.memory > 0 for p in stages.values())
    texts, spec = 125_000 * 2_048, teacher_spec(BERT_BASE, Head("mlm"))
    asked = costs(replace(spec, head=NoHead()), 512).flops + 0.15 * spec.head.flops(512)
    assert stages["teacher"].examples == texts and stages["teacher"].flops == pytest.approx(3 * asked * texts)
    assert stages["tables"].subnetworks <= 400 and stages["select"].subnetworks == 100
    assert stages["supernet"].examples == stages["supernet"].steps * 1_024
    assert stages["finetune"].examples == 5 * 2 * 18 * 67_349


def test_plan_follows_the_options() -> None:
    def plan(**changes: object) -> dict[str, object]:
        o = NasBertOptions.model_validate(changes)
        return {p.name: p for p in NasBertRecipe(o).plan(space_of(o, BERT_BASE), BERT_BASE, CLASSES, 1000, 64)}

    one = plan(supernet={"blocks_per_step": "one"})["supernet"]
    every = plan()["supernet"]
    assert one.steps == 4 * every.steps and one.flops > every.flops  # type: ignore[attr-defined]
    fixed = plan(shrinking={"unit": "none"}, supernet={"epochs": 7, "epoch_steps": 10})
    assert fixed["supernet"].steps == 70 and fixed["shrinking"].examples == 0  # type: ignore[attr-defined]
    assert plan(teacher={"source": "backbone", "head_steps": 12})["teacher"].steps == 12  # type: ignore[attr-defined]
    alone, taught = (plan(retrain={"distillation": d})["retrain"].flops for d in (0.0, 0.5))  # type: ignore[attr-defined]
    assert taught - alone == pytest.approx(125_000 * 2_048 * word_flops(teacher_spec(BERT_BASE, Head("mlm")), 512))
    assert plan(finetune={"rows": 100})["finetune"].examples == 5 * 2 * 18 * 100  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="600 tokens are planned, the backbone has 512 positions"):
        plan(retrain={"length": 600})


def test_plan_counts_three_forwards_and_the_teacher_once() -> None:
    """A space of one path: 2 blocks of one feed-forward layer 8 wide between maps from and to the teacher's 24."""
    o = NasBertOptions(sublayers=2, blocks=2, hidden_sizes=(8,), operations=("F",), embedding_sizes=(8,), head_size=8)
    corpus = {"batch_size": 4, "length": 10}
    o = NasBertOptions.model_validate({**o.model_dump(), "supernet": {**corpus, "epoch_steps": 5}, "teacher": corpus, "retrain": corpus})
    stages = {p.name: p for p in NasBertRecipe(o).plan(space_of(o, TINY), TINY, CLASSES, 100, 16)}
    path = 10 * (2 * 24 * 8 + 16 * 8 * 8 + 2 * 8 * 24)
    teacher = costs(teacher_spec(TINY, Head("none")), 10).flops
    assert stages["supernet"].steps == 3 * 5
    assert stages["supernet"].flops == 15 * 4 * (3 * 2 * path + teacher)
    assert stages["shrinking"].flops == 5 * 4 * teacher, "its states on held-out text, though no bin is shrunk"
    assert stages["tables"].flops == 5 * 4 * (2 * path + teacher)


def test_registered() -> None:
    method = registry.get("nasbert")
    assert (method.name, method.scope, method.options) == ("nasbert", "corpus", NasBertOptions)
    options = method.options(sublayers=4, blocks=2, hidden_sizes=[8], head_size=8, embedding_sizes=[8])
    space = method.space(options, TINY)
    assert isinstance(method.supernet(space, TINY, CLASSES), NasBertSupernet) and isinstance(method.recipe(options), NasBertRecipe)
