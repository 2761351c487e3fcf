"""The control row `int8`: a winner with weights of 8 bit."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from methods.costs import costs
from methods.evaluation import weights_digest
from methods.network import Network
from methods.space import Architecture
from methods.training.processes import by_main_process
from search.measurement import BYTES, INT8
from workbench.measuring import Measurer


def measure_int8(measurer: Measurer, network: Network, architecture: Architecture) -> None:
    """The network's quantised ONNX file, run by onnxruntime on every split that the task reports on, as it runs where it ships: in batches
    of `cost.batch`. The bytes of this file and of the one in float32 are kept beside its metrics.

    Raises UserError where the file in float32 does not give torch's logits.
    """
    digest = hashlib.sha256(f"{INT8} {weights_digest(network)}".encode()).hexdigest()
    splits = [name for name in measurer.task.split_names if name != "train"]
    by_main_process(lambda: _measure(measurer, network, architecture, digest, splits))


def _measure(measurer: Measurer, network: Network, architecture: Architecture, digest: str, splits: list[str]) -> None:
    from methods.onnx.comparison import check_against_torch
    from methods.onnx.graph import write_network
    from methods.onnx.quantisation import quantise
    from methods.onnx.runtime import OnnxNetwork, in_batches_of

    missing = [split for split in splits if measurer.known(architecture, split, digest, "control") is None]
    if not missing:
        return
    used = costs(network.spec, measurer.cost.length, measurer.cost.batch)
    with TemporaryDirectory() as folder:
        whole, quantised = Path(folder) / "model.onnx", Path(folder) / "model.int8.onnx"
        network = network.cpu().eval()
        write_network(network, whole)
        check_against_torch(network, whole)
        quantise(whole, quantised)
        bytes_of = {name: float(path.stat().st_size) for name, path in zip(BYTES, (quantised, whole), strict=True)}
        run = in_batches_of(measurer.cost.batch, OnnxNetwork(quantised))
    for split in missing:
        found, predictions = measurer.measure(run, architecture, used, split, digest, "control", INT8)
        measurer.archive.add(replace(found, metrics={**found.metrics, **bytes_of}), predictions)
