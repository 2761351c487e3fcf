"""What early stop saves: one search with it and one without, of a trained DynaBERT supernet's elastic space on SST-2's `search`.

`python -m benchmarks.early_stop --weights FILE [--error E] [--evaluations N] [--max-flops F] [--strategy NAME]`, one thread. FILE is
`weights.safetensors` of a finished stage of DynaBERT, such as RUN/sst2/dynabert/seed-0/width-and-depth/weights.safetensors; a random
supernet would have nothing to tell apart. Both searches go through the workbench's own code, each with an archive of its own.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.setting import LENGTH, parser
from methods import registry
from methods.backbone import Backbone
from methods.budget import Budget, parse_quantity
from methods.evaluation import evaluate
from methods.recipe import Context, Hardware, TaskRecipe
from methods.tasks.batches import joint
from methods.tasks.task import load_task
from search.archive import Archive
from search.limits import CostFunction
from search.query import Answer, best
from workbench.experiment import CostOptions
from workbench.measuring import Measurer
from workbench.search_options import SearchOptions
from workbench.shared_scores import SharedScores


def main() -> None:
    made = parser("early_stop")
    made.add_argument("--weights", type=Path, help="of a trained DynaBERT supernet")
    made.add_argument("--error", type=float, default=0.05)
    made.add_argument("--evaluations", type=int, default=40)
    made.add_argument("--max-flops", default="0.75G")
    made.add_argument("--strategy", default="predictor")
    asked = made.parse_args()
    if not (asked.weights and asked.weights.is_file() and asked.backbone.is_dir() and asked.data.is_dir()):
        print("early_stop: needs --weights of a supernet trained on SST-2, its --backbone and --data")
        return
    torch.set_num_threads(1)
    backbone, task = Backbone.load(str(asked.backbone)), load_task("sst2", str(asked.data)).restricted("train", "search")
    method = registry.get("dynabert")
    options = method.options(space="elastic", teacher_width="full")
    recipe, space = method.recipe(options), method.space(options, backbone.config)
    assert isinstance(recipe, TaskRecipe)
    supernet = method.supernet(space, backbone.config, task.head).eval()
    supernet.load_state_dict(load_file(asked.weights))
    collate, budget = joint(backbone.tokenizer, LENGTH), Budget(max_flops=parse_quantity(asked.max_flops))
    rows = task.split("search")
    evaluate(lambda batch: supernet.forward_logits(batch, space.smallest()), collate, rows, task.spec)  # tokens are made once
    print(f"{asked.weights}: {asked.evaluations} sub-networks of the elastic space, {len(rows)} rows, {asked.strategy}, {budget.label()}")
    for error in (None, asked.error):
        with tempfile.TemporaryDirectory() as folder, Archive(Path(folder) / "archive.db") as archive:
            measurer = Measurer(archive, task, collate, 0, CostOptions(), Hardware())
            cost_of = CostFunction(space, backbone.config, task.head)
            scores = SharedScores(recipe, Context(Path(folder), backbone, task, 0), supernet, measurer, cost_of)
            started = time.process_time()
            settings = SearchOptions(strategy=asked.strategy, evaluations=asked.evaluations, early_stop=error)
            (part,) = scores.search([budget], settings).passes
            seconds = time.process_time() - started
            evaluating = sum(one.seconds for one in (*part.measurements, *part.hopeless))
            told = len(part.measurements) + len(part.hopeless)
            share = (len(part.measurements) + sum(one.rows / len(rows) for one in part.hopeless)) / told
            answer = best(archive, budget)
            assert isinstance(answer, Answer)
            print(f"  early_stop {error}: {len(part.hopeless)} of {told} stopped; {100 * share:.1f} % of the rows read")
            print(f"    {told / seconds:.3f} a second of processor time, {told / evaluating:.3f} a second of evaluation (wall clock)")
            print(f"    the winner {answer.architecture.id[:12]}: accuracy {answer.quality:.4f}")


if __name__ == "__main__":
    main()
