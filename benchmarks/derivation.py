"""How fast the most probable architectures of AdaBERT's own space (76,527,504) are found under a budget, and its Pareto set.

Random architecture parameters that like deep networks of convolutions, so that limits bind; BERT-base's vocabulary, length 128.
"""

from __future__ import annotations

import torch

from benchmarks.costs import seconds
from methods.adabert.budgeted import budgeted, pareto
from methods.adabert.derivation import AlphaModel
from methods.adabert.space import AdaBertSpace
from methods.backbone import BERT_BASE
from methods.budget import Budget
from methods.costs import Costs, costs
from methods.space import Architecture
from methods.tasks.head import Head

HEAD = Head("classification", 2)
BUDGETS = (
    Budget(),
    Budget(max_flops=4e8),
    Budget(max_flops=1e8),
    Budget(max_params=6e6),
    Budget(max_params=5e6, max_flops=2e8),
    Budget(max_params_non_embedding=1e5, max_flops=5e7),
)


def main() -> None:
    space, known = AdaBertSpace(), dict[Architecture, Costs]()

    def cost_of(architecture: Architecture) -> Costs:
        if architecture not in known:
            known[architecture] = costs(space.spec(architecture, BERT_BASE, HEAD))
        return known[architecture]

    generator = torch.Generator().manual_seed(0)
    edges = torch.randn(len(space.edges), len(space.columns), generator=generator)
    edges[:, :6] += 1
    depth = torch.randn(space.options.cells, generator=generator) + 0.5 * torch.arange(space.options.cells)
    model = AlphaModel.of(space, edges, depth)
    print(f"{space.size():,} architectures")
    print(f"{'budget':<44}{'the best':>11}{'100 best':>11}{'log-probability':>17}{'K':>4}{'FLOPs':>16}")
    for budget in BUDGETS:
        best = budgeted(model, budget, cost_of)[0]
        one, many = (seconds(lambda b=budget, n=count: budgeted(model, b, cost_of, n), 5) for count in (1, 100))
        cells, flops = best.architecture.choices["K"], cost_of(best.architecture).flops
        print(f"{budget.label():<44}{one:>9.3f} s{many:>9.3f} s{best.log_probability:>17.3f}{cells:>4}{flops:>16,}")
    for cost in ("max_flops", "max_params"):
        points = len(pareto(model, cost_of, cost))
        print(f"Pareto set of log-probability and {cost}: {points} points in {seconds(lambda c=cost: pareto(model, cost_of, c), 5):.3f} s")


if __name__ == "__main__":
    main()
