"""NAS-BERT: the supernet."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from methods.backbone import BERT_BASE
from methods.errors import UserError
from methods.nasbert.encoding import from_short
from methods.nasbert.networks import teacher_spec
from methods.nasbert.plan import supernet_parameters
from methods.nasbert.space import NasBertSpace
from methods.nasbert.supernet import NasBertSupernet
from methods.network import Network
from methods.supernet import inputs
from methods.tasks.head import Head
from tests.methods.nasbert_cases import CLASSES, PAPER, TINY, ragged_batch, random_supernet, scramble, small_space


@pytest.mark.parametrize("head", [CLASSES, Head("regression"), Head("span"), Head("mlm"), Head("none")], ids=lambda h: h.kind)
def test_extracted_network_is_the_supernet(head: Head) -> None:
    supernet, batch, rng = random_supernet(small_space(), head), ragged_batch(), random.Random(0)
    with torch.no_grad():
        for architecture in [supernet.space.smallest(), supernet.space.largest(), *(supernet.space.sample(rng) for _ in range(6))]:
            network, expected = supernet.extract(architecture), supernet(batch, architecture)
            output = network(**inputs(batch))
            assert output.keys() == expected.keys() and len(output.hidden_states) == len(expected.hidden_states)
            for name in ("logits", "start_logits", "end_logits", "last_hidden_state"):
                if name in output:
                    torch.testing.assert_close(output[name], expected[name], rtol=1e-5, atol=1e-5)
            for state, other in zip(output.hidden_states, expected.hidden_states, strict=True):
                torch.testing.assert_close(state, other, rtol=1e-5, atol=1e-5)


def test_links_are_in_after_out() -> None:
    """The whole path once more as a chain of blocks over the teacher's width."""
    supernet, batch = random_supernet(small_space()).double(), ragged_batch()
    mask = batch["attention_mask"]
    with torch.no_grad():
        for name in ("E8|8:M.F|16:S3.M", "E8|16:S5|16:F", "E16|16:F.M|8:M.S3"):
            architecture = from_short(name)
            state = supernet.stem(batch["input_ids"], mask, batch["token_type_ids"])
            for n, block in enumerate(architecture.choices["blocks"]):
                state = supernet.block_forward(n, (block["hidden"], block["ops"]), state, mask)
            expected = supernet(batch, architecture)
            torch.testing.assert_close(state, expected.hidden_states[-1], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(supernet.head((state,), mask), expected.logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", ["M", "F", "S3", "S5", "M.S3", "S5.F", "F.M"])
def test_padding_changes_nothing(path: str) -> None:
    space = small_space()
    architecture, batch = from_short(f"E8|8:{path}|16:{path}"), ragged_batch()
    longer = {name: torch.nn.functional.pad(tensor, (0, 7)) for name, tensor in batch.items()}
    supernet = random_supernet(space, Head("mlm"))
    deployed = Network(space.spec(architecture, TINY, Head("mlm")))
    scramble(deployed, 1)
    tokens = batch["attention_mask"].bool()
    with torch.no_grad():
        pairs = [(supernet(b, architecture), deployed.eval()(**inputs(b))) for b in (batch, longer)]
    for short, long in zip(*pairs, strict=True):
        torch.testing.assert_close(long.logits[:, :9][tokens], short.logits[tokens], rtol=1e-4, atol=1e-5)


def test_every_path_has_outputs_of_its_own() -> None:
    supernet, batch = random_supernet(small_space(embedding_sizes=(8,))), ragged_batch()
    architectures = list(supernet.space.enumerate())[::23]
    with torch.no_grad():
        logits = torch.stack([supernet(batch, a).logits.flatten() for a in architectures])
    distances = torch.cdist(logits, logits) + torch.eye(len(logits))
    assert distances.min() > 1e-4


def test_embedding_size_belongs_to_the_deployed_form_alone() -> None:
    supernet, batch = random_supernet(small_space()), ragged_batch()
    assert supernet.space.deployed_only == {"embedding"}
    first, second = (supernet(batch, from_short(f"E{e}|8:M|16:F")).logits for e in (8, 16))
    assert torch.equal(first, second)


def test_gradients_reach_the_active_path_alone() -> None:
    supernet, architecture = NasBertSupernet(small_space(), TINY, CLASSES), from_short("E8|8:M.S3|16:F")
    output = supernet({**ragged_batch()}, architecture)
    (output.logits * torch.tensor([1.0, -2.0])).sum().backward()
    used = supernet.parameters_of(architecture)
    assert set(used) < {name for name, _ in supernet.named_parameters()}
    for name, parameter in supernet.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) if name in used else parameter.grad is None, name
    assert "operations.0.1.8.S3.0.depthwise.weight" in used and "out.1.16.weight" in used and "into.1.8.weight" not in used


@pytest.mark.parametrize("hidden", [8, 16])
def test_blocks_answer_in_the_width_of_the_teacher(hidden: int) -> None:
    supernet, mask = random_supernet(small_space()), ragged_batch()["attention_mask"]
    state = torch.randn(*mask.shape, TINY.hidden)
    output = supernet.block_forward(1, (hidden, ["S3", "M"]), state, mask)
    assert output.shape == state.shape and not output[~mask.bool()].any()
    noisy = torch.where(mask[..., None].bool(), state, state + 5)
    torch.testing.assert_close(supernet.block_forward(1, (hidden, ["S3", "M"]), noisy, mask)[mask.bool()], output[mask.bool()])


@pytest.mark.parametrize("head", [CLASSES, Head("mlm")], ids=lambda h: h.kind)
def test_teacher_gives_stem_and_head(head: Head) -> None:
    teacher, supernet = Network(teacher_spec(TINY, head)), random_supernet(small_space(), head)
    scramble(teacher, 5)
    supernet.load_teacher(teacher)
    assert all(torch.equal(tensor, supernet.stem.state_dict()[name]) for name, tensor in teacher.stem.state_dict().items())
    assert all(torch.equal(tensor, supernet.head.state_dict()[name]) for name, tensor in teacher.head.state_dict().items())
    with pytest.raises(UserError, match="teacher's stem or head does not fit"):
        supernet.load_teacher(Network(teacher_spec(TINY, Head("classification", 5))))


def test_save_and_load(tmp_path: Path) -> None:
    first, second, batch = random_supernet(small_space(), seed=1), random_supernet(small_space(), seed=2), ragged_batch()
    architecture = first.space.largest()
    assert not torch.equal(first(batch, architecture).logits, second(batch, architecture).logits)
    first.save(tmp_path / "weights.safetensors")
    second.load(tmp_path / "weights.safetensors")
    assert torch.equal(first(batch, architecture).logits, second(batch, architecture).logits)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    space = NasBertSpace(sublayers=2, blocks=1, hidden_sizes=(128,), operations=("M", "F", "S5"), embedding_sizes=(64,))
    supernet = NasBertSupernet(space, replace(TINY, hidden=96), CLASSES)
    deviations = {name: float(p.detach().std()) for name, p in supernet.named_parameters() if p.ndim > 1}
    stage = "operations.0.0.128.S5.0"
    for name, expected in {
        "into.0.128.weight": 0.02,
        "operations.0.0.128.F.output.weight": 0.02,
        "operations.0.0.128.M.query.weight": (0.5 * 2 / 256) ** 0.5,
        "operations.0.0.128.M.output.weight": (2 / 256) ** 0.5,
        f"{stage}.pointwise.weight": (4 * 0.9 / (5 * 128)) ** 0.5,
        f"{stage}.depthwise.weight": (4 * 0.9 / (5 * 128)) ** 0.5,
    }.items():
        assert deviations[name] == pytest.approx(expected, rel=0.1), name
    assert not supernet.stem.word.weight[TINY.padding_id].any()
    assert not any(p.any() for name, p in supernet.named_parameters() if name.endswith("bias"))


def test_papers_supernet_on_the_meta_device() -> None:
    with torch.device("meta"):
        supernet = NasBertSupernet(PAPER, BERT_BASE, CLASSES)
    assert sum(p.numel() for p in supernet.parameters()) == supernet_parameters(PAPER, BERT_BASE, CLASSES)
