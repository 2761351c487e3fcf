"""The archive's tables, and how a row is a `Measurement`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, Table, Text, UniqueConstraint

from methods.costs import Costs
from methods.space import Architecture
from search.measurement import Measurement
from search.stopping import Stopped

SCHEMA_VERSION = "2"
UPGRADED_VERSIONS = ("1",)
"""Older versions: they lack columns that may be empty, and tables."""
METADATA = MetaData()
KEY = ("architecture_id", "task", "split_digest", "weights_digest", "kind")
STAGE_KEY = ("task", "method", "seed", "stage")
SEARCH_KEY = ("task", "method", "seed", "strategy", "budget")


def _columns(kind: Any, *names: str) -> list[Column[Any]]:
    return [Column(name, kind, nullable=False) for name in names]


META = Table("meta", METADATA, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

MEASUREMENTS = Table(
    "measurements",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    *_columns(Text, "architecture_id", "method", "architecture", "task", "split", "split_digest", "weights_digest", "kind", "control"),
    *_columns(Text, "metric", "metrics", "latency", "created"),
    *_columns(BigInteger, "seed", "embedding_parameters", "other_parameters", "flops"),
    *_columns(Integer, "length", "batch"),
    *_columns(Float(53), "seconds"),
    Column("quality", Float(53)),
    UniqueConstraint(*KEY, name="measurements_key"),
    Index("measurements_by_task", "task", "method", "split", "kind"),
)

STAGES = Table(
    "stages",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    *_columns(Text, "task", "method", "stage"),
    *_columns(BigInteger, "seed", "steps", "examples"),
    *_columns(Float(53), "flops", "seconds"),
    Column("subnetwork_steps", BigInteger),
    UniqueConstraint(*STAGE_KEY, name="stages_key"),
)

SEARCHES = Table(
    "searches",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    *_columns(Text, "task", "method", "strategy", "budget"),
    *_columns(BigInteger, "seed", "evaluations"),
    *_columns(Float(53), "seconds", "flops"),
    UniqueConstraint(*SEARCH_KEY, name="searches_key"),
)

STOPPED = Table(
    "stopped",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    *_columns(Text, "architecture_id", "method", "architecture", "task", "split", "split_digest", "weights_digest", "kind"),
    *_columns(Text, "rivals", "created"),
    *_columns(BigInteger, "seed", "rows"),
    *_columns(Float(53), "estimate", "p", "seconds"),
    UniqueConstraint(*KEY, name="stopped_key"),
)


@dataclass(frozen=True)
class StageRow:
    """What a training stage of a method did for a task and a seed; `flops` and `seconds` of all its restarts together, `subnetwork_steps`
    as in `StageRecord`."""

    task: str
    method: str
    seed: int
    stage: str
    steps: int
    examples: int
    flops: float
    seconds: float
    subnetwork_steps: int | None = None


@dataclass(frozen=True)
class SearchRow:
    """What a search cost: `evaluations` architectures, `seconds` of wall clock, `flops` of all forward passes."""

    task: str
    method: str
    seed: int
    strategy: str
    budget: str
    evaluations: int
    seconds: float
    flops: float


_OF_STOPPED = ("task", "split", "split_digest", "weights_digest", "kind", "seed", "rows", "estimate", "p", "seconds", "created")


def _json(numbers: Mapping[str, float]) -> str:
    return json.dumps({name: float(value) for name, value in numbers.items()})


def to_row(m: Measurement) -> dict[str, Any]:
    """The columns of a measurement (`quality` repeated in one of its own, for whoever reads the table with SQL)."""
    return {
        "architecture_id": m.architecture.id,
        "method": m.architecture.method,
        "architecture": m.architecture.canonical,
        "task": m.task,
        "split": m.split,
        "split_digest": m.split_digest,
        "weights_digest": m.weights_digest,
        "kind": m.kind,
        "control": m.control,
        "metric": m.metric,
        "metrics": _json(m.metrics),
        "quality": float(m.quality),
        "latency": _json(m.costs.latency),
        "embedding_parameters": int(m.costs.embedding_parameters),
        "other_parameters": int(m.costs.other_parameters),
        "flops": int(m.costs.flops),
        "length": m.costs.length,
        "batch": m.costs.batch,
        "seed": int(m.seed),
        "seconds": float(m.seconds),
        "created": m.created,
    }


def from_row(row: Mapping[str, Any]) -> Measurement:
    """The inverse of `to_row`."""
    return Measurement(
        architecture=Architecture(row["method"], row["architecture"]),
        costs=Costs(
            row["embedding_parameters"], row["other_parameters"], row["flops"], row["length"], row["batch"], json.loads(row["latency"])
        ),
        metrics=json.loads(row["metrics"]),
        **{name: row[name] for name in ("task", "split", "split_digest", "weights_digest", "kind", "seed")},
        **{name: row[name] for name in ("metric", "control", "seconds", "created")},
    )


def to_stopped_row(stopped: Stopped) -> dict[str, Any]:
    """The columns of what was stopped; `rivals` as JSON."""
    same = {name: getattr(stopped, name) for name in _OF_STOPPED}
    architecture = {"method": stopped.architecture.method, "architecture": stopped.architecture.canonical}
    return {"architecture_id": stopped.architecture.id, **architecture, **same, "rivals": json.dumps(list(stopped.rivals))}


def from_stopped_row(row: Mapping[str, Any]) -> Stopped:
    """The inverse of `to_stopped_row`."""
    same = {name: row[name] for name in _OF_STOPPED}
    return Stopped(Architecture(row["method"], row["architecture"]), rivals=tuple(json.loads(row["rivals"])), **same)
