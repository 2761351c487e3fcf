"""Measures D3 and D9 of a trained supernet, and keeps them beside what was derived from it."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np

from methods.adabert.derivation import AlphaModel
from methods.adabert.diagnostics import Diagnostic, discretisation_gap, strength_against_rank
from methods.adabert.masking import strengths
from methods.adabert.plan import DERIVE
from methods.adabert.selection import Derivation
from methods.evaluation import weights_digest
from methods.training.checkpoint import write_atomically

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
    """D3. Sampled is the mean score on `search` of draws from the architecture parameters, with the supernet's own statistics."""
    supernet, rng = derivation.supernet, np.random.default_rng(derivation.context.seed)
    drawn = [derivation.model.draw(rng) for _ in range(derivation.options.derivation.diagnosed_draws)]
    sampled = fmean(derivation.evaluate(partial(supernet.forward, architecture=a), a) for a in drawn)
    return discretisation_gap(sampled, derivation.score(derivation.run()))


def measured_strengths(derivation: Derivation) -> Diagnostic:
    """D9, by the task's loss on some rows of `search`."""
    loss = derivation.loss(derivation.supernet, derivation.options.derivation.diagnosed_rows)
    probabilities = AlphaModel.of_supernet(derivation.supernet).edges
    return strength_against_rank(strengths(derivation.weights, loss).tolist(), np.exp(probabilities).tolist())
