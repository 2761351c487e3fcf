"""Runs every benchmark in turn: `python -m benchmarks`."""

from benchmarks import augmentation, blockwise, corpus_memory, costs, derivation, search, selection

if __name__ == "__main__":
    for module in (costs, derivation, search, selection, augmentation, corpus_memory, blockwise):
        module.main()
