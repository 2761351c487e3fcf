"""The deployed network with the supernet's weights: what is exact is equal, what is not is the nearest that there is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from methods.errors import UserError
from methods.layers.encoder import LinkModule
from methods.nasbert.encoding import from_short
from methods.nasbert.inherit import inherit, inherit_with_out, leading_directions
from methods.nasbert.networks import operation
from methods.nasbert.rotation import Affine, nearest_rotation, turn
from methods.nasbert.supernet import NasBertSupernet
from methods.space import Architecture
from methods.tasks.head import Head
from tests.methods.nasbert_cases import TINY, few, ragged_batch, random_supernet, scramble, small_space

MLM = Head("mlm")
SPACE = small_space(sublayers=6, blocks=3, embedding_sizes=(8, 10, 16, 24, 32), hidden_sizes=(8, 16, 24))


def plain_batch() -> dict[str, Tensor]:
    """Without token types, which the deployed form does not read."""
    return {name: tensor for name, tensor in ragged_batch().items() if name != "token_type_ids"}


def hosted_and_inherited(supernet: NasBertSupernet, architecture: Architecture) -> tuple[Tensor, Tensor]:
    """Logits at tokens."""
    batch = plain_batch()
    tokens = batch["attention_mask"].bool()
    with torch.no_grad():
        return supernet(batch, architecture).logits[tokens], inherit(supernet, architecture, MLM)(**batch).logits[tokens]


def random_rotation(size: int, seed: int) -> Tensor:
    return nearest_rotation(torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


@torch.no_grad()
def set_border(supernet: NasBertSupernet, block: int, hidden: int, weight: Tensor) -> None:
    """Makes In(Out(x)) before `block` weight x + a random shift."""
    out, into = supernet.map_of("out", block - 1, hidden), supernet.map_of("into", block, hidden)
    out.weight.copy_(torch.eye(TINY.hidden, hidden))
    into.weight[:, :hidden] = weight.float()


@pytest.mark.parametrize("name", ["E24|8:M.F|16:S3.M|8:F", "E24|16:S5|8:M|24:F.M", "E24|8:S3|24:M|16:S5.F"])
def test_with_the_teachers_embedding_and_links_everywhere_it_is_the_hosted_network(name: str) -> None:
    expected, found = hosted_and_inherited(random_supernet(SPACE, MLM), from_short(name))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["E24|8:M.F|8:S3.M|8:F", "E24|16:S5|8:M|8:F.M", "E24|24:F|24:M.S3|8:M", "E24|8:M|8:F|16:S3"])
def test_borders_that_swap_features_need_no_link(name: str) -> None:
    """A permutation with a scale and a shift is worked in exactly, convolutions and unequal gains included."""
    supernet, architecture = random_supernet(SPACE, MLM), from_short(name)
    hidden = [block["hidden"] for block in architecture.choices["blocks"]]
    for block in (1, 2):
        if hidden[block - 1] == hidden[block]:
            order = torch.randperm(hidden[block], generator=torch.Generator().manual_seed(block))
            set_border(supernet, block, hidden[block], 0.7 * torch.eye(hidden[block])[order])
    if hidden[0] == TINY.hidden:
        with torch.no_grad():
            supernet.map_of("into", 0, hidden[0]).weight.copy_(1.3 * torch.eye(TINY.hidden).roll(5, 0))
    expected, found = hosted_and_inherited(supernet, architecture)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_borders_that_rotate_need_no_link_where_gains_are_equal() -> None:
    supernet, architecture = random_supernet(SPACE, MLM), from_short("E24|8:S3|8:M.F|8:F.M")
    with torch.no_grad():
        for part in supernet.operations[1:].modules():
            if isinstance(part, nn.LayerNorm):
                part.weight.fill_(1.2)
    for block in (1, 2):
        set_border(supernet, block, 8, 0.8 * random_rotation(8, block))
    expected, found = hosted_and_inherited(supernet, architecture)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_map_to_the_teachers_width_is_in_the_networks_basis() -> None:
    supernet, architecture = random_supernet(SPACE, MLM), from_short("E24|16:M|8:S3|8:F")
    set_border(supernet, 2, 8, 0.7 * torch.eye(8).roll(3, 0))
    network, out = inherit_with_out(supernet, architecture, MLM)
    wide, batch = LinkModule(8, TINY.hidden), plain_batch()
    out.write(wide)
    with torch.no_grad():
        found = wide(network(**batch).hidden_states[-1], batch["attention_mask"])
        torch.testing.assert_close(found, supernet.encode(batch, architecture)[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("embedding", [10, 16])
def test_a_narrow_embedding_loses_minor_directions_alone(embedding: int) -> None:
    """Tables that have no more directions than fit come through exactly."""
    supernet = _with_few_directions(embedding - 1)
    batch = plain_batch()
    network = inherit(supernet, from_short(f"E{embedding}|8:M|16:F|8:F"), MLM)
    mask = batch["attention_mask"]
    with torch.no_grad():
        expected = supernet.map_of("into", 0, 8)(supernet.stem(batch["input_ids"], mask), mask)
        torch.testing.assert_close(network.stem(batch["input_ids"], mask), expected, rtol=1e-4, atol=1e-4)
    minor = inherit(_with_few_directions(20), from_short(f"E{embedding}|8:M|16:F|8:F"), MLM)
    with torch.no_grad():
        expected = supernet.map_of("into", 0, 8)(_with_few_directions(20).stem(batch["input_ids"], mask), mask)
        assert (minor.stem(batch["input_ids"], mask) - expected).abs().max() > 1e-2


def test_an_embedding_as_wide_as_the_first_block_is_turned_to_it() -> None:
    supernet = _with_few_directions(7)
    with torch.no_grad():
        supernet.stem.norm_before.weight.fill_(1.0)
        into = 0.6 * random_rotation(8, 4) @ leading_directions(supernet.stem, 8)
        supernet.map_of("into", 0, 8).weight.copy_(into)
    network, batch = inherit(supernet, from_short("E8|8:S3|16:F|8:F"), MLM), plain_batch()
    mask = batch["attention_mask"]
    assert network.stem.projection is None
    with torch.no_grad():
        expected = supernet.map_of("into", 0, 8)(supernet.stem(batch["input_ids"], mask), mask)
        torch.testing.assert_close(network.stem(batch["input_ids"], mask), expected, rtol=1e-4, atol=1e-4)


def test_a_narrow_output_layer_likes_the_same_words() -> None:
    supernet, batch = random_supernet(SPACE, MLM), plain_batch()
    tokens = batch["attention_mask"].bool()
    with torch.no_grad():
        expected = supernet(batch, from_short("E24|8:M|16:F|8:F")).logits[tokens]
        alike = []
        for embedding in (8, 16):
            found = inherit(supernet, from_short(f"E{embedding}|8:M|16:F|8:F"), MLM)(**batch).logits[tokens]
            alike.append(
                float(torch.corrcoef(torch.stack([(found - found.mean(0)).flatten(), (expected - expected.mean(0)).flatten()]))[0, 1])
            )
    assert alike[1] > 0.5 and alike[1] > alike[0]


def _with_few_directions(directions: int) -> NasBertSupernet:
    """A random supernet whose stem's tables, once centred, have so many directions."""
    supernet = random_supernet(SPACE, MLM)
    generator = torch.Generator().manual_seed(7)
    shared = torch.randn(directions, TINY.hidden, generator=generator)
    shared -= shared.mean(1, keepdim=True)
    with torch.no_grad():
        for table in (supernet.stem.word, supernet.stem.position, supernet.stem.token_type):
            coefficients, means = torch.randn(len(table.weight), directions, generator=generator), torch.randn(len(table.weight), 1)
            table.weight.copy_(coefficients @ shared + means)
    return supernet.eval()


