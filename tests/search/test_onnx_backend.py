"""The latency backend `onnxruntime` runs parts alone as torch does."""

from __future__ import annotations

import pytest
import torch

from methods.latency import pieces_of
from search.latency.backends import BACKENDS, OnnxRuntime
from search.latency.subject import prepared
from tests.conformance.cases import CASES


def test_version_names_the_library() -> None:
    import onnxruntime

    assert not BACKENDS["onnxruntime"].missing()
    assert BACKENDS["onnxruntime"].version() == f"onnxruntime {onnxruntime.__version__}"


@pytest.mark.parametrize(("case", "role"), [("dynabert", "layer"), ("adabert", "cell")])
@torch.inference_mode()
def test_a_part_alone_gives_what_torch_gives(case: str, role: str) -> None:
    """Feed-forward does not read its mask, a cell takes nested tuples. Copies are exported once and run each by itself."""
    found = next(c for c in CASES if c.name == case)
    pieces = pieces_of(found.space().spec(found.space().largest(), found.backbone, found.head))
    modules, arguments = prepared([piece for piece in pieces if piece.role == role][-1], 2, 9)
    backend = OnnxRuntime()
    calls = [backend.prepare(module, arguments) for module in modules]
    outputs = [call() for call in calls]
    assert all(len(output) == 1 for output in outputs)  # type: ignore[arg-type]
    torch.testing.assert_close(torch.from_numpy(outputs[0][0]), modules[0](*arguments), rtol=1e-4, atol=1e-5)  # type: ignore[index]
    assert len({id(call.func.__self__) for call in calls}) == len(modules)  # type: ignore[attr-defined]
