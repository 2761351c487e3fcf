"""What test_nasbert_training runs in two processes: block-wise training, its paths, and its weights at the end."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from methods.evaluation import weights_digest
from methods.nasbert.networks import teacher_spec
from methods.nasbert.options import NasBertOptions
from methods.nasbert.ranking import HeldOut, path_losses
from methods.nasbert.space import space_of
from methods.nasbert.supernet import NasBertSupernet
from methods.nasbert.supernet_stage import held_out_text, new_survivors, train_blocks
from methods.network import Network
from methods.recipe import CorpusContext, Hardware
from methods.tasks.head import Head
from methods.training.initialisation import initialise
from tests.conformance.cases import TINY
from tests.methods.nasbert_cases import drawn_paths
from tests.methods.test_nasbert_training import SHRINKING, SIZES, TRAINING


class Text:
    """A packed corpus of random words, nothing masked: what two halves of a batch add up to is the whole."""

    def __init__(self, seed: int) -> None:
        self.ids = torch.randint(1, TINY.vocabulary, (16, 12), generator=torch.Generator().manual_seed(seed))
        self.lengths, self.digest = np.full(16, 12), str(seed)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Any) -> dict[str, torch.Tensor]:
        ids = self.ids[list(rows)]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def main() -> None:
    folder = Path(sys.argv[1])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    together = run(folder / "together")
    (folder / f"rank{rank}.json").write_text(json.dumps(together))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    if rank == 0 and world == 2:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE", "GROUP_RANK"):
            os.environ.pop(name, None)
        (folder / "alone.json").write_text(json.dumps(run(folder / "alone")))


def run(folder: Path) -> dict[str, Any]:
    """Trains both blocks; returns drawn paths, digest of the weights before and after, examples, and losses of some paths."""
    sizes = {**SIZES, "dropout": 0.0, "attention_dropout": 0.0}
    options = NasBertOptions.model_validate({**sizes, "supernet": TRAINING, "shrinking": SHRINKING})
    corpus = SimpleNamespace(packed=lambda split, _: Text(len(split)), masker=lambda batch, _=None: batch)
    records: list[Any] = []
    context: Any = CorpusContext(folder, folder, SimpleNamespace(config=TINY), corpus, 0, record=records.append)  # type: ignore[arg-type]
    torch.manual_seed(0)
    space = space_of(options, TINY)
    teacher = Network(teacher_spec(TINY, Head("mlm")))
    initialise(teacher, 0.2)
    supernet = NasBertSupernet(space, TINY, Head("mlm"))
    start = weights_digest(supernet)
    survivors = new_survivors(options, space, context)
    with drawn_paths() as drawn:
        train_blocks(context, options, space, supernet, teacher, survivors, "supernet", (0, 1))
    held_out = HeldOut.of(teacher, held_out_text(context, options), space.blocks, Hardware())
    found = path_losses(supernet, 0, survivors.paths, np.arange(6), held_out, Hardware())
    ended = {"digest": weights_digest(supernet), "alive": survivors.state(), "sample": found.tolist()}
    return {"paths": drawn, "start": start, "examples": records[0].examples, **ended}
