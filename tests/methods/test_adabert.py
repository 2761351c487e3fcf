"""AdaBERT: golden numbers, its operations, derivation, expected costs, relaxed and folded forms, and its plan."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from methods import UserError, registry
from methods.adabert.derivation import derive
from methods.adabert.folding import fold
from methods.adabert.options import OPERATIONS, AdaBertOptions, SpaceOptions
from methods.adabert.plan import Plan
from methods.adabert.recipe import AdaBertRecipe
from methods.adabert.relaxation import Relaxation, one_hot, relaxed
from methods.adabert.space import AdaBertSpace, operation_part
from methods.adabert.supernet import AdaBertSupernet
from methods.backbone import BERT_BASE
from methods.costs import costs
from methods.dynabert.space import full_spec
from methods.layers.cell import LayerAttentionHead, run_cells
from methods.layers.operations import CellConvolution, CellPool, MaskedBatchNorm
from methods.network import Network
from methods.space import Architecture
from methods.supernet import inputs
from methods.tasks.head import Head
from tests.conformance.cases import TINY, randomise, text

PAIR = Head("classification", 3, pair=True)
SINGLE = Head("classification", 3)
SMALL = SpaceOptions(cells=3, nodes=2, width=12)
FEW = SpaceOptions(cells=2, nodes=2, width=6, operations=("conv_3", "max_pool_3"))


def supernet_of(options: SpaceOptions = SMALL, head: Head = PAIR, seed: int = 0) -> AdaBertSupernet:
    torch.manual_seed(seed)
    supernet = AdaBertSupernet(AdaBertSpace(options), TINY, head)
    randomise(supernet, seed)
    return supernet.eval()


def batch_of(head: Head = PAIR, length: int = 9, seed: int = 0) -> dict[str, Tensor]:
    """Four ragged texts; the second texts are in reverse order, so that each row's two masks differ."""
    generator = torch.Generator().manual_seed(seed)
    first, second = text(generator, length, TINY), text(generator, length, TINY)
    made = {name: first[name] for name in ("input_ids", "attention_mask")}
    return made | ({f"{name}_b": second[name].flip(0) for name in made} if head.pair else {})


# --- golden numbers and the space


def test_golden_numbers_of_the_paper() -> None:
    space = AdaBertSpace()
    assert space.size() == 76_527_504 == 8 * 18 * 9**6
    hosted = {name: operation_part(name, space.options).other_parameters() for name in OPERATIONS}
    expected = dict.fromkeys(OPERATIONS, 0)
    for prefix in ("conv", "dilated_conv"):
        expected |= {f"{prefix}_3": 49_408, f"{prefix}_5": 82_176, f"{prefix}_7": 114_944}
    assert hosted == expected
    assert operation_part("conv_5", space.options).flops(128) == 2 * 10_485_760
    deployed = costs(space.spec(space.smallest(), BERT_BASE, SINGLE))
    assert deployed.embedding_parameters == 3_972_352
    six = costs(space.spec(space.uniform(3, "conv_5"), BERT_BASE, SINGLE, "hosted"))
    assert six.flops == 2 * (3 * 6 * 10_485_760 + 128 * 768 * 128 + 3 * 128)


@pytest.mark.parametrize("form", ["hosted", "deployed"])
def test_costs_are_the_closed_form_of_the_specification(form: str) -> None:
    space, d, h = AdaBertSpace(SMALL), 12, TINY.hidden
    nodes = [[(0, "conv_3"), (1, "identity")], [(1, "dilated_conv_7"), (2, "average_pool_3")]]
    cost = costs(space.spec(space.architecture(2, nodes), TINY, PAIR, form), length=10, batch=2)  # type: ignore[arg-type]
    affine = 2 * d if form == "hosted" else d
    tables, projection = ((50 + 40) * h, h * d) if form == "hosted" else ((50 + 40) * d, 0)
    assert cost.embedding_parameters == tables
    assert cost.other_parameters == projection + 2 * d + 2 * ((3 + 7) * d * d + 2 * affine + 2) + 3 + 3 * (d + 1)
    texts = 2 * 10 * projection
    assert cost.flops == 2 * 2 * (texts + 2 * 10 * (3 + 7) * d * d + 3 * d)


