"""DynaBERT's steps against the released code's loop, which looks words up and runs the teacher for every sub-network anew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.dynabert_step import gradient_of, reference_step
from benchmarks.setting import padded
from methods.dynabert.space import DynaBertSpace
from methods.dynabert.step import DistillationStep, TaskStep
from methods.dynabert.supernet import DynaBertSupernet
from methods.network import task_loss
from methods.tasks.head import Head
from tests.conformance.cases import TINY, Case, randomise

HEADS = {"classification": Head("classification", 2), "mlm": Head("mlm")}


def supernet(seed: int, head: str = "classification") -> DynaBertSupernet:
    torch.manual_seed(seed)
    net = DynaBertSupernet(DynaBertSpace(TINY), TINY, HEADS[head])
    randomise(net, seed)
    return net


def batch() -> dict[str, Tensor]:
    return {**Case("", "dynabert").batch(), "labels": torch.tensor([0, 1, 1, 0])}


def test_a_distillation_step_leaves_the_gradients_of_the_released_loop() -> None:
    student, teacher, x = supernet(1).train(), supernet(2).eval(), padded(batch(), 20)
    assert x["input_ids"].shape == (4, 20)
    step = DistillationStep(student, teacher, tuple(student.space.enumerate()), 1.0, 1.0, padded=True)  # type: ignore[arg-type]
    found = gradient_of(student, lambda: step(x, lambda loss: loss.backward()))
    expected = gradient_of(student, lambda: reference_step(student, teacher, x))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_words_looked_up_once_change_no_gradient(head: str) -> None:
    """The word table's gradient is made after the last sub-network's; as a tied decoder the table has one of its own besides."""
    net, x = supernet(3, head), batch()
    x["labels"] = x["input_ids"] if head == "mlm" else x["labels"]
    every = tuple(net.space.enumerate())[:4]

    def one_by_one() -> None:
        for architecture in every:
            task_loss(net.head_kind, net(x, architecture)["logits"], x["labels"]).backward()

    found = gradient_of(net, lambda: TaskStep(net, every)(x, lambda loss: loss.backward()))
    torch.testing.assert_close(found, gradient_of(net, one_by_one), rtol=1e-4, atol=1e-5)
    assert net.stem.word.weight.grad is not None and net.stem.word.weight.grad.any()
