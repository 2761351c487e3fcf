"""Runs an ONNX file with onnxruntime on the processor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.utils.generic import ModelOutput

from methods.evaluation import Run
from methods.supernet import inputs


def open_session(graph: Path | bytes, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` on the processor: so many threads within an operator, one operator at a time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        graph if isinstance(graph, bytes) else str(graph), sess_options=options, providers=["CPUExecutionProvider"]
    )


class OnnxNetwork:
    """The file of a network; called with a batch, it takes of it what the graph reads, and answers as the network does, without states."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.session = open_session(path, threads)
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]

    def __call__(self, batch: Mapping[str, Tensor]) -> ModelOutput:
        """`batch`: inputs (B, L) by name; types that are not there are zeros."""
        zeros = torch.zeros_like(batch["input_ids"])
        arrays = self.session.run(None, {name: batch.get(name, zeros).cpu().numpy() for name in self.inputs})
        found = dict(zip(self.outputs, map(torch.from_numpy, arrays), strict=True))
        if "start_logits" in found:
            found["logits"] = torch.stack([found["start_logits"], found["end_logits"]], dim=-1)
        return ModelOutput(found)


def in_batches_of(size: int, run: Run) -> Run:
    """`run` on so many texts at a time, each time padded to the longest of them alone; gives their logits.

    What is quantised dynamically has one scale for the activations of all texts of a batch, so its logits depend on the batch.
    """

    def in_turn(batch: Mapping[str, Tensor]) -> ModelOutput:
        rows, length = batch["input_ids"].shape
        found = []
        for start in range(0, rows, size):
            few = {name: tensor[start : start + size] for name, tensor in inputs(batch).items()}
            longest = max(int(few[name].sum(1).max()) for name in few if name.startswith("attention_mask"))
            logits = run({name: tensor[:, :longest] for name, tensor in few.items()})["logits"]
            if logits.ndim == 3:
                logits = F.pad(logits, (0, 0, 0, length - longest), value=torch.finfo(logits.dtype).min)
            found.append(logits)
        return ModelOutput(logits=torch.cat(found))

    return in_turn