def test_enumeration_counts_what_size_says() -> None:
    space = AdaBertSpace(FEW)
    listed = list(space.enumerate())
    assert len(listed) == len(set(listed)) == space.size() == 2 * 3 * 2**4
    wide = AdaBertSpace(FEW.model_copy(update={"in_edges": 4}))
    assert wide.size() == len(set(wide.enumerate())) == 2 * 2**5


def test_batch_costs_of_the_paper_space_are_the_costs() -> None:
    space, rng = AdaBertSpace(), random.Random(3)
    drawn = [space.sample(rng) for _ in range(60)]
    places = [space.place(space.encode(a)) for a in drawn]
    columns = {c.name: np.array([place[c.name] for place in places]) for c in space.choices}
    for head in (SINGLE, PAIR):
        table = space.batch_costs(columns, BERT_BASE, head, length=64, batch=3)
        for i, architecture in enumerate(drawn):
            assert table[i] == costs(space.spec(architecture, BERT_BASE, head), length=64, batch=3)


@pytest.mark.parametrize(
    "change",
    [
        {"K": 0},
        {"K": 4},
        {"K": True},
        {"schema": 2},
        {"nodes": [[[0, "conv_3"], [1, "conv_3"]]]},
        {"nodes": [[[1, "conv_3"], [0, "conv_3"]], [[0, "conv_3"], [1, "conv_3"]]]},
        {"nodes": [[[0, "zero"], [1, "conv_3"]], [[0, "conv_3"], [1, "conv_3"]]]},
        {"nodes": [[[0, "conv_3"], [1, "conv_3"]], [[0, "conv_3"], [3, "conv_3"]]]},
        {"nodes": [[[0, "conv_3"], [1, "conv_3"]], [[0, "conv_3"], [1, "conv_3"], [2, "conv_3"]]]},
        {"extra": 1},
    ],
)
def test_what_is_no_canonical_architecture_is_not_in_the_space(change: dict[str, object]) -> None:
    space = AdaBertSpace(SMALL)
    genes = {"schema": 1, "K": 2, "nodes": [[[0, "conv_3"], [1, "conv_3"]], [[0, "conv_3"], [1, "identity"]]]}
    assert space.contains(Architecture.of("adabert", genes))
    assert not space.contains(Architecture.of("adabert", {**genes, **change}))


def test_edges_are_put_in_order() -> None:
    space = AdaBertSpace(SMALL)
    ordered = space.architecture(1, [[(0, "conv_3"), (1, "identity")], [(0, "conv_5"), (2, "conv_7")]])
    assert space.architecture(1, [[(1, "identity"), (0, "conv_3")], [(2, "conv_7"), (0, "conv_5")]]) == ordered
    with pytest.raises(ValueError, match=r"node0\.opa is 'zero'"):
        space.architecture(1, [[(0, "zero"), (1, "identity")], [(0, "conv_5"), (2, "conv_7")]])


@pytest.mark.parametrize("kind", ["span", "mlm", "none"])
def test_heads_that_cannot_be_hosted_are_refused(kind: str) -> None:
    space, head = AdaBertSpace(SMALL), Head(kind)  # type: ignore[arg-type]
    for call in (
        lambda: space.spec(space.smallest(), TINY, head),
        lambda: AdaBertSupernet(space, TINY, head),
        lambda: AdaBertRecipe(AdaBertOptions()).plan(space, TINY, head, 100, 16),
    ):
        with pytest.raises(UserError, match=f"'{kind}'.*classification and regression only"):
            call()


