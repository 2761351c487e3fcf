"""ONNX files give torch's logits for every method, at shapes that they were not traced with; with weights of 8 bit nearly so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from methods.errors import UserError
from methods.network import Network
from methods.onnx import graph
from methods.onnx.comparison import SHAPES, TOLERANCE, check_against_torch, difference, ragged
from methods.onnx.graph import EXAMPLE, input_names, output_names, write_graph, write_network
from methods.onnx.quantisation import quantise
from methods.onnx.runtime import OnnxNetwork, in_batches_of
from methods.tasks.head import Head
from tests.conformance.cases import ADABERT, NASBERT, ROBERTA, TINY, Case, randomise

SMALL, LARGE = replace(TINY, layers=1), replace(ROBERTA, layers=1)
POOLED = {**ADABERT, "cells": 1, "operations": ["max_pool_3", "average_pool_3", "conv_3", "dilated_conv_3"]}
CASES = [
    Case("dynabert", "dynabert", {"widths": [0.5, 1.0], "depths": [1.0]}, backbone=SMALL),
    Case("dynabert-roberta-span", "dynabert", {"widths": [0.5, 1.0], "depths": [1.0]}, head=Head("span"), backbone=LARGE),
    Case("nasbert", "nasbert", {**NASBERT, "sublayers": 3}),
    Case("adabert-pair", "adabert", POOLED, head=Head("classification", 2, pair=True), apart=True),
]
FILES: dict[str, tuple[Network, Path]] = {}


def deployed(case: Case) -> Network:
    """The largest architecture as it ships, every parameter and buffer random."""
    space = case.space()
    network = Network(space.spec(space.largest(), case.backbone, case.head)).eval()
    randomise(network, 1)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


def exported(case: Case, folder: Path) -> tuple[Network, Path]:
    """Written once for all tests of this file."""
    if case.name not in FILES:
        network = deployed(case)
        write_network(network, folder / f"{case.name}.onnx")
        FILES[case.name] = network, folder / f"{case.name}.onnx"
    return FILES[case.name]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_gives_torchs_logits_at_any_shape(case: Case, folder: Path) -> None:
    network, path = exported(case, folder)
    assert check_against_torch(network, path) <= TOLERANCE
    runs, generator = OnnxNetwork(path), torch.Generator().manual_seed(7)
    assert tuple(runs.inputs) == input_names(network.spec) and tuple(runs.outputs) == output_names(network.spec)
    assert sorted(path.parent.glob(f"{path.name}*")) == [path]
    for batch in range(1, 6):
        for length in (3, EXAMPLE[1] + 1, 24, network.spec.stem.positions):
            inputs = ragged(network, batch, length, generator)
            with torch.inference_mode():
                mine = network(**inputs)["logits"]
            numbers = mine.abs() < 1e30
            assert (mine - runs(inputs)["logits"])[numbers].abs().max() <= TOLERANCE * mine[numbers].abs().max()


def test_the_comparison_sees_ragged_batches_of_other_shapes() -> None:
    """More than one batch size and length, none of them the one that is traced; texts of a batch differ in length."""
    assert len({batch for batch, _ in SHAPES}) > 3 and len({length for _, length in SHAPES}) > 3 and EXAMPLE not in SHAPES
    made = ragged(deployed(CASES[3]), 4, 9, torch.Generator().manual_seed(0))
    lengths = made["attention_mask"].sum(1)
    assert lengths[0] == 9 and lengths.min() < 9 and made["attention_mask_b"].sum(1)[-1] == 9
    assert not torch.equal(made["attention_mask"], made["attention_mask_b"])


def test_a_graph_of_one_shape_or_other_weights_is_refused(folder: Path) -> None:
    import onnx

    network, path = exported(CASES[0], folder)
    fixed = onnx.load(path)
    for value in fixed.graph.input:
        value.type.tensor_type.shape.dim[1].dim_value = EXAMPLE[1]
    onnx.save(fixed, folder / "fixed.onnx")
    with pytest.raises(UserError, match=r"fixed.onnx: does not run on 1 x 2 tokens .*Got: 2 Expected: 7"):
        check_against_torch(network, folder / "fixed.onnx")
    other = deployed(CASES[0])
    with torch.no_grad():
        other.head.classifier.bias[0] += 0.01
    with pytest.raises(UserError, match="differ from torch's"):
        check_against_torch(other, path)


def test_weights_of_eight_bit_change_logits_a_little(folder: Path) -> None:
    network, path = exported(CASES[0], folder)
    quantise(path, folder / "int8.onnx")
    apart = difference(network, OnnxNetwork(folder / "int8.onnx"))
    assert TOLERANCE < apart < 0.1
    import onnx

    found = {tensor.name: tensor for tensor in onnx.load(folder / "int8.onnx").graph.initializer}
    matrices = [tensor for tensor in found.values() if len(tensor.dims) == 2]
    whole = [tensor for tensor in matrices if tensor.data_type == onnx.TensorProto.FLOAT]
    assert [list(tensor.dims) for tensor in whole] == [[network.spec.stem.positions, network.spec.stem.width]]
    assert len(matrices) == 11 and {t.data_type for t in matrices} == {1, onnx.TensorProto.INT8, onnx.TensorProto.UINT8}


def test_logits_in_small_batches_are_those_of_each_batch_alone(folder: Path) -> None:
    network, path = exported(CASES[1], folder)
    runs, inputs = OnnxNetwork(path), ragged(network, 5, 12, torch.Generator().manual_seed(3))
    whole, in_turn = runs(inputs)["logits"], in_batches_of(2, runs)({**inputs, "example_id": torch.arange(5)})["logits"]
    assert in_turn.shape == whole.shape
    assert np.allclose(whole, in_turn, rtol=1e-5, atol=1e-5)


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(graph, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(UserError, match=r"onnxruntime: pip install 'elastibench\[onnx\]'"):
        write_graph(torch.nn.Linear(2, 2), (torch.ones(1, 2),), tmp_path / "model.onnx")
