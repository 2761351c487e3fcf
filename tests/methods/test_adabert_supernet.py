"""AdaBERT's supernet under every option, relaxed and folded forms, derivation."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from methods import UserError
from methods.adabert.derivation import derive
from methods.adabert.folding import fold
from methods.adabert.options import SpaceOptions
from methods.adabert.relaxation import Relaxation, one_hot, relaxed
from methods.adabert.space import AdaBertSpace
from methods.adabert.supernet import AdaBertSupernet
from methods.backbone import BERT_BASE
from methods.costs import costs
from methods.dynabert.space import full_spec
from methods.layers.operations import MaskedBatchNorm
from methods.network import Network
from methods.supernet import inputs
from methods.tasks.head import Head
from tests.conformance.cases import TINY
from tests.methods.adabert_cases import FEW, PAIR, SINGLE, SMALL, batch_of, supernet_of


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
