"""The pre-trained encoder that everything starts from: its shape, its weights and its tokenizer, from a hub id or a directory."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from methods.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

FAMILIES = ("bert", "roberta")


@dataclass(frozen=True)
class BackboneConfig:
    """The shape of a BERT-like encoder; names of the paper of BERT, sizes as counts.

    `positions`: tokens that a text may have; RoBERTa's table has `position_offset` rows more, which no token reads.
    """

    vocabulary: int
    positions: int
    types: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    dropout: float = 0.1
    attention_dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    activation: str = "gelu"
    padding_id: int = 0
    initializer_range: float = 0.02
    family: str = "bert"

    def __post_init__(self) -> None:
        for name in ("vocabulary", "positions", "types", "hidden", "layers", "heads", "intermediate"):
            if not isinstance(size := getattr(self, name), int) or size < 1:
                raise UserError(f"backbone: {name} is {size!r}; a whole number of at least 1 is needed")
        if self.hidden % self.heads:
            raise UserError(f"backbone: hidden size {self.hidden} is no multiple of its {self.heads} attention heads")

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def position_offset(self) -> int:
        """The row of the position table that the first token reads: behind the padding's for RoBERTa, whose ids are 2..T+1."""
        return self.padding_id + 1 if self.family == "roberta" else 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_transformers(cls, config: Any, name: str = "backbone") -> BackboneConfig:
        """From a `transformers` configuration. Raises UserError where it is no encoder that this workbench can host."""
        family = getattr(config, "model_type", "?")
        if family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise UserError(f"backbone {name}: model type {family!r} is no BERT-like encoder that can be hosted; known: {known}")
        if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
            raise UserError(f"backbone {name}: a decoder; an encoder is needed (is_decoder: false)")
        if getattr(config, "position_embedding_type", "absolute") not in (None, "absolute"):
            raise UserError(f"backbone {name}: position_embedding_type {config.position_embedding_type!r}; absolute positions are needed")
        from transformers.activations import ACT2FN

        if config.hidden_act not in ACT2FN:
            raise UserError(f"backbone {name}: hidden_act {config.hidden_act!r} is unknown; gelu is BERT's")
        if family == "roberta" and not isinstance(config.pad_token_id, int):
            raise UserError(f"backbone {name}: pad_token_id {config.pad_token_id!r}; RoBERTa's positions count from behind it, 1 as a rule")
        padding = config.pad_token_id or 0
        return cls(
            vocabulary=config.vocab_size,
            positions=config.max_position_embeddings - (padding + 1 if family == "roberta" else 0),
            types=config.type_vocab_size,
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            intermediate=config.intermediate_size,
            dropout=config.hidden_dropout_prob,
            attention_dropout=config.attention_probs_dropout_prob,
            layer_norm_eps=config.layer_norm_eps,
            activation=config.hidden_act,
            padding_id=padding,
            initializer_range=config.initializer_range,
            family=family,
        )


BERT_BASE = BackboneConfig(vocabulary=30522, positions=512, types=2, hidden=768, layers=12, heads=12, intermediate=3072)
ROBERTA_BASE = replace(BERT_BASE, vocabulary=50265, types=1, layer_norm_eps=1e-5, padding_id=1, family="roberta")


@dataclass
class Backbone:
    """A backbone with its tokenizer; `weights()` reads the encoder's tensors under the names of `transformers`' model without a head."""

    name: str
    config: BackboneConfig
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, name: str) -> Backbone:
        """From a hub id or a directory. Raises UserError where nothing is there or it is no BERT-like encoder."""
        from transformers import AutoConfig, AutoTokenizer

        try:
            config = BackboneConfig.from_transformers(AutoConfig.from_pretrained(name), name)
            tokenizer = AutoTokenizer.from_pretrained(name)
        except UserError:
            raise
        except Exception as error:  # transformers and tokenizers raise a dozen kinds, down to bare Exception
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            hint = "neither a directory with config.json and a tokenizer nor a hub id at hand"
            raise UserError(f"backbone: {name!r} is {hint} ({reason})") from error
        if len(tokenizer) <= len(tokenizer.all_special_ids):
            raise UserError(f"backbone {name}: no tokenizer there (no tokenizer.json or vocab.txt with word pieces)")
        if len(tokenizer) > config.vocabulary:
            raise UserError(f"backbone {name}: the tokenizer has {len(tokenizer)} pieces, the word table only {config.vocabulary}")
        return cls(name, config, tokenizer)

    def weights(self) -> dict[str, Tensor]:
        """Tensors of the encoder (float32) by BertModel's names, without a prefix. Safetensors, or `.bin` with weights_only.

        RobertaModel's pooler is left out: nothing reads it, the classifier has a dense layer of its own.
        """
        from transformers import AutoModel

        model, lacking = self._read(AutoModel)
        missing = [key for key in lacking if not key.startswith("pooler.")]
        if missing:
            raise UserError(f"backbone {self.name}: the weights lack {len(missing)} tensors of the encoder, such as {missing[0]}")
        unread = (*lacking, "pooler.") if self.config.family == "roberta" else tuple(lacking)
        state: dict[str, Tensor] = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(unread)}
        return state

    def masked_word_head(self) -> dict[str, Tensor] | None:
        """Tensors (float32) of the output layer for masked words by the names of BertForMaskedLM or RobertaForMaskedLM, the decoder's bias
        among them; None where the files hold none, or one whose decoder is not the word table."""
        import torch
        from transformers import AutoModelForMaskedLM

        model, lacking = self._read(AutoModelForMaskedLM)
        state: dict[str, Tensor] = model.state_dict()
        layer, dense = ("lm_head.", "dense.") if self.config.family == "roberta" else ("cls.predictions.", "transform.")
        if any(key.startswith(layer + dense) for key in lacking):
            return None
        if not torch.equal(state[f"{layer}decoder.weight"], state[f"{self.config.family}.embeddings.word_embeddings.weight"]):
            return None
        return {name: tensor for name, tensor in state.items() if name.startswith(layer)}

    def _read(self, kind: Any) -> tuple[Any, list[str]]:
        """A model of that class of transformers, and the names of the tensors that the files lack."""
        import torch
        from transformers.utils import logging

        logging.disable_progress_bar()
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            model, info = kind.from_pretrained(self.name, dtype=torch.float32, output_loading_info=True)
        except Exception as error:  # among them SafetensorError, which is no OSError
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"backbone {self.name}: its weights can't be read ({reason})") from error
        finally:
            logging.set_verbosity(verbosity)
        return model, sorted(info["missing_keys"])
