"""The teacher: the backbone fine-tuned on the task, one per task, shared by all methods."""

from __future__ import annotations

import torch
from pydantic import Field, field_validator

from methods.backbone import BackboneConfig
from methods.costs import costs
from methods.dynabert.space import full_spec
from methods.evaluation import weights_digest
from methods.network import Network, task_loss
from methods.recipe import Context, StagePlan
from methods.tasks.batches import joint
from methods.tasks.head import Head
from methods.training.initialisation import initialise, load_backbone
from methods.training.loop import Backward, Batch
from methods.training.options import Options, Schedule, refuse_selection
from methods.training.stage import run_stage, training_flops, training_memory

STAGE = "fine-tune"


class TeacherOptions(Options):
    """How the backbone is fine-tuned."""

    schedule: Schedule = Field(default_factory=Schedule)

    @field_validator("schedule")
    @classmethod
    def _last_state(cls, schedule: Schedule) -> Schedule:
        refuse_selection(schedule.select_every)
        return schedule


def fine_tune_teacher(context: Context, options: TeacherOptions) -> Network:
    """The fine-tuned backbone as a stand-alone network in eval mode; trains on `train` alone, reads a finished one back."""
    config, head = context.backbone.config, context.task.head
    torch.manual_seed(context.seed)
    network = Network(full_spec(config, head))
    initialise(network, config.initializer_range)
    load_backbone(network, context.backbone.weights())
    start = weights_digest(network)

    def step(batch: Batch, backward: Backward) -> dict[str, float]:
        logits = network(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))["logits"]
        loss = task_loss(head, logits, batch["labels"])
        backward(loss)
        return {"loss": float(loss.detach())}

    collate = joint(context.backbone.tokenizer, context.max_length)
    settings = {"backbone": config.to_dict(), "start": start, "max_length": context.max_length}
    run_stage(context, STAGE, network, step, options.schedule, collate, training_flops([network.spec]), settings)
    return network


def plan_teacher(options: TeacherOptions, backbone: BackboneConfig, head: Head, rows: int, length: int) -> StagePlan:
    """What fine-tuning the teacher costs."""
    spec = full_spec(backbone, head)
    steps = options.schedule.steps(rows)
    examples = steps * min(rows, options.schedule.batch_size * options.schedule.accumulation)
    parameters = costs(spec).parameters
    memory = training_memory(spec, parameters, 0, options.schedule.batch_size, length)
    return StagePlan(STAGE, steps, examples, examples * training_flops([spec])(1, length), memory)
