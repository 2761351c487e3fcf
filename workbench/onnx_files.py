"""What an export to ONNX holds: the graph, on request the same with weights of 8 bit, and how to run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.errors import UserError

if TYPE_CHECKING:
    from methods.network import Network
    from workbench.experiment import TaskOptions
    from workbench.session import Member, Session

GRAPH, QUANTISED, USAGE = "model.onnx", "model.int8.onnx", "USAGE.md"


@dataclass(frozen=True)
class OnnxFile:
    """A file of `bytes`; `difference` of its logits from torch's, over the largest. `metrics`: by split, where they were measured."""

    name: str
    bytes: int
    difference: float
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "name"}

    def render(self) -> str:
        measured = [f"{split} {', '.join(f'{name} {value:.4f}' for name, value in found.items())}" for split, found in self.metrics.items()]
        return "; ".join([f"{self.name}: {self.bytes / 1e6:.1f} MB, logits within {self.difference:.1e} of torch's", *measured])


def check_installed(what: str) -> None:
    """Raises UserError where `what` asks for libraries that are not there."""
    from methods.onnx.graph import lacking

    if absent := lacking():
        raise UserError(f"{what}: needs {absent}")


def write_files(session: Session, options: TaskOptions, member: Member, network: Network, folder: Path, int8: bool) -> tuple[OnnxFile, ...]:
    """Writes graph and usage text; with `int8` the quantised graph too, measured on the splits that the task reports on in batches of the
    experiment's `cost.batch`. Raises UserError where the graph does not give torch's logits."""
    from methods.evaluation import evaluate
    from methods.onnx.comparison import check_against_torch, difference
    from methods.onnx.graph import write_network
    from methods.onnx.quantisation import quantise
    from methods.onnx.runtime import OnnxNetwork, in_batches_of

    network = network.cpu().eval()
    write_network(network, folder / GRAPH)
    files = [OnnxFile(GRAPH, _size(folder, GRAPH), check_against_torch(network, folder / GRAPH))]
    if int8:
        quantise(folder / GRAPH, folder / QUANTISED)
        small, task, collate = OnnxNetwork(folder / QUANTISED), session.task(options), session.collate(options, member.method)
        run = in_batches_of(session.experiment.cost.batch, small)
        splits = [name for name in task.split_names if name != "train"]
        metrics = {split: evaluate(run, collate, task.split(split), task.spec).metrics for split in splits}
        files.append(OnnxFile(QUANTISED, _size(folder, QUANTISED), difference(network, small), metrics))
    (folder / USAGE).write_text(usage(network, options.max_length, options.spec.labels))
    return tuple(files)


def _size(folder: Path, name: str) -> int:
    """Of the file with its weights, which a very large one has beside it."""
    return sum(path.stat().st_size for path in folder.glob(f"{name}*"))


def usage(network: Network, max_length: int, labels: tuple[str, ...]) -> str:
    """How the graph is run, as Markdown."""
    from methods.onnx.graph import input_names, output_names

    inputs, outputs = input_names(network.spec), output_names(network.spec)
    apart = "input_ids_b" in inputs
    cut = f"padding=True, truncation=True, max_length={max_length}, return_tensors='np'"
    made = [f"batch = tokenizer(['A text.', 'Another one.'], {cut})", "feed = {name: batch[name].astype('int64') for name in inputs}"]
    if apart:
        made = [
            "first, second = ['A text.', 'Another one.'], ['Its other half.', 'And its own.']",
            f"both = tokenizer([*first, *second], {cut})",
            "halves = {False: slice(len(first)), True: slice(len(first), None)}",
            "feed = {name: both[name.removesuffix('_b')][halves[name.endswith('_b')]].astype('int64') for name in inputs}",
        ]
    meaning = f"Classes, in this order: {', '.join(labels)}.\n" if labels else ""
    return "\n".join(
        [
            f"Inputs: {', '.join(inputs)}; int64 (batch, length), length at most {network.spec.stem.positions}; masks are 1 at tokens.",
            *(["The second texts are padded to the length of the first ones."] if apart else []),
            f"Output: {', '.join(outputs)}; float32. {meaning}",
            "```python",
            "import onnxruntime",
            "from transformers import AutoTokenizer",
            "",
            "tokenizer = AutoTokenizer.from_pretrained('.')",
            f"session = onnxruntime.InferenceSession('{GRAPH}')",
            "inputs = [value.name for value in session.get_inputs()]",
            *made,
            "print(session.run(None, feed))",
            "```",
            "",
        ]
    )
