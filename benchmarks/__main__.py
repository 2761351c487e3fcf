"""Runs every benchmark in turn: `python -m benchmarks`."""

from benchmarks import costs

if __name__ == "__main__":
    for module in (costs,):
        module.main()
