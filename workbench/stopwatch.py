"""Chosen networks timed on the devices that budgets speak of, where these are this machine; else the archive says why not."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from methods.network import Network, NetworkSpec, save_network
from methods.space import Architecture
from methods.training.processes import by_main_process
from search.latency.subject import Finished
from search.timings import Timed, keep_timed, timed_in

if TYPE_CHECKING:
    from methods.latency import LatencyTable
    from search.archive import Archive

SECONDS = 6.0
"""For about so long a network and its parts are timed."""


@dataclass(frozen=True)
class Stopwatch:
    """Of one task. `devices`: the experiment's tables. Latency is a matter of shapes, so that one seed's answer holds for all."""

    archive: Archive
    task: str
    devices: Mapping[str, LatencyTable]

    def time(self, networks: Mapping[Architecture, Network | NetworkSpec]) -> bool:
        """Predicts and measures what is not known: a spec with random weights, before it is finished; a network with its own, which holds
        from then on. Whether anything was measured."""
        found = by_main_process(lambda: [self._time(device, table, networks) for device, table in self.devices.items()])
        return any(found)

    def _time(self, device: str, table: LatencyTable, networks: Mapping[Architecture, Network | NetworkSpec]) -> bool:
        from search.latency.here import another_device, time_here

        known = timed_in(self.archive)
        wanted = {a: n for a, n in networks.items() if not self._is_known(known.get((self.task, a.method, a.id, device)), n)}
        if not wanted:
            return False
        about = {a: (self.task, a.method, a.id, device, table.network(_spec(n))) for a, n in wanted.items()}
        if why := another_device(table.fingerprint):
            for architecture in wanted:
                keep_timed(self.archive, Timed(*about[architecture], why=why))
            return False
        with tempfile.TemporaryDirectory() as folder:
            subjects = [_subject(network, Path(folder) / architecture.id) for architecture, network in wanted.items()]
            timed, warnings = time_here(subjects, table, SECONDS)
        for (architecture, network), one in zip(wanted.items(), timed, strict=True):
            finished = isinstance(network, Network)
            keep_timed(self.archive, Timed(*about[architecture], one.seconds, one.runs, "", finished, warnings, one.slower))
        return True

    def _is_known(self, timed: Timed | None, network: Network | NetworkSpec) -> bool:
        return timed is not None and (timed.finished or bool(timed.why) or isinstance(network, NetworkSpec))


def _spec(network: Network | NetworkSpec) -> NetworkSpec:
    return network.spec if isinstance(network, Network) else network


def _subject(network: Network | NetworkSpec, folder: Path) -> Finished | NetworkSpec:
    if isinstance(network, NetworkSpec):
        return network
    save_network(network, folder)
    return Finished(str(folder), network.spec)
