"""The deployed network with the supernet's weights, to start its pre-training from (ours; the paper starts from random weights).

The supernet runs on the teacher's embedding and has linear maps In and Out around every block; the deployed form has an embedding of its
own width and a link only between different widths. What is exact and what is not:

- Between blocks of different widths In and Out are composed into the link: exact.
- Between blocks of one width there is no place for their product, which is a map like any other: block-wise training gives every block a
  basis of its own. The nearest scaled rotation of it is worked into the operations of the next block (`methods.nasbert.rotation`) and
  into the norm before it. On a small trained supernet (MiniLM-L6 as the teacher, 3 blocks of 2 operations, width 64) the last state's
  error relative to its variance was 0.62 for the hosted network, 0.76 to 0.78 this way, 1.7 to 1.9 where the map was left out, and 1.1
  where its diagonal alone was kept.
- An embedding as wide as the teacher's: tables, norms and the output layer are the teacher's, exactly (the type row 0 goes into the
  position table), with In of the first block as projection; where that is as wide too, it is treated as such a border.
- A narrower one: the tables' leading principal directions, scaled so that what is lost is the other directions alone; the output layer
  starts from the teacher's seen through them, its activation treated as if it were linear.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from methods.errors import UserError
from methods.layers.embedding import StemModule
from methods.layers.encoder import ChainModule
from methods.layers.heads import MaskedLanguageModelHeadModule
from methods.nasbert.rotation import Affine, double, nearest_rotation, turn
from methods.network import Network
from methods.space import Architecture
from methods.tasks.head import Head

if TYPE_CHECKING:
    from methods.nasbert.supernet import NasBertSupernet


def check_embedding(width: int, wide: int) -> None:
    """Raises UserError where an embedding is wider than the teacher's."""
    if width > wide:
        raise UserError(
            f"nasbert: embedding_sizes: {width} is wider than the teacher's embedding ({wide}); retrain.start: inherit needs at most that"
        )


def inherit(supernet: NasBertSupernet, architecture: Architecture, head: Head) -> Network:
    """The deployed network of an architecture with a masked-language-model head and the supernet's weights; on the CPU, in eval mode.

    Raises UserError where the embedding is wider than the teacher's.
    """
    return inherit_with_out(supernet, architecture, head)[0]


@torch.no_grad()
def inherit_with_out(supernet: NasBertSupernet, architecture: Architecture, head: Head) -> tuple[Network, Affine]:
    """`inherit`, and the map of the network's last state to the teacher's width: Out of the last block in the network's own basis.

    Raises UserError where the embedding is wider than the teacher's.
    """
    width, wide = architecture.choices["embedding"], supernet.backbone.hidden
    check_embedding(width, wide)
    network = Network(supernet.space.spec(architecture, supernet.backbone, head))
    blocks = architecture.choices["blocks"]
    into = Affine.of(supernet.map_of("into", 0, blocks[0]["hidden"]))
    basis = None if width == wide else leading_directions(supernet.stem, width)
    if basis is None:
        rotation = _copy_stem(supernet.stem, network.stem, into)
    else:
        rotation, basis = None, _narrow_stem(supernet.stem, network.stem, into, basis)
    rotation = _copy_blocks(supernet, architecture, network, rotation)
    out = Affine.of(supernet.map_of("out", len(blocks) - 1, blocks[-1]["hidden"]))
    output, target = cast(MaskedLanguageModelHeadModule, supernet.head), cast(MaskedLanguageModelHeadModule, network.head)
    out = out if rotation is None else out.after(Affine.linear(rotation))
    _write_head(output, target, out, basis)
    return network.eval(), out


def _copy_blocks(supernet: NasBertSupernet, architecture: Architecture, network: Network, rotation: Tensor | None) -> Tensor | None:
    """Operations and links; `rotation`: the basis of the first block, returned is that of the last (None: the supernet's own)."""
    layers = iter(cast(ChainModule, network.encoder))
    blocks = architecture.choices["blocks"]
    last: nn.Module = network.stem
    for n, block in enumerate(blocks):
        hidden, before = block["hidden"], blocks[n - 1]["hidden"]
        if n:
            border = Affine.of(supernet.map_of("into", n, hidden)).after(Affine.of(supernet.map_of("out", n - 1, before)))
            border = border if rotation is None else border.after(Affine.linear(rotation))
            if hidden == before:
                rotation = _absorb(border, last)
            else:
                border.write(cast(nn.Linear, next(layers)))
                rotation = None
        for position, name in enumerate(block["ops"]):
            last = next(layers)
            last.load_state_dict(supernet.module_of(n, position, hidden, name).state_dict())
            if rotation is not None:
                turn(last, rotation)
    return rotation


