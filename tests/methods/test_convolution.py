"""The separable convolution of NAS-BERT."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from methods.layers.convolution import SeparableConvolution, SeparableConvolutionModule
from methods.layers.part import part_from_dict


def built(part: SeparableConvolution, seed: int = 0) -> SeparableConvolutionModule:
    """Every parameter random, biases and norm gains too; eval mode."""
    module, generator = part.build(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module.eval()


def test_costs_by_hand() -> None:
    """h = 192, k = 5: a stage has 960 + 192 depthwise, 36,864 + 192 pointwise and 384 norm parameters; 2 FLOPs per multiply-add."""
    part = SeparableConvolution(192, 5)
    assert part.other_parameters() == 2 * (960 + 192 + 36_864 + 192 + 384)
    assert part.flops(10) == 2 * 2 * 10 * (192 * 5 + 192 * 192)


@given(hidden=st.integers(1, 24), kernel=st.sampled_from([1, 3, 5, 7, 9]), length=st.integers(1, 12), batch=st.integers(1, 3))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_costs_are_those_of_the_module(hidden: int, kernel: int, length: int, batch: int) -> None:
    part = SeparableConvolution(hidden, kernel)
    module = built(part)
    assert part.other_parameters() == sum(p.numel() for p in module.parameters())
    assert part.other_parameters() == 2 * hidden**2 + (2 * kernel + 8) * hidden
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = module(torch.randn(batch, length, hidden), torch.ones(batch, length))
    assert output.shape == (batch, length, hidden)
    assert counter.get_total_flops() == batch * part.flops(length)


def test_two_stages_written_out() -> None:
    module, states = built(SeparableConvolution(6, 3)), torch.randn(2, 5, 6)
    expected = states
    for stage in module:
        windows = F.pad(expected, (0, 0, 1, 1)).unfold(1, 3, 1)
        depthwise = (windows * stage.depthwise.weight[:, 0]).sum(-1) + stage.depthwise.bias
        mixed = F.gelu(depthwise @ stage.pointwise.weight.T + stage.pointwise.bias)
        expected = F.layer_norm(expected + mixed, (6,), stage.norm.weight, stage.norm.bias, 1e-12)
    torch.testing.assert_close(module(states, torch.ones(2, 5)), expected, rtol=1e-5, atol=1e-5)


def test_padding_neither_enters_nor_leaves() -> None:
    module, mask = built(SeparableConvolution(8, 5)), torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]])
    states = torch.randn(2, 6, 8)
    output = module(states, mask)
    other = module(torch.where(mask[..., None].bool(), states, torch.full_like(states, 7.0)), mask)
    assert torch.equal(output, other), "what stands at padded positions changes the output"
    assert not output[~mask.bool()].any()
    alone = module(states[1:, :2], torch.ones(1, 2))
    torch.testing.assert_close(output[1:, :2], alone, rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_alone() -> None:
    module, mask, states = built(SeparableConvolution(8, 3, dropout=0.5)), torch.ones(1, 4), torch.randn(1, 4, 8)
    assert torch.equal(module(states, mask), module(states, mask))
    module.train()
    assert not torch.equal(module(states, mask), module(states, mask))


@pytest.mark.parametrize("kernel", [3, 7])
def test_json(kernel: int) -> None:
    part = SeparableConvolution(16, kernel, 0.1)
    assert part_from_dict(part.to_dict()) == part