# --- operations


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 2), (7, 2), (3, 3)])
def test_dilated_convolution_is_linear_and_reaches_as_far_as_it_says(kernel: int, dilation: int) -> None:
    torch.manual_seed(0)
    module = CellConvolution(4, kernel, dilation).build()
    randomise(module, 1)
    valid = torch.ones(2, 41, 1, dtype=torch.bool)

    def before_norm(hidden: Tensor) -> Tensor:
        seen: list[Tensor] = []
        handle = module.convolution.register_forward_hook(lambda _, __, output: seen.append(output.transpose(1, 2)))
        module(hidden, valid)
        handle.remove()
        return seen[0]

    x, y = torch.rand(2, 41, 4), torch.rand(2, 41, 4)
    torch.testing.assert_close(before_norm(2 * x + 3 * y), 2 * before_norm(x) + 3 * before_norm(y), rtol=1e-4, atol=1e-5)
    x.requires_grad_()
    before_norm(x)[0, 20].sum().backward()
    assert x.grad is not None
    touched = x.grad[0].abs().sum(1).nonzero().flatten()
    assert touched.tolist() == [20 + dilation * (i - kernel // 2) for i in range(kernel)]
    assert int(touched.max() - touched.min()) + 1 == dilation * (kernel - 1) + 1
    assert not x.grad[1].any()


def test_pools_by_hand() -> None:
    hidden = torch.tensor([[[-4.0], [-2.0], [-6.0], [0.0], [0.0]]])
    valid = torch.tensor([[[True], [True], [True], [False], [False]]])
    assert CellPool("max").build()(hidden, valid).flatten().tolist() == [-2, -2, -2, 0, 0]
    assert CellPool("average").build()(hidden, valid).flatten().tolist() == [-2, -4, pytest.approx(-8 / 3), 0, 0]
    rectified = CellPool("max", relu=True).build()(-hidden, valid)
    assert rectified.flatten().tolist() == [4, 6, 6, 0, 0]
    assert not CellPool("average", relu=True).build()(hidden, valid).any()


def test_masked_batch_norm_is_batch_norm_of_the_tokens() -> None:
    torch.manual_seed(0)
    ours, theirs = MaskedBatchNorm(5), nn.BatchNorm1d(5)
    with torch.no_grad():
        theirs.weight.copy_(torch.rand(5) + 0.5)
        theirs.bias.copy_(torch.randn(5))
    ours.load_state_dict({name: tensor for name, tensor in theirs.state_dict().items() if name != "num_batches_tracked"})
    for _ in range(3):
        hidden = torch.randn(4, 7, 5) * 3 + 1
        valid = (torch.arange(7) < torch.tensor([[7], [4], [1], [6]]))[..., None]
        torch.testing.assert_close(ours(hidden, valid)[valid[..., 0]], theirs(hidden[valid[..., 0]]), rtol=1e-4, atol=1e-5)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=1e-6)
    ours.eval(), theirs.eval()
    flat = torch.randn(6, 5)
    scale, shift = ours.affine()
    torch.testing.assert_close(flat * scale + shift, theirs(flat), rtol=1e-4, atol=1e-5)


def test_every_operation_leaves_padding_zero_and_unseen() -> None:
    options = SpaceOptions(width=5)
    torch.manual_seed(0)
    hidden = torch.randn(2, 8, 5)
    valid = (torch.arange(8) < torch.tensor([[8], [5]]))[..., None]
    hidden = hidden.masked_fill(~valid, 0.0)
    for name in OPERATIONS:
        for training in (True, False):
            module = operation_part(name, options).build()
            randomise(module, 1)
            module.train(training)
            output = module(hidden, valid)
            longer = module(nn.functional.pad(hidden, (0, 0, 0, 7)), nn.functional.pad(valid, (0, 0, 0, 7)))
            assert not output.masked_fill(valid, 0.0).any(), name
            torch.testing.assert_close(longer[:, :8], output)
            assert not longer[:, 8:].any(), name


# --- encoder and head


def test_first_state_is_the_mean_of_the_texts_and_masks_are_united() -> None:
    supernet, batch = supernet_of(), batch_of()
    first, second = (hidden for hidden, _ in supernet.texts(batch))
    architecture = supernet.space.uniform(2, "identity")
    network = supernet.extract(architecture)
    states = network(**inputs(batch))["hidden_states"]
    assert len(states) == 3
    torch.testing.assert_close(states[0], (first + second) / 2)
    union = batch["attention_mask"] | batch["attention_mask_b"]
    assert (batch["attention_mask"] != batch["attention_mask_b"]).any()
    assert all(not state[union == 0].any() and state[union == 1].abs().sum(-1).all() for state in states)
    # by hand: both nodes of cell 1 and 2 with identity edges from their last two sources
    older, newer, shares = first, second, [cell.weights.softmax(0) for cell in network.encoder]
    for k in range(2):
        node0 = older + newer
        node1 = newer + node0
        torch.testing.assert_close(states[k + 1], shares[k][0] * node0 + shares[k][1] * node1)
        older, newer = newer, states[k + 1]


def test_operations_see_the_mask_of_their_source() -> None:
    supernet, batch = supernet_of(), batch_of()
    nodes = [[(0, "identity"), (1, "identity")], [(0, "max_pool_3"), (2, "max_pool_3")]]
    network = supernet.extract(supernet.space.architecture(1, nodes))
    texts = supernet.texts(batch)
    states, mask = network.encoder(texts)
    (first, mask_a), (second, mask_b) = texts
    assert torch.equal(mask, mask_a | mask_b)
    shares = network.encoder[0].weights.softmax(0)
    for row in range(4):
        a, both = int(mask_a[row].sum()), int(mask[row].sum())
        added = (first + second)[row, :both]
        pooled = nn.functional.pad(_neighbours(first[row, :a]), (0, 0, 0, both - a)) + _neighbours(added)
        torch.testing.assert_close(states[1][row, :both], shares[0] * added + shares[1] * pooled)


def _neighbours(hidden: Tensor) -> Tensor:
    """Maximum over each token and its neighbours, of one text (L, d) without padding."""
    return torch.stack([hidden[max(0, i - 1) : i + 2].amax(0) for i in range(len(hidden))])


def test_head_by_hand() -> None:
    torch.manual_seed(0)
    module = LayerAttentionHead(4, 3, 2).build().eval()
    randomise(module, 0)
    states = tuple(torch.randn(2, 5, 4) for _ in range(3))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    means = torch.stack([torch.stack([state[0].mean(0), state[1, :2].mean(0)]) for state in states])
    pooled = torch.tanh(torch.einsum("s,sbd->bd", module.weights.softmax(0), means))
    clean = tuple(state * mask[..., None] for state in states)
    torch.testing.assert_close(module(clean, mask), module.classifier(pooled))


def test_texts_of_different_length_are_refused() -> None:
    a, b = torch.zeros(2, 5, 4), torch.zeros(2, 6, 4)
    with pytest.raises(ValueError, match="padded to one length"):
        run_cells(((a, torch.ones(2, 5)), (b, torch.ones(2, 6))), [])


# --- the supernet


@pytest.mark.parametrize(
    "change",
    [
        {"shared_classifier": True},
        {"normalisation": "layer"},
        {"pool_input": "relu"},
        {"in_edges": 3},
        {"in_edges": 4, "dilation": 3, "nodes": 3},
    ],
)
def test_the_laws_hold_under_every_option_of_the_space(change: dict[str, object]) -> None:
    options = SpaceOptions(**{**SMALL.model_dump(), **change})
    supernet, batch = supernet_of(options), batch_of()
    rng = random.Random(0)
    for architecture in (supernet.space.sample(rng) for _ in range(4)):
        with torch.no_grad():
            expected = supernet(batch, architecture)["logits"]
            network = supernet.extract(architecture)
            torch.testing.assert_close(network(**inputs(batch))["logits"], expected, rtol=1e-5, atol=1e-5)
            for candidate in (network, fold(network)):
                with FlopCounterMode(display=False) as counter:
                    candidate(**inputs(batch))
                cost = costs(candidate.spec, length=9, batch=4)
                assert counter.get_total_flops() == cost.flops
                assert sum(p.numel() for p in candidate.parameters()) == cost.parameters


@pytest.mark.parametrize("shared", [False, True])
def test_each_depth_has_its_own_layer_weights_and_unless_shared_classifier(shared: bool) -> None:
    supernet = supernet_of(SMALL.model_copy(update={"shared_classifier": shared}))
    for k in (1, 2, 3):
        used = supernet.parameters_of(supernet.space.uniform(k, "identity"))
        ends = {name for name in used if not name.startswith(("stem.", "cells."))}
        place = 0 if shared else k - 1
        assert ends == {f"layer_weights.{k - 1}", f"classifiers.{place}.weight", f"classifiers.{place}.bias"}
        assert {name.split(".")[1] for name in used if name.startswith("cells.")} == {str(i) for i in range(k)}


def test_training_mode_does_not_see_padding() -> None:
    options = SMALL.model_copy(update={"dropout": 0.0})
    batch = batch_of()
    longer = {name: nn.functional.pad(tensor, (0, 7)) for name, tensor in batch.items()}
    short, long = supernet_of(options).train(), supernet_of(options).train()
    architecture = short.space.architecture(3, [[(0, "conv_3"), (1, "dilated_conv_5")], [(0, "max_pool_3"), (2, "conv_7")]])
    torch.testing.assert_close(long(longer, architecture)["logits"], short(batch, architecture)["logits"], rtol=1e-4, atol=1e-5)
    buffers = dict(long.named_buffers())
    for name, buffer in short.named_buffers():
        torch.testing.assert_close(buffers[name], buffer, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("choice", [c.name for c in AdaBertSpace(SMALL).choices if len(c.values) > 1])
def test_every_value_of_every_choice_gives_other_logits(choice: str) -> None:
    supernet = supernet_of(head=SINGLE)
    space, batch = supernet.space, batch_of(SINGLE)
    # two cells: a single text is both inputs of the first one, so there parameter-free edges from either input are alike
    start = space.encode(space.architecture(2, [[(0, "max_pool_3"), (1, "conv_5")], [(0, "identity"), (2, "conv_3")]]))
    values = next(c.values for c in space.choices if c.name == choice)
    with torch.no_grad():
        found = [supernet(batch, space.decode({**start, choice: value}))["logits"] for value in values]
    for first, second in combinations(found, 2):
        assert not torch.allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("head", [SINGLE, PAIR], ids=["single", "pair"])
def test_relaxed_at_a_one_hot_is_the_architecture(head: Head) -> None:
    supernet, batch, rng = supernet_of(head=head), batch_of(head), random.Random(4)
    for architecture in (supernet.space.sample(rng) for _ in range(5)):
        with torch.no_grad():
            mixed = relaxed(supernet, batch, one_hot(supernet.space, architecture))
            torch.testing.assert_close(mixed.logits, supernet(batch, architecture)["logits"], rtol=1e-5, atol=1e-5)


def test_relaxed_mixes_depths_and_operations_linearly() -> None:
    supernet, batch = supernet_of(), batch_of()
    space = supernet.space
    weights = one_hot(space, space.uniform(1, "identity"))
    with torch.no_grad():
        depths = torch.tensor([0.2, 0.5, 0.3])
        mixed = relaxed(supernet, batch, Relaxation(weights.edges, depths))
        each = [supernet(batch, space.uniform(k, "identity"))["logits"] for k in (1, 2, 3)]
        torch.testing.assert_close(mixed.depth_logits, torch.stack(each), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mixed.logits, 0.2 * each[0] + 0.5 * each[1] + 0.3 * each[2], rtol=1e-5, atol=1e-5)
    probabilities = supernet.probabilities()
    relaxed(supernet, batch, probabilities).logits.sum().backward()
    assert all(p.grad is not None and p.grad.abs().min() > 0 for p in supernet.architecture_parameters())


def test_load_teacher_copies_the_tables_and_refuses_other_shapes() -> None:
    supernet, teacher = supernet_of(), Network(full_spec(TINY, PAIR))
    supernet.load_teacher(teacher)
    assert torch.equal(supernet.stem.word.weight, teacher.stem.word.weight)
    assert torch.equal(supernet.stem.position.weight, teacher.stem.position.weight)
    assert supernet.stem.word.weight.data_ptr() != teacher.stem.word.weight.data_ptr()
    other = AdaBertSupernet(AdaBertSpace(SMALL), BERT_BASE.__class__(60, 40, 2, 24, 6, 4, 40), PAIR)
    with pytest.raises(UserError, match=r"word table is \(50, 24\), \(60, 24\) is needed"):
        other.load_teacher(teacher)


# --- folding


@pytest.mark.parametrize("head", [SINGLE, PAIR], ids=["single", "pair"])
@pytest.mark.parametrize("normalisation", ["batch", "layer"])
def test_folded_network_gives_the_same_logits(head: Head, normalisation: str) -> None:
    supernet, batch = supernet_of(SMALL.model_copy(update={"normalisation": normalisation}), head), batch_of(head)
    rng = random.Random(1)
    for architecture in [supernet.space.largest(), *(supernet.space.sample(rng) for _ in range(4))]:
        hosted = supernet.extract(architecture)
        before = {name: tensor.clone() for name, tensor in hosted.state_dict().items()}
        deployed = fold(hosted)
        assert deployed.spec == supernet.spec(architecture, "deployed") and not deployed.training
        assert not any(isinstance(module, MaskedBatchNorm) for module in deployed.modules())
        assert deployed.stem.projection is None and deployed.stem.word.weight.shape == (50, 12)
        with torch.no_grad():
            expected, found = hosted(**inputs(batch))["logits"], deployed(**inputs(batch))["logits"]
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
        assert all(torch.equal(tensor, before[name]) for name, tensor in hosted.state_dict().items())


# --- derivation


def test_derivation_by_hand() -> None:
    space = AdaBertSpace(FEW)  # columns conv_3, max_pool_3, zero; edges 0<-0, 0<-1, 1<-0, 1<-1, 1<-2
    edges = torch.tensor([[0.0, 1.0, 9.0], [2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [5.0, 0.0, 6.0], [1.5, 0.0, 0.0]])
    derived = derive(space, edges, torch.tensor([0.3, 0.2]))
    # zero can't be kept, but it weakens edge 1<-1, whose best operation has the largest logit and probability 0.27 only
    assert derived == space.architecture(1, [[(0, "max_pool_3"), (1, "conv_3")], [(0, "max_pool_3"), (2, "conv_3")]])
    assert derive(space, torch.zeros(5, 3), torch.zeros(2)) == space.architecture(1, [[(0, "conv_3"), (1, "conv_3")]] * 2)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_derived_architectures_are_in_the_space_and_one_hots_derive_to_themselves(seed: int) -> None:
    space = AdaBertSpace(SMALL)
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randn(len(space.edges), len(space.columns), generator=generator) * 3
    assert space.contains(derive(space, edges, torch.randn(3, generator=generator)))
    architecture = space.sample(random.Random(seed))
    certain = one_hot(space, architecture)
    assert derive(space, 30 * certain.edges, certain.depth) == architecture


def test_the_relaxed_net_at_the_derived_one_hot_is_the_extracted_net() -> None:
    supernet, batch = supernet_of(), batch_of()
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in supernet.architecture_parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            derived = derive(supernet.space, *supernet.architecture_parameters())
            mixed = relaxed(supernet, batch, one_hot(supernet.space, derived)).logits
            torch.testing.assert_close(mixed, supernet.extract(derived)(**inputs(batch))["logits"], rtol=1e-5, atol=1e-5)


# --- law 8: expected costs


@pytest.mark.parametrize("form", ["hosted", "deployed"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_expected_costs_at_a_one_hot_are_the_costs(form: str, seed: int) -> None:
    supernet = supernet_of()
    architecture = supernet.space.sample(random.Random(seed))
    found = supernet.expected_costs(one_hot(supernet.space, architecture), 17, 2, form)  # type: ignore[arg-type]
    exact = costs(supernet.spec(architecture, form), 17, 2)  # type: ignore[arg-type]
    assert found.flops.item() == exact.flops and found.parameters.item() == exact.parameters
    assert found.embedding_parameters.item() == exact.embedding_parameters


def probability(space: AdaBertSpace, architecture: Architecture, edges: Tensor, depth: Tensor) -> float:
    """Of an architecture before normalisation: depth times the operations of its kept edges."""
    genes, total = architecture.choices, float(depth[architecture.choices["K"] - 1])
    for node, kept in enumerate(genes["nodes"]):
        for source, name in kept:
            total *= float(edges[space.edges.index((node, source)), space.columns.index(name)])
    return total


def test_expected_costs_are_the_sum_over_all_architectures_and_the_derived_one_is_the_likeliest() -> None:
    supernet = supernet_of(FEW)
    space = supernet.space
    torch.manual_seed(7)
    edge_logits, depth_logits = torch.randn(5, 3, dtype=torch.float64) * 2, torch.randn(2, dtype=torch.float64)
    edges, depth = edge_logits.softmax(1), depth_logits.softmax(0)
    everything = list(space.enumerate())
    weights = [probability(space, a, edges, depth) for a in everything]
    exact = [costs(space.spec(a, TINY, PAIR), 11) for a in everything]
    found = supernet.expected_costs(Relaxation(edges, depth), 11)
    for name in ("flops", "parameters"):
        mean = math.fsum(w * getattr(cost, name) for w, cost in zip(weights, exact, strict=True)) / math.fsum(weights)
        assert getattr(found, name).item() == pytest.approx(mean, rel=1e-12)
    assert everything[weights.index(max(weights))] == derive(space, edge_logits, depth_logits)


@pytest.mark.parametrize("in_edges", [2, 3])
def test_gradient_of_expected_costs_is_that_of_finite_differences(in_edges: int) -> None:
    space = AdaBertSpace(SMALL.model_copy(update={"nodes": 3, "in_edges": in_edges}))
    supernet = AdaBertSupernet(space, TINY, PAIR)
    torch.manual_seed(0)
    edges = torch.randn(len(space.edges), len(space.columns), dtype=torch.float64, requires_grad=True)
    depth = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def relative(edges: Tensor, depth: Tensor) -> Tensor:
        found = supernet.expected_costs(Relaxation(edges.softmax(1), depth.softmax(0)), 8)
        return torch.stack([found.flops / 1e5, found.parameters / 1e4])

    assert torch.autograd.gradcheck(relative, (edges, depth), eps=1e-6, atol=1e-6)
    relative(edges, depth).sum().backward()
    assert edges.grad is not None and depth.grad is not None
    # an edge that is kept for certain may still change its operation, but zero there changes nothing
    assert edges.grad[:, :-1].abs().min() > 0 and depth.grad.abs().min() > 0
    assert edges.grad[-4:, -1].abs().min() > 0


def test_gradient_is_finite_at_a_one_hot_and_where_a_node_is_all_zero() -> None:
    supernet = supernet_of()
    space = supernet.space
    certain = one_hot(space, space.uniform(2, "conv_3"))
    nothing = torch.zeros_like(certain.edges)
    nothing[:, -1] = 1.0
    for edges in (certain.edges, nothing):
        leaf = edges.clone().requires_grad_()
        found = supernet.expected_costs(Relaxation(leaf, certain.depth))
        found.flops.backward()
        assert leaf.grad is not None and leaf.grad.isfinite().all() and found.flops.isfinite()


# --- options, plan, registration


def test_options_hold_the_paper_values_and_refuse_what_they_do_not_know() -> None:
    o = AdaBertOptions()
    assert (o.cells, o.nodes, o.width, o.in_edges) == (8, 3, 128, 2)
    assert (o.search.loss.gamma, o.search.loss.beta, o.search.loss.temperature, o.search.epochs, o.search.batch_size) == (0.8, 4, 1, 80, 64)
    assert AdaBertOptions(**o.model_dump()) == o
    for wrong in ({"nope": 1}, {"search": {"sampler": "magic"}}, {"operations": ["zero"]}, {"operations": ["conv_3"] * 2}, {"cells": 0}):
        with pytest.raises(ValidationError):
            AdaBertOptions(**wrong)


def test_plan_counts_rows_steps_and_flops() -> None:
    options = AdaBertOptions(**SMALL.model_dump(), augmentation={"copies": 2}, search={"epochs": 4, "batch_size": 10})
    space = AdaBertSpace(options)
    probes, search, derivation, finish = AdaBertRecipe(options).plan(space, TINY, PAIR, 100, 16)
    assert [stage.name for stage in (probes, search, derivation, finish)] == ["probes", "search", "derive", "finish"]
    assert (search.steps, search.examples) == (4 * 30, 4 * 300)
    teacher = costs(full_spec(TINY, PAIR), 16).flops
    assert probes.flops == 100 * teacher + 3 * probes.examples * 7 * 2 * TINY.hidden * 3
    supernet, batch = supernet_of(), batch_of(length=16)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        relaxed(supernet, batch, supernet.probabilities())
    assert search.flops == 300 * teacher + 3 * search.examples * counter.get_total_flops() / 4
    assert derivation.steps == 0 and derivation.flops == 0
    assert finish.flops == 3 * finish.examples * costs(space.spec(space.largest(), TINY, PAIR, "hosted"), 16).flops
    assert min(stage.memory for stage in (probes, search, derivation, finish)) > 0
    chosen = options.model_copy(update={"search": options.search.model_copy(update={"execution": "chosen"})})
    less = AdaBertRecipe(chosen).plan(space, TINY, PAIR, 100, 16)[1]
    assert less.flops < search.flops and less.memory < search.memory
    with pytest.raises(UserError, match="41 tokens"):
        AdaBertRecipe(options).plan(space, TINY, PAIR, 100, 41)


@pytest.mark.parametrize("shared", [False, True])
def test_plan_knows_the_paper_supernet_built_on_meta(shared: bool) -> None:
    options = AdaBertOptions(shared_classifier=shared)
    space = AdaBertSpace(options)
    with torch.device("meta"):
        supernet = AdaBertSupernet(space, BERT_BASE, PAIR)
    plan = Plan(options, space, BERT_BASE, PAIR, 1000, 128)
    assert plan.supernet_parameters() == sum(p.numel() for p in supernet.parameters())
    assert sum(p.numel() for p in supernet.architecture_parameters()) == 98
    convolutions = sum(m.weight.numel() for m in supernet.modules() if isinstance(m, nn.Conv1d))
    assert convolutions == 8 * 9 * 30 * 128 * 128 == 35_389_440


def test_training_is_refused_in_one_sentence() -> None:
    recipe = AdaBertRecipe(AdaBertOptions())
    for call in (recipe.train, recipe.initial, lambda c: recipe.finish(c, None, None)):  # type: ignore[arg-type]
        with pytest.raises(UserError, match="not trained yet; dynabert is trained"):
            call(None)  # type: ignore[arg-type]


def test_the_method_is_registered_and_light_to_import() -> None:
    method = registry.get("adabert")
    space = method.space(method.options(cells=2, nodes=2, width=8), TINY)
    assert space.size() == 2 * 3 * 9**4
    assert isinstance(method.recipe(method.options()), AdaBertRecipe)
    code = "import sys, methods.adabert; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sampling_is_uniform_and_mutation_changes_one_choice() -> None:
    space, rng = AdaBertSpace(FEW), random.Random(0)
    drawn = [space.sample(rng) for _ in range(4000)]
    assert len(set(drawn)) == space.size()
    for name, value in product(("K",), (1, 2)):
        assert sum(space.encode(a)[name] == value for a in drawn) == pytest.approx(2000, abs=200)
    for architecture in drawn[:50]:
        before, after = space.encode(architecture), space.encode(space.mutate(architecture, rng))
        assert sum(before[name] != after[name] for name in before) == 1
    assert {space.smallest(), space.largest()} <= set(space.anchors())
