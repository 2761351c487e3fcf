"""Measures D3 and D9 of a trained supernet, and keeps them beside what was derived from it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from transformers.utils.generic import ModelOutput

from methods.adabert.cells import Mixing
from methods.adabert.derivation import AlphaModel
from methods.adabert.diagnostics import Diagnostic, discretisation_gap, strength_against_rank
from methods.adabert.masking import strengths
from methods.adabert.plan import DERIVE
from methods.adabert.relaxation import Relaxation, relaxed
from methods.adabert.sampling import SAMPLERS
from methods.adabert.selection import Derivation
from methods.evaluation import weights_digest
from methods.supernet import Batch
from methods.training.checkpoint import write_atomically
from methods.training.loop import seed_of

FILE = "diagnostics.json"


def diagnose(derivation: Derivation) -> None:
    """Leaves `diagnostics.json` in the stage's folder: D3 and D9 by name, as a search's own diagnostics are; nothing is done where it
    lies there of the same supernet. Its time counts for no stage."""
    path = derivation.context.folder / DERIVE / FILE
    digest = weights_digest(derivation.supernet)
    if _supernet_of(path) == digest:
        return
    started = time.monotonic()
    found = [measured_gap(derivation), measured_strengths(derivation)]
    data = {**{one.name: one.to_dict() for one in found}, "supernet": digest, "seconds": time.monotonic() - started}
    write_atomically(path, json.dumps(data, indent=1) + "\n")


def _supernet_of(path: Path) -> str | None:
    """Whose diagnostics lie there; None where none do that can be read."""
    try:
        return str(json.loads(path.read_text())["supernet"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def measured_gap(derivation: Derivation) -> Diagnostic:
    """D3. Sampled is the mean score on `search` of draws as the search makes them at its end, all edges of the cell in place, with the
    supernet's own statistics."""
    draws, seed = derivation.options.derivation.diagnosed_draws, derivation.context.seed
    largest = derivation.supernet.space.largest()
    runs = [sampled(derivation, torch.Generator().manual_seed(seed_of(seed, "D3", n))) for n in range(draws)]
    return discretisation_gap(fmean(derivation.evaluate(run, largest) for run in runs), derivation.score(derivation.run()))


def sampled(derivation: Derivation, generator: torch.Generator) -> Callable[[Batch], ModelOutput]:
    """The supernet under one draw of operations and depth."""
    o, supernet = derivation.options.search, derivation.supernet
    name = "gumbel" if o.sampler in ("dirichlet", "sigmoid") else o.sampler  # after these the parameters are logits of probabilities
    tau, device = o.temperature.end, supernet.edge_logits.device
    with torch.no_grad():
        edges = SAMPLERS[name](supernet.edge_logits.detach(), tau, generator).to(device)
        depth = SAMPLERS[name](supernet.depth_logits.detach()[None], tau, generator)[0].to(device)
    mixing = Mixing(chosen=o.execution == "chosen")
    return lambda batch: ModelOutput(logits=relaxed(supernet, batch, Relaxation(edges, depth), mixing).logits)


def measured_strengths(derivation: Derivation) -> Diagnostic:
    """D9, by the task's loss on some rows of `search`."""
    loss = derivation.loss(derivation.supernet, derivation.options.derivation.diagnosed_rows)
    probabilities = AlphaModel.of_supernet(derivation.supernet).edges
    return strength_against_rank(strengths(derivation.weights, loss).tolist(), np.exp(probabilities).tolist())
