"""How much time and memory 100 MB of text take to be packed and read. Target: less than 1 GB, libraries included.

`python -m benchmarks.corpus_memory [--backbone DIRECTORY] [--megabytes N]`
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TEXT = (
    "the of and to in was a is for on as with by he that at from his it an were are which this be had also or first has their one its "
    "new after they two her who been but not she other when during there into all school time may years more most only over city some "
    "world would where later up such used many can state about national out known university united then made species album football "
    "territorial reconstruction enthusiasts manuscript lighthouse parliamentary uncharacteristically Kristiansund anthropologist 1871"
)
WORDS = TEXT.split()
LENGTH, BATCH, BATCHES = 128, 32, 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus_memory")
    parser.add_argument("--backbone", type=Path, default=ROOT / "backbones" / "minilm-l6", help="its tokenizer is used")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--measure", type=Path, nargs=3, help=argparse.SUPPRESS)  # text, tokenizer, folder: what the child does
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(*asked.measure)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "text.txt", asked.megabytes * 10**6)
        tokenizer = asked.backbone if asked.backbone.is_dir() else folder / "tokenizer"
        command = [sys.executable, "-m", "benchmarks.corpus_memory", "--measure", folder / "text.txt", tokenizer, folder / "packed"]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{asked.megabytes} MB of text: {found['tokens']:,} tokens of {tokenizer.name}'s in sequences of {LENGTH}")
    print(f"packed        {found['packed']:8.1f} s   {found['tokens'] / found['packed']:,.0f} tokens/s")
    print(f"opened again  {found['opened']:8.2f} s")
    print(f"read          {found['read']:8.2f} s   {BATCHES} random batches of {BATCH}, masked")
    print(f"peak memory   {found['peak']:8.0f} MiB, {found['before']:.0f} of them libraries and tokenizer")


def write_text(path: Path, size: int) -> None:
    """At least `size` bytes of documents of 1 to 9 paragraphs of 20 to 200 words, the same each time."""
    rng = random.Random(0)
    weights = [1 / (rank + 1) for rank in range(len(WORDS))]
    with path.open("w") as file:
        while file.tell() < size:
            for _ in range(rng.randint(1, 9)):
                file.write(" ".join(rng.choices(WORDS, weights, k=rng.randint(20, 200))) + ".\n")
            file.write("\n")


def measure(text: Path, tokenizer_folder: Path, folder: Path) -> dict[str, float]:
    """Seconds of packing, opening again and reading; MiB before and at the peak."""
    import numpy as np
    import torch

    from methods.corpus.options import CorpusOptions

    options = CorpusOptions(name="generated", data=str(text))
    tokenizer = load_tokenizer(tokenizer_folder)
    before, started = peak(), time.perf_counter()
    corpus = options.load(tokenizer, folder)
    splits = [corpus.packed(split, LENGTH) for split in ("train", "search", "validation")]
    packed, started = time.perf_counter() - started, time.perf_counter()
    again = options.load(tokenizer, folder)
    train = again.packed("train", LENGTH)
    opened, started = time.perf_counter() - started, time.perf_counter()
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(BATCHES):
        again.masker(train.batch(rng.integers(0, len(train), BATCH)), generator)
    read = time.perf_counter() - started
    tokens = sum(len(split.stream) for split in splits)
    return {"tokens": tokens, "packed": packed, "opened": opened, "read": read, "before": before, "peak": peak()}


def load_tokenizer(folder: Path) -> Any:
    """The one in the folder, or, where there is none, a WordPiece one of half of the words and the letters."""
    from transformers import AutoTokenizer, BertTokenizer

    if folder.is_dir():
        return AutoTokenizer.from_pretrained(folder)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS[::2], *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(dict.fromkeys(pieces))})


def peak() -> float:
    """The largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))


if __name__ == "__main__":
    main()
