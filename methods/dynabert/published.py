"""A published DynaBERT: the state dict of a `transformers` classifier with its config.json, taken as an already trained supernet.

The released code saves the whole super-network under the names of BertForSequenceClassification or RobertaForSequenceClassification,
rewired, and never cuts a sub-network out; which multipliers it was trained with need not stand in its config.json.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from methods.backbone import BackboneConfig
from methods.dynabert.supernet import DynaBertSupernet
from methods.errors import UserError
from methods.recipe import Context, StageRecord
from methods.tasks.spec import KNOWN, TaskSpec
from methods.training.checkpoint import file_digest
from methods.training.initialisation import network_name
from methods.training.processes import is_main_process, wait_for_everyone
from methods.training.stage import DONE, read_finished, read_mark, write_finished

LOADED = "loaded"
"""The stage that stands for all training of the checkpoint."""
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
MNLI = {"bert": ("contradiction", "entailment", "neutral"), "roberta": ("contradiction", "neutral", "entailment")}
"""MNLI's labels in the order of the released code, 1 and 2 swapped for RoBERTa; those of all other tasks are in the hub's."""
_SIZES = {"hidden_size": "hidden", "num_hidden_layers": "layers", "num_attention_heads": "heads", "intermediate_size": "intermediate"}
_OTHERS = {"vocab_size": "vocabulary", "type_vocab_size": "types", "hidden_act": "activation", "layer_norm_eps": "layer_norm_eps"}
_UNREAD = re.compile(r".*\.position_ids$|roberta\.pooler\.")
"""Tensors that old files hold and nothing reads."""
_CLASSIFIERS = (("classifier.dense.", "head.pooler."), ("classifier.out_proj.", "head.classifier."), ("classifier.", "head.classifier."))
_OLD_NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


@dataclass(frozen=True)
class Published:
    """A checkpoint's two files, in a directory or from the hub, and what its config.json holds."""

    config_file: Path
    weights_file: Path
    config: Mapping[str, Any]

    @classmethod
    def open(cls, place: str) -> Published:
        """From a directory or a hub id. Raises UserError where one of the files is missing or config.json is damaged."""
        files = _files(place)
        if files is None:
            hint = f"neither a directory with {CONFIG} and {' or '.join(WEIGHTS)} nor a hub id at hand that has them"
            raise UserError(f"checkpoint: {place!r} is {hint}")
        try:
            config = json.loads(files[0].read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{files[0]}: can't be read as JSON ({error})") from error
        if not isinstance(config, dict):
            raise UserError(f"{files[0]}: holds no mapping; the configuration of a transformers model is needed")
        return cls(*files, config)

    def state(self, backbone: BackboneConfig, task: TaskSpec, widths: Sequence[float], depths: Sequence[float]) -> dict[str, Tensor]:
        """The tensors (float32) by the supernet's names, the classifier's rows in the order of the task's labels.

        Raises UserError, by file and key, where the checkpoint is not of this backbone and task, was not trained at one of the
        multipliers, or is damaged. What is pickled there besides tensors is refused, not unpickled.
        """
        if task.kind == "span":
            raise UserError(f"{self.config_file}: a classifier; the spans that task {task.name} asks for can't be had from it")
        self._check_config(backbone)
        self._check_multipliers("width_mult_list", widths)
        self._check_multipliers("depth_mult_list", depths)
        order, found = self._order_of_labels(backbone, task), self._tensors(backbone, task)
        for name in ("head.classifier.weight", "head.classifier.bias"):
            found[name] = found[name][order]
        return found

    def _check_config(self, backbone: BackboneConfig) -> None:
        """What is said there of the shape; the released code's files say no `model_type`."""
        wanted = {key: getattr(backbone, name) for key, name in (_SIZES | _OTHERS).items()}
        wanted |= {"model_type": backbone.family, "max_position_embeddings": backbone.positions + backbone.position_offset}
        for key, value in wanted.items():
            if key in _SIZES and key not in self.config:
                raise UserError(f"{self.config_file}: {key}: missing; the backbone has {value}")
            if self.config.get(key, value) != value:
                raise UserError(f"{self.config_file}: {key}: {self.config[key]!r}, but the backbone has {value!r}")

    def _check_multipliers(self, key: str, asked: Sequence[float]) -> None:
        """Where the checkpoint says what it was trained with: a list, or numbers with commas between them."""
        said = self.config.get(key)
        if said is None:
            return
        try:
            trained = [float(entry) for entry in (said.split(",") if isinstance(said, str) else said)]
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.config_file}: {key}: {said!r} is no list of multipliers, such as [0.5, 1.0]") from error
        missing = [multiplier for multiplier in asked if multiplier not in trained]
        if missing:
            option = key.replace("_mult_list", "s")
            raise UserError(f"{option}: {missing[0]} was not trained in the checkpoint; {self.config_file} has {key}: {trained}")

    def _order_of_labels(self, backbone: BackboneConfig, task: TaskSpec) -> list[int]:
        """For each label of the task its row in the checkpoint's classifier.

        By the names in `id2label`; where these are missing or say nothing (LABEL_0), in the order of the released code for a known
        task, else in the task's own.
        """
        if not task.labels:
            return [0]
        names = self._names_of_labels()
        if names is None:
            known = KNOWN[task.name].spec.labels if task.name in KNOWN else task.labels
            known = MNLI[backbone.family] if task.name == "mnli" else known
            names = known if set(known) == set(task.labels) else task.labels
        rows = {name.lower(): row for row, name in enumerate(names)}
        if set(rows) != {label.lower() for label in task.labels}:
            raise UserError(f"{self.config_file}: id2label: {', '.join(names)}; task {task.name} has the labels {', '.join(task.labels)}")
        return [rows[label.lower()] for label in task.labels]

    def _names_of_labels(self) -> tuple[str, ...] | None:
        said = self.config.get("id2label")
        if said is None:
            return None
        if not isinstance(said, dict) or set(said) != {str(row) for row in range(len(said))}:
            raise UserError(f"{self.config_file}: id2label: {said!r}; the labels' names by the numbers from 0 are needed")
        names = tuple(str(said[str(row)]) for row in range(len(said)))
        return None if all(name in (str(row), f"LABEL_{row}") for row, name in enumerate(names)) else names

    def _tensors(self, backbone: BackboneConfig, task: TaskSpec) -> dict[str, Tensor]:
        """All that the supernet has, by its names; exactly that must be there."""
        path, found, wanted = self.weights_file, self._read(), _shapes(backbone, task)
        missing = [name for name in wanted if name not in found]
        strange = [name for name in found if name not in wanted]
        if missing:
            raise UserError(
                f"{path}: {missing[0]}: missing ({len(missing)} of {len(wanted)} tensors of a {backbone.family} classifier are)"
            )
        if strange:
            raise UserError(f"{path}: {strange[0]}: a {backbone.family} classifier of {backbone.layers} layers has no such tensor")
        outputs = list(wanted)[-2:]
        for name, shape in wanted.items():
            if found[name].shape != shape:
                why = f"task {task.name} has {task.head.labels} outputs" if name in outputs else "by the backbone's configuration"
                raise UserError(f"{path}: {name}: shape {tuple(found[name].shape)}; {tuple(shape)} is needed ({why})")
        return {_own_name(name, backbone.family): found[name].float() for name in wanted}

    def _read(self) -> dict[str, Tensor]:
        path = self.weights_file
        try:
            found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle, zip, torch and safetensors raise what they like
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{path}: damaged, or holds more than tensors, which is not unpickled ({reason})") from error
        if not isinstance(found, dict) or not all(isinstance(name, str) and isinstance(t, Tensor) for name, t in found.items()):
            raise UserError(f"{path}: no state dict; tensors by their names in a transformers classifier are needed")
        for old, new in _OLD_NORMS.items():
            found = {name.replace(old, new): tensor for name, tensor in found.items()}
        return {name: tensor for name, tensor in found.items() if not _UNREAD.match(name)}


