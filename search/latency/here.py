"""Whole networks on this machine, under the setting of a device's profile, where the profile is of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from methods.latency import Fingerprint
from search.latency.apart import Measured, Setting, measure_apart
from search.latency.backends import BACKENDS
from search.latency.subject import Subject


def another_device(seen: Fingerprint) -> str:
    """How this machine differs from the one with that fingerprint, in words; empty where they are the same."""
    import torch

    if seen.backend not in BACKENDS:
        return f"this version has no backend {seen.backend}"
    if missing := BACKENDS[seen.backend].missing():
        return f"the backend {seen.backend} needs {missing} here"
    if seen.device == "cuda" and not torch.cuda.is_available():
        return "torch sees no GPU here"
    from search.latency.worker import fingerprint

    here = fingerprint(asdict(Setting.of(seen, 0)))
    for name in Fingerprint.model_fields:
        there, this = getattr(seen, name), getattr(here, name)
        if there != this:
            return f"the profile is of another device: {name} is {there or 'not known'} there and {this} here"
    return ""


def time_here(networks: Sequence[Subject], seen: Fingerprint, seconds: float) -> Measured:
    """Each for about `seconds`, all in the same rounds."""
    return measure_apart(networks, Setting.of(seen, seconds * len(networks)))
