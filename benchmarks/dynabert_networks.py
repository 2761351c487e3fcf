"""How fast DynaBERT's sub-networks run, extracted and inside the supernet, and where the time of an evaluation goes.

`python -m benchmarks.dynabert_networks [--backbone DIRECTORY] [--data DIRECTORY] [--rounds N] [--texts N]`

Forward passes of one text of 128 tokens and of a ragged batch of 16 texts. `plain`: the `transformers` model of that depth where the width
is 1 (target: an extracted network takes at most 1.03 of its time), else a module of the same matrices written by hand (1.03); the supernet
that runs the sub-network: at most 1.10. Below, all sub-networks read `--texts` texts of `validation` as an evaluation does, under
torch.profiler: shares of the operators' own time. How many a second: `python -m benchmarks.evaluation`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig, BertForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from benchmarks.setting import HEAD, LENGTH, Setting, parser
from benchmarks.timing import in_turns
from methods.dynabert.supernet import DynaBertSupernet
from methods.evaluation import evaluate
from methods.supernet import inputs
from methods.tasks.batches import joint
from methods.tasks.spec import KNOWN

SHAPES = ((1.0, 1.0), (1.0, 0.5), (0.5, 1.0), (0.25, 0.5))
"""Width and depth."""
GROUPS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm"),
    "attention": ("_softmax", "softmax"),
    "gelu": ("gelu",),
    "norms": ("native_layer_norm",),
    "slices and views": ("slice", "narrow", "as_strided", "view", "_unsafe_view", "transpose", "t", "select", "expand", "unsqueeze"),
    "embedding": ("embedding", "index_select"),
}


def main() -> None:
    options = parser("dynabert_networks")
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--texts", type=int, default=128)
    asked = options.parse_args()
    setting = Setting.of(asked)
    supernet = setting.supernet().eval()
    print(f"{setting.about}, medians of {asked.rounds} rounds")
    ids = torch.randint(1000, 20_000, (1, LENGTH))
    (ragged,) = setting.batches(1, 16)
    with torch.inference_mode():
        for batch in ({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, inputs(ragged)):
            print(f"{'x'.join(map(str, batch['input_ids'].shape)):<10}{'plain':>10}{'extracted':>11}{'supernet':>10}")
            for width, depth in SHAPES:
                against_plain(supernet, batch, width, depth, asked.rounds)
    where_time_goes(supernet, setting, asked.texts)


def against_plain(supernet: DynaBertSupernet, batch: dict[str, Tensor], width: float, depth: float, rounds: int) -> None:
    """A line: milliseconds of the plain network, and how many times that the others take. The logits must agree."""
    architecture = supernet.space.decode({"width": width, "depth": depth})
    network = supernet.extract(architecture)
    plain = transformers_model(network) if width == 1 else HandWritten(network)
    runs = {
        "plain": lambda: plain(**batch)["logits"],
        "extracted": lambda: network(**batch)["logits"],
        "supernet": lambda: supernet(batch, architecture)["logits"],
    }
    for run in runs.values():
        torch.testing.assert_close(run(), runs["plain"](), rtol=1e-4, atol=1e-5)
    turns = in_turns(runs, rounds)
    ratios = turns.ratio("extracted", "plain"), turns.ratio("supernet", "plain")
    print(f"  {width:<4} {depth:<4}{1e3 * turns.median('plain'):>7.1f} ms{ratios[0]:>11.3f}{ratios[1]:>10.3f}")


def transformers_model(network: Any) -> Any:
    """`BertForSequenceClassification` with the weights of a network of full width."""
    stem, encoder = network.stem, network.encoder
    layer = encoder[0]
    config = BertConfig(
        vocab_size=stem.word.num_embeddings,
        hidden_size=stem.word.embedding_dim,
        num_hidden_layers=len(encoder),
        num_attention_heads=layer.attention.query.out_features // layer.attention.head_size,
        intermediate_size=layer.feed_forward.intermediate.out_features,
        max_position_embeddings=stem.position.num_embeddings,
        num_labels=HEAD.labels,
    )
    model = BertForSequenceClassification(config).eval()
    embeddings = model.bert.embeddings
    pairs = [
        (embeddings.word_embeddings, stem.word),
        (embeddings.position_embeddings, stem.position),
        (embeddings.token_type_embeddings, stem.token_type),
        (embeddings.LayerNorm, stem.norm_before),
        (model.bert.pooler.dense, network.head.pooler),
        (model.classifier, network.head.classifier),
    ]
    for theirs, ours in zip(model.bert.encoder.layer, encoder, strict=True):
        attention, feed_forward = ours.attention, ours.feed_forward
        pairs += [(getattr(theirs.attention.self, name), getattr(attention, name)) for name in ("query", "key", "value")]
        pairs += [(theirs.attention.output.dense, attention.output), (theirs.attention.output.LayerNorm, attention.norm)]
        pairs += [(theirs.intermediate.dense, feed_forward.intermediate), (theirs.output.dense, feed_forward.output)]
        pairs += [(theirs.output.LayerNorm, feed_forward.norm)]
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    return model


class HandWritten(nn.Module):
    """A network's own matrices in a module that knows nothing of widths, and answers as `transformers` models do."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem, self.layers, self.head = network.stem, nn.ModuleList(map(PlainLayer, network.encoder)), network.head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> SequenceClassifierOutput:
        hidden = self.stem(input_ids, attention_mask, token_type_ids)
        mask = attention_mask.bool()[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return SequenceClassifierOutput(logits=self.head((hidden,), attention_mask))


class PlainLayer(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        a, f = layer.attention, layer.feed_forward
        self.size = a.head_size
        self.query, self.key, self.value, self.output, self.norm = a.query, a.key, a.value, a.output, a.norm
        self.up, self.down, self.second_norm = f.intermediate, f.output, f.norm

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        batch, length, _ = hidden.shape
        q, k, v = (p(hidden).view(batch, length, -1, self.size).transpose(1, 2) for p in (self.query, self.key, self.value))
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(batch, length, -1)
        hidden = self.norm(hidden + self.output(context))
        output: Tensor = self.second_norm(hidden + self.down(F.gelu(self.up(hidden))))
        return output


def where_time_goes(supernet: DynaBertSupernet, setting: Setting, texts: int) -> None:
    """Shares of the operators' own time in an evaluation of every sub-network."""
    every, task = list(supernet.space.enumerate()), KNOWN["sst2"].spec
    rows = setting.validation.take(range(0, len(setting.validation), max(1, len(setting.validation) // texts)))
    collate = joint(setting.tokenizer, LENGTH)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for architecture in every:
            evaluate(lambda batch, a=architecture: supernet.forward_logits(batch, a), collate, rows, task)  # type: ignore[misc]
    shares: Counter[str] = Counter()
    for event in profiled.key_averages():
        shares[group_of(event.key.removeprefix("aten::"))] += event.self_cpu_time_total
    print(f"evaluating {len(every)} sub-networks on {len(rows)} texts, shares of the operators' time:")
    print("  " + ", ".join(f"{group} {share / shares.total():.1%}" for group, share in shares.most_common()))


def group_of(operator: str) -> str:
    if operator.startswith("_scaled_dot_product"):
        return "attention"
    return next((group for group, names in GROUPS.items() if operator in names), "the rest")


if __name__ == "__main__":
    main()
