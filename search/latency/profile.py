"""A device's profile: every piece of the spaces' networks timed, their sum calibrated on some whole networks and tested on others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime

from methods.errors import UserError
from methods.latency import LatencyTable, key_of, pieces_of
from search.latency.apart import Measure, Setting, measure_apart
from search.latency.backends import check_backend
from search.latency.calibration import fit, held_out_error
from search.latency.grid import thinned
from search.latency.measure import Heard, unheard
from search.latency.parts import Served, pieces_of_spaces, random_networks


def build_profile(
    name: str,
    served: Sequence[Served],
    setting: Setting,
    calibrate: int = 20,
    held_out: int = 50,
    measure: Measure = measure_apart,
    heard: Heard = unheard,
) -> LatencyTable:
    """The profile of this machine for the deployed networks of these spaces, measured for about `setting.seconds`.

    Pieces and networks are measured in the same rounds; of more pieces than there is time for a grid (`search.latency.grid`). Where the
    spaces have fewer than `calibrate + held_out` networks, those that there are are divided in the same proportion. Raises UserError for
    a backend that is not there or texts that are too long.
    """
    check_backend(setting.backend)
    for one in served:
        if setting.length > one.backbone.positions:
            raise UserError(f"--length {setting.length}: the backbone has positions for {one.backbone.positions} tokens")
    rng = random.Random(setting.seed)
    pieces = pieces_of_spaces(served)
    networks = random_networks(served, calibrate + held_out, rng)
    rng.shuffle(networks)
    cut = round(len(networks) * calibrate / (calibrate + held_out)) if networks else 0
    cut = max(min(2, len(networks)), cut) if calibrate else 0
    between = thinned(pieces, networks, setting)
    timed = {key: piece for key, piece in pieces.items() if key not in between}
    measured = measure([*timed.values(), *networks], setting, heard)
    timings = dict(zip(timed, measured.timings, strict=False))
    mean = {key: timing.mean for key, timing in timings.items()}
    interpolated = {key: (1 - b.share) * mean[b.low] + b.share * mean[b.high] for key, b in between.items()}
    known = mean | interpolated
    made_of = [[known[key_of(piece)] for piece in pieces_of(spec)] for spec in networks]
    seconds = [timing.mean for timing in measured.timings[len(timed) :]]
    line = fit([sum(pieces) for pieces in made_of[:cut]], seconds[:cut], [len(pieces) for pieces in made_of[:cut]])
    table = LatencyTable(
        name=name,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint=measured.fingerprint,
        parts=timings,
        interpolated=interpolated,
        scale=line.scale,
        fixed=line.fixed,
        call=line.call,
        calibrated_on=cut,
        held_out=None,
        warnings=measured.warnings,
    )
    error = held_out_error([table.network(spec) for spec in networks[cut:]], seconds[cut:])
    return LatencyTable.model_validate(table.model_dump() | {"held_out": error})
