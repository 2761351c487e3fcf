"""The laws that every supernet satisfies (docs/design.md): one battery, run on every case."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from methods.costs import costs
from methods.network import Network, NetworkSpec, load_network, save_network
from methods.space import Architecture
from methods.supernet import Supernet, inputs
from tests.apart import printed_apart
from tests.conformance.cases import CASES, Case, architectures, randomise

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
few = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def scores(output: object, mask: Tensor) -> Tensor:
    """The numbers that a network answers with, at tokens alone where it answers per token."""
    answer = output["logits"] if "logits" in output else output["start_logits"] + 2 * output["end_logits"]  # type: ignore[index,operator]
    return answer[mask.bool()] if answer.shape[:2] == mask.shape else answer


def run(model: Supernet | Network, batch: dict[str, Tensor], architecture: Architecture | None = None) -> Tensor:
    output = model(batch, architecture) if architecture is not None else model(**inputs(batch))
    return scores(output, batch["attention_mask"])


def assignments(case: Case) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({c.name: st.sampled_from(c.values) for c in case.space().choices})


@every_case
def test_law_1_extracted_network_is_the_supernet(case: Case) -> None:
    supernet, batch = case.supernet(), case.batch()
    with torch.no_grad():
        for architecture in architectures(supernet.space, 6):
            expected = run(supernet, batch, architecture)
            extracted = supernet.extract(architecture)
            torch.testing.assert_close(run(extracted, batch), expected, rtol=1e-5, atol=1e-5)
            shared = {p.data_ptr() for p in supernet.parameters()} & {p.data_ptr() for p in extracted.parameters()}
            assert not shared, "the extracted network shares memory with the supernet"


@every_case
def test_law_1_logits_alone_are_the_same_logits(case: Case) -> None:
    supernet, batch = case.supernet(), case.batch()
    with torch.no_grad():
        for architecture in architectures(supernet.space, 6):
            alone = scores(supernet.forward_logits(batch, architecture), batch["attention_mask"])
            torch.testing.assert_close(alone, run(supernet, batch, architecture), rtol=1e-5, atol=1e-5)


@every_case
def test_law_1_padding_changes_no_logit(case: Case) -> None:
    supernet, batch = case.supernet(), case.batch()
    padded = {name: torch.nn.functional.pad(tensor, (0, 7)) for name, tensor in batch.items()}
    with torch.no_grad():
        for architecture in architectures(supernet.space, 6):
            torch.testing.assert_close(run(supernet, padded, architecture), run(supernet, batch, architecture), rtol=1e-5, atol=1e-5)


@every_case
def test_law_2_parameters_are_exact(case: Case) -> None:
    supernet = case.supernet()
    for architecture in architectures(supernet.space, 6):
        for network in (supernet.extract(architecture), Network(supernet.spec(architecture, "deployed"))):
            cost = costs(network.spec)
            assert cost.parameters == sum(p.numel() for p in network.parameters())
            tables = [network.stem.word, network.stem.position, network.stem.token_type]
            assert cost.embedding_parameters == sum(table.weight.numel() for table in tables if table is not None)


@every_case
@pytest.mark.parametrize("form", ["hosted", "deployed"])
def test_law_3_flops_are_exact(case: Case, form: str) -> None:
    supernet, batch = case.supernet(), case.batch(length=13)
    for architecture in architectures(supernet.space, 4):
        network = Network(supernet.spec(architecture, form)).eval()  # type: ignore[arg-type]
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network(**inputs(batch))
        assert counter.get_total_flops() == costs(network.spec, length=13, batch=4).flops


@every_case
def test_law_4_json_round_trips(case: Case) -> None:
    space = case.space()
    for architecture in architectures(space, 20):
        assert Architecture.from_json(architecture.to_json()) == architecture
        assert Architecture.from_json(architecture.to_json()).id == architecture.id
        assert space.decode(space.encode(architecture)) == architecture
        for form in ("hosted", "deployed"):
            spec = space.spec(architecture, case.backbone, case.head, form)  # type: ignore[arg-type]
            assert NetworkSpec.from_dict(spec.to_dict()) == spec


@every_case
@given(data=st.data())
@few
def test_law_4_every_assignment_is_an_architecture(case: Case, data: st.DataObject) -> None:
    space = case.space()
    architecture = space.decode(data.draw(assignments(case)))  # type: ignore[arg-type]
    assert space.contains(architecture)
    assert space.decode(space.encode(architecture)) == architecture
    assert space.contains(space.mutate(architecture, random.Random(0)))


def test_law_4_ids_are_those_of_another_process() -> None:
    ids = [[a.id for a in architectures(case.space(), 5)] for case in CASES]
    code = (
        "from tests.conformance.cases import CASES, architectures\n"
        "print([[a.id for a in architectures(case.space(), 5)] for case in CASES])"
    )
    assert eval(printed_apart(code)) == ids


@every_case
def test_law_4_size_counts_the_enumeration(case: Case) -> None:
    space = case.space()
    if space.size() > 5000:
        sampled = {space.sample(random.Random(i)) for i in range(50)}
        assert len(sampled) > 40
        return
    listed = list(space.enumerate())
    assert len(listed) == len(set(listed)) == space.size()


@every_case
def test_law_5_gradients_stay_inside_the_architecture(case: Case) -> None:
    for seed, architecture in enumerate(architectures(case.space(), 4)):
        supernet, batch = case.supernet(seed).train(), case.batch()
        before = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
        answer = run(supernet, batch, architecture)
        (answer * torch.randn(answer.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
        used = supernet.parameters_of(architecture)
        chosen = {id(p) for p in supernet.architecture_parameters()}
        for name, parameter in supernet.named_parameters():
            if name not in used:
                assert parameter.grad is None or not parameter.grad.any() or id(parameter) in chosen, (
                    f"{name} is outside and has a gradient"
                )
                continue
            assert parameter.grad is not None and parameter.grad[used[name]].any(), f"{name} is used and has no gradient"
            outside = parameter.grad.clone()
            outside[used[name]] = 0
            assert not outside.any(), f"{name} has a gradient outside its region"
        owners = {name.rpartition(".")[0] for name in used}
        for name, buffer in supernet.named_buffers():
            if name.rpartition(".")[0] not in owners:
                assert torch.equal(buffer, before[name]), f"{name} belongs to no selected operation and changed"


@every_case
def test_law_6_saved_and_loaded_are_bit_equal(case: Case, tmp_path: Path) -> None:
    supernet, other, batch = case.supernet(1), case.supernet(2), case.batch()
    supernet.save(tmp_path / "supernet.safetensors")
    other.load(tmp_path / "supernet.safetensors")
    with torch.no_grad():
        for i, architecture in enumerate(architectures(supernet.space, 3)):
            assert torch.equal(run(other, batch, architecture), run(supernet, batch, architecture))
            extracted, deployed = supernet.extract(architecture), Network(supernet.spec(architecture, "deployed")).eval()
            randomise(deployed, i)
            for j, network in enumerate((extracted, deployed)):
                save_network(network, tmp_path / f"{i}-{j}")
                assert torch.equal(run(load_network(tmp_path / f"{i}-{j}"), batch), run(network, batch))


@every_case
@given(data=st.data())
@few
def test_law_7_costs_grow_along_monotone_choices(case: Case, data: st.DataObject) -> None:
    space = case.space()
    start = data.draw(assignments(case))
    for choice in (c for c in space.choices if c.monotone):
        row = [space.decode({**start, choice.name: value}) for value in choice.values]  # type: ignore[dict-item]
        found = [costs(space.spec(a, case.backbone, case.head)) for a in row]
        for lower, higher in itertools.pairwise(found):
            assert lower.parameters <= higher.parameters and lower.flops <= higher.flops


@every_case
def test_law_7_smallest_and_largest_bound_the_space(case: Case) -> None:
    space = case.space()
    low, high = (costs(space.spec(a, case.backbone, case.head)) for a in (space.smallest(), space.largest()))
    for architecture in architectures(space, 200):
        cost = costs(space.spec(architecture, case.backbone, case.head))
        assert low.parameters <= cost.parameters <= high.parameters
        assert low.other_parameters <= cost.other_parameters <= high.other_parameters
        assert low.flops <= cost.flops


@every_case
def test_batch_costs_are_the_costs(case: Case) -> None:
    space, rng = case.space(), random.Random(5)
    drawn = [{c.name: rng.randrange(len(c.values)) for c in space.choices} for _ in range(100)]
    columns = {c.name: np.array([d[c.name] for d in drawn]) for c in space.choices}
    table = space.batch_costs(columns, case.backbone, case.head, length=32, batch=2)
    for i, place in enumerate(drawn):
        architecture = space.decode({c.name: c.values[place[c.name]] for c in space.choices})
        assert table[i] == costs(space.spec(architecture, case.backbone, case.head), length=32, batch=2)


@pytest.mark.parametrize("form", ["hosted", "deployed"])
@pytest.mark.parametrize("case", [case for case in CASES if case.certain], ids=lambda case: case.name)
def test_law_8_without_doubt_the_expected_cost_is_the_cost(case: Case, form: str) -> None:
    supernet: Any = case.supernet()
    for architecture in architectures(supernet.space, 6):
        expected = supernet.expected_costs(case.certain(supernet.space, architecture), length=16, form=form)  # type: ignore[misc]
        exact = costs(supernet.spec(architecture, form), length=16)
        for name in ("embedding_parameters", "other_parameters", "flops"):
            assert float(getattr(expected, name)) == pytest.approx(getattr(exact, name), rel=1e-9)


@every_case
def test_law_8_whoever_has_architecture_parameters_is_under_it(case: Case) -> None:
    assert bool(case.supernet().architecture_parameters()) == bool(case.certain)


@every_case
def test_law_9_every_knob_changes_the_logits(case: Case) -> None:
    supernet, batch, rng = case.supernet(), case.batch(), random.Random(1)
    space = supernet.space
    with torch.no_grad():
        for choice in space.choices:
            if len(choice.values) < 2:
                continue
            for _ in range(200):
                start = {c.name: rng.choice(c.values) for c in space.choices}
                pair = [space.decode({**start, choice.name: value}) for value in rng.sample(choice.values, 2)]
                if pair[0] != pair[1]:
                    break
            assert pair[0] != pair[1], f"{choice.name} never changes the architecture"
            if choice.name in space.deployed_only:
                assert costs(supernet.spec(pair[0], "deployed")) != costs(supernet.spec(pair[1], "deployed"))
                continue
            first, second = (run(supernet, batch, architecture) for architecture in pair)
            assert not torch.allclose(first, second, atol=1e-6), f"{choice.name} changes no logit"


@every_case
def test_law_9_different_architectures_are_different_networks(case: Case) -> None:
    """Genes of dropped layers do not exist: no two ids share one network."""
    space = case.space()
    found: dict[str, str] = {}
    for architecture in architectures(space, 100):
        forms = [space.spec(architecture, case.backbone, case.head, form).to_dict() for form in ("hosted", "deployed")]  # type: ignore[arg-type]
        assert found.setdefault(json.dumps(forms), architecture.id) == architecture.id
