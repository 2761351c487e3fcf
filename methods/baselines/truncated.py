"""`truncated-kd`: the teacher cut evenly to fewer layers at full width and distilled, the control that needs no search.

The layers are chosen by DynaBERT's rule, the loss is that of its second stage, so that only the supernet is missing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from pydantic import field_validator

from methods.backbone import BackboneConfig
from methods.dynabert.options import Weight
from methods.dynabert.space import encoder_spec, evenly_kept, full_spec, transformer_layer
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.network import Network, NetworkSpec, distributions
from methods.recipe import Context
from methods.space import Architecture
from methods.tasks.batches import joint
from methods.tasks.head import Head
from methods.training.distillation import hidden_loss, soft_cross_entropy
from methods.training.loop import Backward, Batch
from methods.training.options import Schedule, refuse_selection
from methods.training.stage import epoch_flops, run_stage, training_flops, training_rows

NAME = "truncated-kd"


class TruncatedOptions(Schedule):
    """`lambda_logits` x soft cross-entropy + `lambda_hidden` x hidden states; `epochs` holds where no amount of FLOPs is given to it.

    `augmented`: the rows' copies are read too, where section `augmentation` makes any.
    """

    lambda_logits: Weight = 1.0
    lambda_hidden: Weight = 1.0
    augmented: bool = True

    @field_validator("select_every")
    @classmethod
    def _never(cls, value: int) -> int:
        return refuse_selection(value)


def truncated_architectures(backbone: BackboneConfig) -> list[Architecture]:
    """One architecture per depth, deepest first: full width, evenly spaced layers."""
    depths = range(backbone.layers, 0, -1)
    return [Architecture.of(NAME, {"layers": list(evenly_kept(backbone.layers, n))}) for n in depths]


def truncated_spec(architecture: Architecture, backbone: BackboneConfig, head: Head) -> NetworkSpec:
    """The network of such an architecture."""
    layers = [transformer_layer(backbone, i, backbone.heads, backbone.intermediate) for i in architecture.choices["layers"]]
    return encoder_spec(backbone, head, layers)


def train_truncated(context: Context, architecture: Architecture, options: TruncatedOptions, flops: float | None = None) -> Network:
    """Distils the cut teacher: for as many steps as `flops` training FLOPs pay for, else for `options.epochs`."""
    if context.teacher is None:
        raise UserError(f"{NAME}: needs a fine-tuned teacher (section `teacher` of the experiment)")
    config, head = context.backbone.config, context.task.head
    teacher = copy.deepcopy(context.teacher).to(context.hardware.device).eval().requires_grad_(False)
    kept = architecture.choices["layers"]
    student = cut_teacher(context.teacher, architecture, config, head)

    def step(batch: Batch, backward: Backward) -> dict[str, float]:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        with torch.no_grad():
            taught = teacher(**inputs)
        output = student(**inputs)
        faced = [taught["hidden_states"][layer] for layer in kept] + [taught["hidden_states"][-1]]
        hidden = hidden_loss(output["hidden_states"], faced, batch["attention_mask"])
        logits = _prediction(head, output["logits"], taught["logits"])
        backward(options.lambda_logits * logits + options.lambda_hidden * hidden)
        return {"logits": float(logits.detach()), "hidden": float(hidden.detach())}

    collate = joint(context.backbone.tokenizer, context.max_length)
    per_batch = training_flops([student.spec], [full_spec(config, head)])
    schedule = options
    if flops is not None:
        data = collate.encode(training_rows(context, options, options.augmented))
        schedule = options.model_copy(update={"epochs": flops / epoch_flops(data.lengths, options.batch_size, context.seed, per_batch)})
    settings = {"architecture": architecture.canonical, "max_length": context.max_length, "teacher": weights_digest(context.teacher)}
    settings["options"] = options.model_dump(exclude={"augmented"})
    run_stage(context, f"{NAME}-{len(kept)}", student, step, schedule, collate, per_batch, settings, augmented=options.augmented)
    return student


def _prediction(head: Head, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    if head.kind == "regression":
        return torch.nn.functional.mse_loss(student.float(), teacher.float())
    return soft_cross_entropy(distributions(head, student), distributions(head, teacher))


def cut_teacher(teacher: Network, architecture: Architecture, backbone: BackboneConfig, head: Head) -> Network:
    """The teacher's kept layers as a network of its own."""
    student = Network(truncated_spec(architecture, backbone, head))
    state = teacher.state_dict()
    place = {f"encoder.{i}.": f"encoder.{layer}." for i, layer in enumerate(architecture.choices["layers"])}

    def source(name: str) -> str:
        if not name.startswith("encoder."):
            return name
        prefix = name[: name.index(".", len("encoder.")) + 1]
        return place[prefix] + name[len(prefix) :]

    student.load_state_dict({name: state[source(name)] for name in student.state_dict()})
    return student.eval()


def deepest_that_fits(backbone: BackboneConfig, head: Head, fits: Callable[[NetworkSpec], bool]) -> Architecture | None:
    """The deepest truncated architecture whose network satisfies `fits`; None where not even one layer's does."""
    for architecture in truncated_architectures(backbone):
        if fits(truncated_spec(architecture, backbone, head)):
            return architecture
    return None
