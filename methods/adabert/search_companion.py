"""What a search keeps and does beside its steps: dual ascent, the log, measurements, and the remedies that watch."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods.adabert.alpha_log import ALPHA, ROWS, log_row, write_rows
from methods.adabert.measures import derived, gradient_shares, parameter_free_edges, soft_loss, still
from methods.adabert.remedies.cap import ParameterFreeCap
from methods.adabert.remedies.eigenvalue import EigenvalueWatch, dominant_eigenvalue
from methods.adabert.search_diagnostics import search_diagnostics
from methods.adabert.search_step import SearchStep
from methods.training.checkpoint import write_atomically

DIAGNOSTICS = "diagnostics.json"
MEASURED = 100
"""About so many times gradient shares are measured."""


class SearchCompanion:
    """See `methods.training.stage.StageCompanion`."""

    def __init__(self, step: SearchStep) -> None:
        self.step, self.rows, self.measured = step, [log_row(step)], list[dict[str, float]]()
        self.eigenvalue, self.cap = self._eigenvalue_watch(), self._cap()
        found = {"eigenvalue": self.eigenvalue, "cap": self.cap, "operation_stop": step.operation_stop}
        self.watches = {name: watch for name, watch in found.items() if watch is not None}

    def after(self, step: int) -> bool:
        own, warming = self.step, self.step.warming
        own.step = step
        own.efficiency.ascend(own.model.probabilities())
        if step % ceil(own.total / ROWS) == 0:
            self.rows.append(log_row(own))
        if step % ceil(own.total / MEASURED) == 0:
            self.measured.append({"step": float(step), **gradient_shares(own, own.batch_of(own.trained, step))})
        return any([watch.after(step) for watch in self.watches.values()]) if not warming else False  # noqa: C419 (every one is asked)

    def state(self) -> dict[str, Any]:
        own = self.step
        kept = {"step": own.step, "drawn": own.drawn, "last": own.last, "dual": own.efficiency.dual}
        watches = {name: watch.state() for name, watch in self.watches.items()}
        return {**kept, "rows": self.rows, "measured": self.measured, "watches": watches}

    def restore(self, state: dict[str, Any]) -> None:
        own = self.step
        own.step, own.drawn, own.last, own.efficiency.dual = (state[name] for name in ("step", "drawn", "last", "dual"))
        self.rows, self.measured = state["rows"], state["measured"]
        for name, watch in self.watches.items():
            watch.restore(state["watches"][name])

    def write(self, folder: Path) -> tuple[str, ...]:
        """Leaves the log and the diagnostics, the last row being what the search ended with."""
        own, watch = self.step, self.eigenvalue
        values, fired = (None, 0) if watch is None else (watch.values, watch.fired)
        found = search_diagnostics(own, self.rows, self.measured, values, fired)
        write_rows(folder / ALPHA, [*(row for row in self.rows if row["step"] < own.step), log_row(own)])
        write_atomically(folder / DIAGNOSTICS, json.dumps(found, indent=1) + "\n")
        return ()

    def _eigenvalue_watch(self) -> EigenvalueWatch | None:
        o = self.step.options.remedies.eigenvalue_stop
        if o is None:
            return None
        snapshot = self._alpha if o.action == "stop" else self._everything
        return EigenvalueWatch(o, self.step.per_epoch, self._measure_eigenvalue, snapshot, self._go_back, self._decay)

    def _cap(self) -> ParameterFreeCap | None:
        cap, model = self.step.options.remedies.parameter_free_cap, self.step.model
        return None if cap is None else ParameterFreeCap(cap, lambda: parameter_free_edges(derived(model)), self._alpha, self._go_back)

    def _measure_eigenvalue(self) -> float:
        """Always on the same held-out rows, so that values can be compared."""
        own = self.step
        with still(own.model), torch.enable_grad():
            return dominant_eigenvalue(soft_loss(own, own.batch_of(own.held_out, 0)), own.model.architecture_parameters())

    def _alpha(self) -> dict[str, Tensor]:
        mine = {id(parameter) for parameter in self.step.model.architecture_parameters()}
        named = self.step.model.named_parameters()
        return {name: parameter.detach().to("cpu", copy=True) for name, parameter in named if id(parameter) in mine}

    def _everything(self) -> dict[str, Tensor]:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.step.model.state_dict().items()}

    def _go_back(self, kept: dict[str, Tensor]) -> None:
        self.step.model.load_state_dict(kept, strict=False)

    def _decay(self, factor: float, largest: float) -> None:
        stepper = self.step.stepper
        assert stepper is not None
        stepper.weights.weight_decay = min(stepper.weights.weight_decay * factor, max(largest, stepper.weights.weight_decay))