def load_published(
    context: Context, supernet: DynaBertSupernet, place: str, widths: Sequence[float], depths: Sequence[float]
) -> DynaBertSupernet:
    """The supernet with the checkpoint's weights, in eval mode: the stage `loaded`, which costs nothing and knows the files' digests.

    Run again it is read from the run folder, where a copy lies. Raises UserError where the checkpoint has changed since then; one that
    is gone is not asked for.
    """
    folder, backbone, task = context.folder / LOADED, supernet.backbone, context.task.spec
    fingerprint: dict[str, Any] = {"stage": LOADED, "labels": list(task.labels)}
    if (folder / DONE).exists():
        digests = read_mark(folder)[0]["fingerprint"].get("checkpoint", {})
        for file in _files(place) or ():
            if digests.get(file.name) != file_digest(file):
                raise UserError(f"{file}: has changed since this run loaded it; put the old file back, or choose another run folder")
        record = read_finished(folder, supernet, {**fingerprint, "checkpoint": digests})
    else:
        started, published = time.monotonic(), Published.open(place)
        supernet.load_state_dict(published.state(backbone, task, widths, depths))
        record = StageRecord(LOADED, 0, 0, 0.0, time.monotonic() - started)
        digests = {file.name: file_digest(file) for file in (published.config_file, published.weights_file)}
        if is_main_process():
            write_finished(folder, supernet, {**fingerprint, "checkpoint": digests}, record)
        wait_for_everyone()
    context.record(record)
    return supernet.eval()


def _files(place: str) -> tuple[Path, Path] | None:
    """config.json and the weights (safetensors where there are both); None where one of them is not there."""
    config = _file(place, CONFIG)
    weights = next((found for name in WEIGHTS if config and (found := _file(place, name))), None)
    return (config, weights) if config and weights else None


def _file(place: str, name: str) -> Path | None:
    if Path(place).is_dir():
        return Path(place) / name if (Path(place) / name).is_file() else None
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(place, name))
    except Exception:  # its errors for a bad name, no connection and no such file have no base of their own that is public
        return None


def _shapes(backbone: BackboneConfig, task: TaskSpec) -> dict[str, torch.Size]:
    """The shapes of the `transformers` classifier's tensors by their names there; its output layer is last."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    b = backbone
    sizes = {key: getattr(b, name) for key, name in (_SIZES | _OTHERS).items()}
    positions = b.positions + b.position_offset
    padding = {"pad_token_id": b.padding_id, "num_labels": task.head.labels}
    config = AutoConfig.for_model(b.family, **sizes, max_position_embeddings=positions, **padding)
    with torch.device("meta"):
        state = AutoModelForSequenceClassification.from_config(config).state_dict()
    return {name: tensor.shape for name, tensor in state.items()}


def _own_name(name: str, family: str) -> str:
    """Our name of a tensor of the `transformers` classifier."""
    for theirs, ours in _CLASSIFIERS:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    own = network_name(name.removeprefix(f"{family}."))
    if own is None:
        raise ValueError(f"{name}: no tensor of {family} with a classifier")
    return own
