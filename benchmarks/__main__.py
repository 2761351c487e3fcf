"""Runs every benchmark that needs no finished run, one after another: `python -m benchmarks`; those of Ray where Ray is installed."""

from importlib.util import find_spec

from benchmarks import (
    augmentation,
    blockwise,
    corpus_memory,
    costs,
    derivation,
    dynabert_memory,
    dynabert_networks,
    dynabert_step,
    evaluation,
    latency,
    query,
    search,
    selection,
)

if __name__ == "__main__":
    for module in (
        costs,
        derivation,
        dynabert_step,
        dynabert_networks,
        dynabert_memory,
        evaluation,
        latency,
        query,
        search,
        selection,
        augmentation,
        corpus_memory,
        blockwise,
    ):
        module.main()
    if find_spec("ray"):
        from benchmarks import ray_overhead, ray_tune

        ray_overhead.main()
        ray_tune.main()
