"""Upper limits on what a network may cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from methods.costs import Costs
from methods.errors import UserError

_SUFFIX = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
LIMITS = ("max_params", "max_params_non_embedding", "max_flops")


def parse_quantity(text: str | float | int, place: str = "value") -> float:
    """`8M`, `1.2G`, `350k`, `12000000` as a number. Raises UserError naming `place`."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        number = float(text)
    else:
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([KMGT]?)\s*", str(text), flags=re.IGNORECASE)
        if not match:
            raise UserError(f"{place}: {text!r} is no quantity; write a number with K, M, G or T behind it, such as 8M or 1.2G")
        number = float(match[1]) * _SUFFIX[match[2].upper()]
    if not 0 < number < float("inf"):
        raise UserError(f"{place}: {text!r} must be above 0 and finite")
    return number


def parse_seconds(text: str | float | int, place: str = "value") -> float:
    """`12ms`, `800us`, `0.5s`, `0.012` in seconds. Raises UserError naming `place`."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(us|ms|s|)\s*", str(text))
    seconds = float(match[1]) / {"us": 1e6, "ms": 1e3, "s": 1, "": 1}[match[2]] if match else 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"{place}: {text!r} is no time above 0; write seconds, or a number with ms, us or s behind it, such as 12ms")
    return seconds


def format_quantity(number: float) -> str:
    """The short form of a count: 8.2M, 1.4G."""
    for suffix in ("T", "G", "M", "K"):
        if abs(number) >= _SUFFIX[suffix]:
            return f"{number / _SUFFIX[suffix]:.4g}{suffix}"
    return f"{number:.4g}"


def amount(name: str, value: float) -> str:
    """What a limit of that name speaks of, in its unit: 8.2M, 12 ms."""
    return f"{1e3 * value:.4g} ms" if name.startswith("max_latency") else format_quantity(value)


@dataclass(frozen=True)
class Budget:
    """Any subset of the limits; an architecture meets it when no cost exceeds its limit.

    Parameters are counts; FLOPs are those of the experiment's length and batch; latency is in seconds on a named device.
    """

    max_params: float | None = None
    max_params_non_embedding: float | None = None
    max_flops: float | None = None
    max_latency: Mapping[str, float] = field(default_factory=dict)
    name: str = ""

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name; latency limits as `max_latency.<device>`."""
        set_ = {name: getattr(self, name) for name in LIMITS if getattr(self, name) is not None}
        return {**set_, **{f"max_latency.{device}": seconds for device, seconds in self.max_latency.items()}}

    def violations(self, costs: Costs) -> dict[str, float]:
        """For each limit (cost - limit) / limit: at most 0 where it is met. Relative, so that samplers may add them up."""
        used = costs.measured_against()
        missing = [name for name in self.limits() if name not in used]
        if missing:
            raise UserError(f"budget {self.label()}: no cost is known for {', '.join(missing)}")
        return {name: (used[name] - limit) / limit for name, limit in self.limits().items()}

    def met_by(self, costs: Costs) -> bool:
        return all(v <= 0 for v in self.violations(costs).values())

    def slack(self, costs: Costs) -> dict[str, float]:
        """What is left of each limit, in its own unit."""
        used = costs.measured_against()
        return {name: limit - used[name] for name, limit in self.limits().items()}

    def used_by(self, costs: Costs) -> Budget:
        """The same limits, as tight as these costs are."""
        used = costs.measured_against()
        plain = {name: max(used[name], 1.0) for name in LIMITS if getattr(self, name) is not None}
        return Budget(**plain, max_latency={device: used[f"max_latency.{device}"] for device in self.max_latency}, name=self.name)

    def _repr_html_(self) -> str:
        from methods.showing import card

        return card(f"budget {self.name}".rstrip(), self.limits())

    def label(self) -> str:
        """The budget in one line: its name, else its limits."""
        return self.name or ", ".join(f"{name} {amount(name, limit)}" for name, limit in self.limits().items()) or "no limit"