def test_a_wider_embedding_than_the_teachers_is_refused() -> None:
    with pytest.raises(UserError, match=r"embedding_sizes: 32 is wider than the teacher's embedding \(24\)"):
        inherit(random_supernet(SPACE, MLM), from_short("E32|8:M|8:M|8:M"), MLM)


@few
@given(st.integers(2, 9), st.floats(0.1, 3), st.integers(0, 10**6))
def test_the_nearest_rotation(size: int, scale: float, seed: int) -> None:
    rotation = random_rotation(size, seed)
    one = torch.ones(size, dtype=torch.float64)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(size, dtype=torch.float64))
    torch.testing.assert_close(rotation @ one, one)
    found, factor = nearest_rotation(scale * rotation)
    torch.testing.assert_close(found, rotation)
    assert factor == pytest.approx(scale)
    weight = torch.randn(size, size, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    nearest, factor = nearest_rotation(weight)
    rest = torch.eye(size, dtype=torch.float64) - 1 / size
    best = (rest @ (weight - factor * nearest) @ rest).norm()
    for other in (rotation, random_rotation(size, seed + 2), torch.eye(size, dtype=torch.float64)):
        for share in (0.5, 1, 2):
            assert best <= (rest @ (weight - share * factor * other) @ rest).norm() + 1e-9
    assert best <= (rest @ (weight - 0.9 * factor * nearest) @ rest).norm()


@pytest.mark.parametrize("name", ["M", "F", "S3"])
def test_turned_operations_answer_in_the_turned_basis(name: str) -> None:
    part = operation(name, 8, 1e-12, SPACE.settings)
    mask = plain_batch()["attention_mask"]
    x = torch.randn(*mask.shape, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * mask[..., None]
    exact = [torch.eye(8, dtype=torch.float64), torch.eye(8, dtype=torch.float64).roll(3, 0)]
    for rotation in [*exact, *([] if name == "S3" else [random_rotation(8, 3)])]:
        module, turned = part.build().double().eval(), part.build().double().eval()
        scramble(module, 2)
        if rotation is not exact[0] and rotation is not exact[1]:
            module.norm.weight.data.fill_(0.9)
        turned.load_state_dict(module.state_dict())
        turn(turned, rotation)
        with torch.no_grad():
            expected = module(x @ rotation.T, mask) @ rotation
            torch.testing.assert_close((turned(x, mask) * mask[..., None]), expected * mask[..., None], rtol=1e-6, atol=1e-6)


def test_affine_maps_follow_one_another() -> None:
    first, second = nn.Linear(3, 4), nn.Linear(4, 5)
    both, x = nn.Linear(3, 5), torch.randn(2, 3)
    Affine.of(second).after(Affine.of(first)).write(both)
    torch.testing.assert_close(both(x), second(first(x)))