def _absorb(border: Affine, before: nn.Module) -> Tensor:
    """Works the scale and shift of a border between equal widths into the last norm of what stands before it; returns its rotation."""
    norm = [part for part in before.modules() if isinstance(part, nn.LayerNorm)][-1]
    rotation, scale = nearest_rotation(border.weight)
    shift = rotation.T @ (border.weight @ double(norm.bias) + border.bias)
    norm.weight.mul_(scale)
    norm.bias.copy_(shift)
    return rotation


def _positions(stem: StemModule) -> Tensor:
    """Position table (n, H) with the type row that every token has."""
    positions = double(stem.position.weight)
    return positions if stem.token_type is None else positions + double(stem.token_type.weight)[0]


def _copy_stem(stem: StemModule, target: StemModule, into: Affine) -> Tensor | None:
    """The teacher's stem as it is; the rotation of the first block where there is no projection."""
    target.word.weight.copy_(stem.word.weight)
    target.position.weight.copy_(_positions(stem))
    _norm(target.norm_before).load_state_dict(_norm(stem.norm_before).state_dict())
    if target.projection is None:
        return _absorb(into, target)
    into.write(target.projection)
    return None


def leading_directions(stem: StemModule, width: int) -> Tensor:
    """(width, H): rows span the `width` - 1 leading principal directions of the tables, features centred as LayerNorm does.

    Its transpose takes an embedding back; columns add up to 0, so that what LayerNorm does to the one it does to the other.
    """
    tables = torch.cat([double(stem.word.weight), _positions(stem)])
    tables -= tables.mean(1, keepdim=True)
    _, directions = torch.linalg.eigh(tables.T @ tables)
    leading: Tensor = directions[:, tables.shape[1] - width + 1 :]
    return _zero_mean_basis(width) @ leading.T


def _zero_mean_basis(width: int) -> Tensor:
    """(width, width - 1): orthonormal columns that each add up to 0."""
    rest = torch.eye(width, dtype=torch.float64) - 1 / width
    basis: Tensor = torch.linalg.eigh(rest)[1][:, 1:]
    return basis


def _narrow_stem(stem: StemModule, target: StemModule, into: Affine, basis: Tensor) -> Tensor:
    """The tables seen through `basis` (width, H). Returns it turned, so that In of the first block is near a multiple of the identity,
    where there is no projection to hold it."""
    width, wide = basis.shape
    norm = _norm(stem.norm_before)
    back = Affine(double(norm.weight)[:, None] * basis.T * sqrt(wide / width), double(norm.bias))
    projection = into.after(back)
    own = _norm(target.norm_before)
    if target.projection is None:
        rotation, scale = nearest_rotation(projection.weight)
        basis = rotation @ basis
        own.weight.fill_(scale)
        own.bias.copy_(projection.bias)
    else:
        projection.write(target.projection)
    target.word.weight.copy_(double(stem.word.weight) @ basis.T)
    target.position.weight.copy_(_positions(stem) @ basis.T)
    return basis


def _write_head(head: MaskedLanguageModelHeadModule, target: MaskedLanguageModelHeadModule, out: Affine, basis: Tensor | None) -> None:
    """The teacher's output layer after `out`, seen through `basis` where the word table is."""
    transform = Affine.of(head.transform).after(out)
    target.bias.copy_(head.bias)
    if basis is None:
        transform.write(target.transform)
        target.norm.load_state_dict(head.norm.state_dict())
        return
    gain = double(head.norm.weight)
    Affine.linear(basis * gain).after(transform).write(target.transform)
    target.norm.weight.fill_(float(gain.square().mean().sqrt()))
    target.norm.bias.copy_(basis @ double(head.norm.bias))


def _norm(norm: nn.LayerNorm | None) -> nn.LayerNorm:
    assert norm is not None
    return norm
