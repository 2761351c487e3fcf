"""Weights of 8 bit, activations quantised as they come (onnxruntime's dynamic quantisation)."""

from __future__ import annotations

from pathlib import Path

from methods.onnx.graph import quiet

OPERATORS = ("MatMul", "Gemm", "Gather")
"""Linear maps and look-up tables. Convolutions stay in float32: onnxruntime's for integers is slower (docs/export.md)."""


def quantise(path: Path, target: Path) -> None:
    """Writes the graph of `path` with signed 8-bit weights, a scale for each column, into `target`."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    model.graph.ClearField("value_info")  # Shapes noted of weights that the quantiser transposes; it infers all of them itself.
    with quiet():
        quantize_dynamic(model, target, op_types_to_quantize=list(OPERATORS), per_channel=True, weight_type=QuantType.QInt8)
