"""What a task asks of a network: the kind of its output layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HeadKind = Literal["classification", "regression", "span", "mlm", "none"]


@dataclass(frozen=True)
class Head:
    """`labels` outputs per sequence (classification: classes, regression: 1); `pair`: the task hands over two texts."""

    kind: HeadKind
    labels: int = 1
    pair: bool = False

    def __post_init__(self) -> None:
        if self.kind == "classification" and self.labels < 2:
            raise ValueError(f"a classification head has at least 2 labels, got {self.labels}")
        if self.kind == "regression" and self.labels != 1:
            raise ValueError(f"a regression head has 1 output, got {self.labels}")
