"""A device's latency table: seconds of each part of a network, how they add up, and how far off that was on networks it never saw.

`search.latency` measures one; budgets read it. A network takes `scale` x the sum of its pieces + `fixed` seconds, where a piece counts with
what it took by itself less `call`: what it costs to call it, which a network pays once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PrivateAttr, ValidationError

from methods.errors import UserError

if TYPE_CHECKING:
    from methods.layers.part import Part, Piece
    from methods.network import NetworkSpec

FORMAT = 1
TIMELESS = frozenset(
    {"dropout", "attention_dropout", "first_dropout", "layer_norm_eps", "epsilon", "momentum", "index", "initializer_range"}
    | {"padding_id", "positions", "position_offset"}
)
"""Fields of a part that do not matter for how long it takes."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Timing(_Record):
    """Seconds of one forward pass over `n` runs: `mean` of those between the 10th and 90th percentile, `std` and percentiles of all."""

    mean: Positive
    std: Seconds
    p10: Seconds
    p50: Seconds
    p90: Seconds
    n: Count


class Fingerprint(_Record):
    """What the times depend on besides the network; `batch` texts of `length` tokens, `threads` within an operation.

    `clock`: `wall`, or where there is one thread its `processor` time, which does not count what other processes took, or on a GPU
    `events`. `runtime`: name and version of what ran the networks. `processor`: the GPU's name where `device` is `cuda`.
    """

    processor: str
    cores: Count
    system: str
    torch: str
    backend: str
    runtime: str = ""
    device: Literal["cpu", "cuda"] = "cpu"
    threads: Count
    dtype: str
    clock: Literal["wall", "processor", "events"] = "wall"
    batch: Count
    length: Count


class HeldOutError(_Record):
    """The table's error on `n` networks that its calibration did not see. Rank correlations are None where all are alike."""

    mape: Seconds
    kendall: FiniteFloat | None
    spearman: FiniteFloat | None
    n: Count
    predicted: tuple[FiniteFloat, ...]
    measured: tuple[Positive, ...]


class LatencyTable(_Record):
    """A device profile. `parts`: by `key_of`; `interpolated`: seconds of parts between measured ones of their kind.

    `calibrated_on` networks gave `scale`, `fixed` and `call`; `warnings` say what disturbed it.
    """

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    measured_at: str
    fingerprint: Fingerprint
    parts: dict[str, Timing]
    interpolated: dict[str, Seconds] = Field(default_factory=dict)
    scale: Positive
    fixed: Seconds
    call: Seconds = 0.0
    calibrated_on: Annotated[int, Field(ge=0)]
    held_out: HeldOutError | None
    warnings: tuple[str, ...] = ()
    _known: dict[Piece, float] = PrivateAttr(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str) -> LatencyTable:
        """What `save` wrote. Raises UserError, by file and key, where there is none or it is damaged."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"{path}: there is no latency table; elastibench latency DEVICE-NAME measures one") from error
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: no latency table, it can't be read ({error})") from error
        if isinstance(data, dict) and data.get("format") != FORMAT:
            raise UserError(f"{path}: format: {data.get('format')!r}; this version reads latency tables of format {FORMAT}")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = " > ".join(map(str, first["loc"]))
            raise UserError(f"{path}: {place or 'the file'}: {first['msg'][:1].lower()}{first['msg'][1:]}") from error

    def save(self, path: Path | str) -> None:
        """Writes the table as JSON; the file holds all of it or what it held before."""
        from methods.training.checkpoint import write_atomically

        write_atomically(Path(path), json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n")

    def keys(self) -> tuple[str, ...]:
        """The parts whose seconds are known, those that were measured first."""
        return (*self.parts, *self.interpolated)

    def knows(self, spec: NetworkSpec) -> bool:
        """Whether it has all parts of a network."""
        return all(piece in self._known or key_of(piece) in self.parts or key_of(piece) in self.interpolated for piece in pieces_of(spec))

    def part(self, part: Part, width: int = 0) -> float:
        """Seconds of a part within a network, before `scale`; `width` of the hidden state that comes in, where the part does not say it.

        Raises UserError where it, or a piece of it, was not measured.
        """
        return math.fsum(self._seconds(piece) for piece in part.pieces(width))

    def network(self, spec: NetworkSpec) -> float:
        """Seconds of a whole network. Raises UserError where one of its parts was not measured."""
        return self.scale * self.parts_sum(spec) + self.fixed

    def parts_sum(self, spec: NetworkSpec) -> float:
        """Seconds of a network's parts, before `scale`."""
        return math.fsum(self._seconds(piece) for piece in pieces_of(spec))

    def _seconds(self, piece: Piece) -> float:
        if piece not in self._known:
            key = key_of(piece)
            if key not in self.parts and key not in self.interpolated:
                f = self.fingerprint
                raise UserError(
                    f"latency table {self.name} ({f.processor}, batch {f.batch}, length {f.length}): the part {key} was not measured;"
                    " measure it with elastibench latency and the experiment whose networks have it"
                )
            alone = self.parts[key].mean if key in self.parts else self.interpolated[key]
            self._known[piece] = max(0.0, alone - self.call)
        return self._known[piece]


def pieces_of(spec: NetworkSpec) -> tuple[Piece, ...]:
    """The pieces of a network in the order in which they run, each as often as it runs."""
    width = spec.stem.hidden
    head = tuple(replace(piece, role="head") for piece in spec.head.pieces(width))
    return (*spec.stem.pieces(), *spec.encoder.pieces(width), *head)


def key_of(piece: Piece) -> str:
    """The same text for pieces of the same shape, whatever else they differ in: JSON without blanks, keys sorted."""
    data = _shape(piece.part.to_dict())
    if piece.part.own_width() is None:
        data["width"] = piece.width
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def _shape(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _shape(inner) for name, inner in value.items() if name not in TIMELESS}
    return [_shape(inner) for inner in value] if isinstance(value, list) else value
