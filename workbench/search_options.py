"""What an experiment looks for: budgets, the search under them, and the control rows beside the winners."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from methods.baselines.truncated import TruncatedOptions
from methods.budget import LIMITS, Budget
from methods.space import SearchSpace
from methods.training.options import Options
from search.strategies import registry as strategies
from workbench.fields import Count, Latency, Quantity


class BudgetEntry(Options):
    """Upper limits, with K, M, G or T behind the number; at least one. `max_latency`: {DEVICE: 12ms}, of a device under `devices`."""

    name: str = ""
    max_params: Quantity = None
    max_params_non_embedding: Quantity = None
    max_flops: Quantity = None
    max_latency: dict[str, Latency] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _limited(self) -> BudgetEntry:
        if not self.budget().limits():
            raise ValueError("no limit; set max_params, max_params_non_embedding, max_flops or max_latency")
        return self

    def budget(self) -> Budget:
        return Budget(self.max_params, self.max_params_non_embedding, self.max_flops, self.max_latency, self.name)


def _switched(value: Any) -> Any:
    """`true` for the defaults, `false` for none."""
    return {} if value is True else None if value is False else value


def _strategy(name: str) -> str:
    known = (strategies.AUTO, *strategies.names())
    if name not in known:
        raise ValueError(f"there is no such strategy; there are {', '.join(known)}")
    return name


class Controls(Options):
    """Rows that show what a method is worth; the teacher is always there.

    `random`: so many random architectures in 90-100 % of each budget, finished as the winner is; 20 or more of a method with a rule of
    derivation (AdaBERT) are scored with shared weights too and compete. `untrained`: the winner's shape cut from untrained weights.
    `floors`: what a method names as the least that it has to beat (AdaBERT: bag of embeddings, fixed CNN). `truncated_kd`: the teacher
    cut evenly to fewer layers and distilled; `true` or its options. `equal_flops`: truncated-kd gets as many training FLOPs as the
    costliest method on that task, shared by the depths that the budgets ask for; else its own `epochs` hold. A method that is trained
    on the corpus counts with its stages on the task and its stages on the corpus divided by the number of tasks, controls left out.

    `hand_made` sets beside each budget's winner the hand-made network of the same budget, finished the same way, where the method has
    such networks; `variants` are names of budgets under which both are also finished in the method's other ways (NAS-BERT, AdaBERT:
    from the supernet's weights, or from scratch). `int8`: each budget's winner with weights of 8 bit (onnxruntime's dynamic quantisation),
    run in batches of `cost.batch`.
    """

    random: Annotated[int, Field(ge=0)] = 5
    untrained: bool = True
    truncated_kd: Annotated[TruncatedOptions | None, BeforeValidator(_switched)] = Field(default_factory=TruncatedOptions)
    equal_flops: bool = True
    floors: bool = True
    hand_made: bool = False
    variants: tuple[str, ...] = ()
    int8: bool = False


class SearchOptions(Options):
    """`strategy: auto` is exhaustive in a space of no more architectures than would be measured, else `predictor`. `evaluations`: how many
    architectures each search may measure (None: the strategy's own number; exhaustive: all). `generation`: so many are proposed before
    any of them is measured, which is also how many workers can measure at once.

    `objectives`: costs, by the names of their limits (`max_flops`). With them one search looks for the front of quality and these costs,
    within the widest of the limits that all budgets have, and serves every budget; without, there is a search per budget.

    `early_stop`: a search that looks for one best stops evaluating what has no hope to become it; this is the probability with which it
    may stop, in error, anything that could have (0.05; None: everything is evaluated whole). Of methods with a supernet per task, whose
    metric is accuracy.

    `report_all`: every architecture of an exhaustively searched space is also measured on `validation`; printed, never ranked by.
    Methods trained on the corpus are searched by their tables, whatever the strategy; `sampled`: so many networks drawn from the
    tables are estimated and assembled too, to show how well the estimates rank.
    """

    strategy: Annotated[str, AfterValidator(_strategy)] = strategies.AUTO
    evaluations: Count | None = None
    generation: Count = 8
    objectives: tuple[str, ...] = ()
    early_stop: Annotated[float, Field(gt=0, lt=1)] | None = None
    report_all: bool = False
    sampled: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _listed(self) -> SearchOptions:
        if self.report_all and self.strategy not in ("exhaustive", strategies.AUTO):
            raise ValueError("report_all goes with strategy: exhaustive")
        return self

    @model_validator(mode="after")
    def _one_best(self) -> SearchOptions:
        if self.early_stop is not None and self.objectives:
            raise ValueError("early_stop: a front has no one best that the rest could be worse than; leave out early_stop or objectives")
        if self.early_stop is not None and self.report_all:
            raise ValueError("early_stop: report_all shows every architecture, and some are not evaluated; leave out one of them")
        return self

    @model_validator(mode="after")
    def _known_costs(self) -> SearchOptions:
        for index, name in enumerate(self.objectives):
            if name not in LIMITS and not name.startswith("max_latency."):
                raise ValueError(f"objectives[{index}]: {name!r} is no cost; there are {', '.join(LIMITS)} and max_latency.<device>")
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"objectives must be distinct, got {', '.join(self.objectives)}")
        return self

    def strategy_for(self, space: SearchSpace) -> str:
        """The strategy's name, which `auto` becomes for a space."""
        return strategies.resolve(self.strategy, space.size(), self.evaluations)
