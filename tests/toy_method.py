"""A fourth method, whole: networks of one attention layer in three widths, each with weights of its own."""

import copy

from torch import manual_seed, nn

from methods.layers.attention import SelfAttention
from methods.layers.embedding import Stem
from methods.layers.encoder import Chain
from methods.network import Network, NetworkSpec, make_head, task_loss
from methods.recipe import StagePlan, TaskRecipe
from methods.registry import Method
from methods.space import Architecture, Choice, SearchSpace
from methods.supernet import Supernet, inputs
from methods.tasks.batches import joint
from methods.training.options import Schedule
from methods.training.stage import run_stage, training_flops


class ToySpace(SearchSpace):
    method = "toy"
    choices = (Choice("width", (4, 8, 16), ordered=True, monotone=True),)

    def decode(self, assignment):
        return Architecture.of("toy", {"width": assignment["width"]})

    def encode(self, architecture):
        values = self.choices[0].values
        return {"width": values[values.index(architecture.choices["width"])]}

    def spec(self, architecture, backbone, head, form="deployed"):
        width = architecture.choices["width"]
        stem = Stem(backbone.vocabulary, backbone.positions, 0, width, padding_id=backbone.padding_id)
        return NetworkSpec(stem, Chain((SelfAttention(width, width // 4, 4),)), make_head(head, width, False, stem), head)


class ToySupernet(Supernet):
    def __init__(self, space, backbone, head):
        super().__init__(space, backbone, head)
        self.networks = nn.ModuleDict({str(a.choices["width"]): Network(space.spec(a, backbone, head)) for a in space.enumerate()})

    def forward(self, batch, architecture):
        return self.networks[str(architecture.choices["width"])](**inputs(batch))

    def extract(self, architecture):
        return copy.deepcopy(self.networks[str(architecture.choices["width"])])

    def parameters_of(self, architecture):
        prefix = f"networks.{architecture.choices['width']}."
        return {name: () for name, _ in self.named_parameters() if name.startswith(prefix)}


class ToyRecipe(TaskRecipe):
    def __init__(self, options):
        self.schedule = options

    def plan(self, space, backbone, head, rows, length, copies=0):
        return [StagePlan("train", self.schedule.steps(rows), rows, 3.0 * rows, 1)]

    def initial(self, context):
        manual_seed(context.seed)
        return ToySupernet(ToySpace(), context.backbone.config, context.task.head)

    def train(self, context):
        supernet = self.initial(context)

        def step(batch, backward):
            for architecture in supernet.space.enumerate():
                backward(task_loss(context.task.head, supernet(batch, architecture)["logits"], batch["labels"]))
            return {}

        flops = training_flops([supernet.spec(a) for a in supernet.space.enumerate()])
        run_stage(context, "train", supernet, step, self.schedule, joint(context.backbone.tokenizer, context.max_length), flops, {})
        return supernet

    def finish(self, context, supernet, architecture):
        return supernet.extract(architecture)


METHOD = Method(
    "toy", "one attention layer in three widths", "task", Schedule, lambda options, backbone: ToySpace(), ToySupernet, ToyRecipe, joint
)
