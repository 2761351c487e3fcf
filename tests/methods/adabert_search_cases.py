"""What the tests of AdaBERT's search share: a small task with a teacher, options, a search from a fresh supernet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from methods.adabert.options import AdaBertOptions
from methods.adabert.probes import train_probes
from methods.adabert.search_stage import search
from methods.adabert.space import AdaBertSpace
from methods.adabert.supernet import AdaBertSupernet
from methods.adabert.teacher_signals import TeacherSignals, teacher_signals
from methods.backbone import Backbone
from methods.dynabert.space import full_spec
from methods.network import Network
from methods.recipe import Context, Hardware
from methods.tasks.spec import TaskSpec
from methods.tasks.split import Split
from methods.tasks.task import Task
from tests.conformance.cases import randomise

SMALL = {"cells": 2, "nodes": 2, "width": 8, "operations": ["conv_3", "max_pool_3", "identity"], "dropout": 0.1}
SPECS = {
    "classes": TaskSpec("three", ("text",), "label", ("a", "b", "c"), "accuracy", ("accuracy",)),
    "pairs": TaskSpec("pairs", ("text", "other"), "label", ("a", "b", "c"), "accuracy", ("accuracy",)),
    "regression": TaskSpec("values", ("text",), "label", (), "pearson", ("pearson",)),
}


def task_of(kind: str = "classes", rows: int = 48, words: int = 6, seed: int = 0) -> Task:
    """Random sentences of known words; the label depends on how often a word occurs."""
    from tests.conftest import WORDS

    rng = np.random.default_rng(seed)

    def sentences() -> list[list[str]]:
        return [list(rng.choice(WORDS[:6], size=rng.integers(3, words + 1))) for _ in range(rows)]

    first, second = sentences(), sentences()
    counts = np.array([min(2, a.count("good") + (b.count("good") if kind == "pairs" else 0)) for a, b in zip(first, second, strict=True)])
    labels = counts.astype("float32") + 0.5 if kind == "regression" else counts
    texts, others = tuple(map(" ".join, first)), tuple(map(" ".join, second)) if kind == "pairs" else None
    parts = {name: Split(name, texts, others, labels, np.arange(rows) + i * rows) for i, name in enumerate(("train", "search"))}
    return Task(SPECS[kind], parts)


def context_of(backbone: Backbone, folder: Path, kind: str = "classes", seed: int = 0, task: Task | None = None) -> Context:
    """With a random teacher."""
    task = task or task_of(kind)
    teacher = Network(full_spec(backbone.config, task.head))
    randomise(teacher, 3)
    return Context(folder, backbone, task, seed, teacher.eval(), Hardware(), max_length=16)


def options_of(space: dict[str, Any] | None = None, loss: dict[str, Any] | None = None, **search: Any) -> AdaBertOptions:
    base = {"steps": 6, "batch_size": 16, "weights": {"learning_rate": 0.05}, "architecture": {"learning_rate": 0.05}}
    return AdaBertOptions(**{**SMALL, **(space or {})}, probes={"epochs": 2}, search={**base, **search, "loss": loss or {}})


def signals_of(context: Context, options: AdaBertOptions) -> TeacherSignals:
    return teacher_signals(context, options.probes, train_probes(context, options.probes))


def fresh_supernet(context: Context, options: AdaBertOptions) -> AdaBertSupernet:
    torch.manual_seed(context.seed)
    return AdaBertSupernet(AdaBertSpace(options), context.backbone.config, context.task.head)


def searched(context: Context, options: AdaBertOptions, signals: TeacherSignals | None = None) -> AdaBertSupernet:
    supernet = fresh_supernet(context, options)
    search(context, options, supernet, signals or signals_of(context, options))
    return supernet
