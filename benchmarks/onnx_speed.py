"""How long torch, onnxruntime, and onnxruntime with weights of 8 bit take for one text: `python -m benchmarks.onnx_speed DIR...`.

DIR: what `elastibench export --format onnx --int8` wrote. The three run in turn, in one thread, and are timed by its processor time.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from time import thread_time

import torch

from methods.network import Network, NetworkSpec
from methods.onnx.comparison import ragged
from methods.onnx.runtime import OnnxNetwork
from methods.registry import import_parts
from search.latency.measure import Rounds, by_clock, measure, timing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--length", type=int, default=128)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    import_parts()
    for folder in asked.folders:
        spec = NetworkSpec.from_dict(json.loads((folder / "config.json").read_text())["network"])
        network = Network(spec).eval()  # Random weights: the time does not depend on them.
        batch = ragged(network, 1, asked.length, torch.Generator().manual_seed(0))
        runs = {"torch": lambda given, network=network: network(**given)}
        runs |= {path.name: OnnxNetwork(path) for path in sorted(folder.glob("*.onnx"), reverse=True)}
        with torch.inference_mode():
            found = measure([partial(run, batch) for run in runs.values()], 60, rounds=Rounds(100, 100), timer=by_clock(thread_time))
        medians = [timing(durations).p50 for durations in found.durations]
        for name, seconds in zip(runs, medians, strict=True):
            print(f"{folder}: {name}: {1e3 * seconds:.2f} ms, {medians[0] / seconds:.2f} times as fast as torch")


if __name__ == "__main__":
    main()
