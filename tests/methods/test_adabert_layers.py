"""AdaBERT's operations, encoder and head, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from methods.adabert.options import OPERATIONS, SpaceOptions
from methods.adabert.space import operation_part
from methods.layers.cell import LayerAttentionHead, run_cells
from methods.layers.operations import CellConvolution, CellPool, MaskedBatchNorm
from methods.supernet import inputs
from tests.conformance.cases import randomise
from tests.methods.adabert_cases import batch_of, supernet_of


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
