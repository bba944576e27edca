"""A network as a graph: its layers, its data flow, and the groups of channels that live or die together.

The graph is the one of SACP (Liu et al., section 3.2): a node is a convolution, a batch normalisation, a pooling or a fully
connected layer, an edge follows the data. `graphprune.trace` makes it. No line of any of these modules knows
a model's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from graphprune.graph.inputs import Inputs
from graphprune.runs.checks import demand

if TYPE_CHECKING:
    import pandas as pd
    from torch_geometric.data import Data


@dataclass(frozen=True)
class Node:
    """One layer, with the atom of each of its output channels.

    Attributes:
        name: module path ("layer1.0.conv1"), or the traced name of a functional operation.
        kind: "conv", "bn", "norm", "pool" or "fc".
        channels: output channels of the unpruned network.
        atoms: for every output channel the atom it belongs to, in 0 .. num_atoms - 1; -1 = never pruned.
    """

    name: str
    kind: str
    channels: int
    atoms: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Channels that the same layers see, so that one pruning rate rules them all.

    Attributes:
        name: its first producing layer.
        channels: C, the number of atoms, each of them free to be kept or pruned.
        layers: the convolutions and linear layers whose output channels these are.
        width: sum over those layers of their channels in this group, the group's weight in R(r) (eq. 1).
    """

    name: str
    channels: int
    layers: tuple[str, ...]
    width: int


@dataclass(frozen=True, eq=False)
class Site:
    """One dimension of one tensor (parameter or buffer) along which channels lie.

    Attributes:
        tensor: the tensor's path in the model, "conv1.weight".
        dim: the dimension.
        atoms: (size,) int64, the atom of each slice; -1 = never pruned. Sites with equal atoms share the tensor.
    """

    tensor: str
    dim: int
    atoms: Tensor


@dataclass(frozen=True, eq=False)
class Count:
    """A number that a module keeps and that counts channels, `num_heads` say: it is less in a pruned network.

    Attributes:
        key: the module's path, the attribute's name, and in a list of numbers the place (else None).
        atoms: (n,) int64, the atom of each of the places counted; -1 = never pruned.
    """

    key: tuple[str, str, int | None]
    atoms: Tensor


@dataclass(frozen=True, eq=False)
class Norm:
    """A layer whose statistics run over channels that can be pruned.

    Attributes:
        path: the module's.
        dim: the dimension of its operand that it normalises, counted from the end where negative.
        atoms: (channels,) int64, as of a `Site`.
        kept: whether its statistics run over the kept channels (`trace(..., norms="kept")`). Else they are those of the whole
            width, zeros included, and `prune` scales the layer's weight: possible for RMSNorm alone.
    """

    path: str
    dim: int
    atoms: Tensor
    kept: bool


@dataclass(frozen=True, eq=False, repr=False)
class ChannelGraph:
    """The traced network: layers, data flow, coupled groups. Made by `trace`.

    Attributes:
        nodes: the layers in execution order.
        edge_index: (2, E) int64, along the data flow, as PyG has it.
        groups: the prunable groups, in the order of their first producing layers.
        frozen: layer -> why its channels (all or some of them) cannot be pruned.
        sites: where the atoms lie in the model's tensors; what `prune` cuts.
        shell: the network itself on the meta device (no weights), for shapes.
        skeleton: its forward in evaluation mode, recorded.
        training: its forward in training mode, where that reaches more layers (auxiliary classifiers).
        example: the shapes of the inputs it was traced with, on the meta device.
        numbers: numbers that modules keep and that count channels; what `prune` sets.
        sized: whether the forward reads sizes, so that each pruned network's forward is recorded for its proof.
        inputs: the inputs it was traced with; floating point ones on the meta device, unless their values were needed.
        weightless: whether the forward was recorded without weights and values.
        norms: the layers whose statistics run over prunable channels.
        zeroed: where it was not, the network with zeros for parameters, for costs.
    """

    nodes: tuple[Node, ...]
    edge_index: Tensor
    groups: tuple[Group, ...]
    frozen: Mapping[str, str] = field(default_factory=dict)
    sites: tuple[Site, ...] = ()
    shell: nn.Module | None = field(default=None, repr=False)
    skeleton: fx.Graph | None = field(default=None, repr=False)
    training: fx.Graph | None = field(default=None, repr=False)
    example: tuple[Tensor, ...] = field(default=(), repr=False)
    numbers: tuple[Count, ...] = field(default=(), repr=False)
    sized: bool = False
    inputs: Inputs | None = field(default=None, repr=False)
    weightless: bool = True
    norms: tuple[Norm, ...] = ()
    zeroed: nn.Module | None = field(default=None, repr=False)

    @cached_property
    def over_kept(self) -> dict[str, int]:
        """The modules that are normalisations over the kept channels: path -> the dimension that they normalise."""
        return {norm.path: norm.dim for norm in self.norms if norm.kept}

    def __repr__(self) -> str:
        coupled = sum(len(group.layers) > 1 for group in self.groups)
        name = "" if self.shell is None else f"{type(self.shell).__name__}: "
        groups = f"{len(self.groups)} groups ({coupled} of several layers) with {self.num_atoms:,} channels to prune"
        return f"ChannelGraph({name}{len(self.nodes)} layers, {groups}, frozen layers: {len(self.frozen)})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(repr(self))}</p>{self.summary().to_html(index=False, border=0)}"

    def summary(self) -> pd.DataFrame:
        """A row for each group of coupled channels, and for each frozen layer.

        Columns: `group` (its first layer), `layers` that share the channels, `channels`, `share` of the multiply-adds of the
        layers that put them out (of all that the traced network does), and `frozen`, why none can go ("" for a group). NaN
        stands where a share is not known.

        >>> import torch, graphprune
        >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
        >>> graph.summary()[["group", "layers", "channels", "share"]].round(3)
           group  layers  channels  share
        0  conv1       2         4  0.624
        1  conv3       1         3  0.374
        2     fc       1        10  0.002
        """
        import pandas as pd

        from graphprune.graph.layer_costs import shares_of_layers

        shares = shares_of_layers(self.shell, self.inputs) if self.shell is not None and self.inputs is not None else {}
        sizes = {node.name: node.channels for node in self.nodes}

        def share(layers: Iterable[str]) -> float:
            return sum(shares.get(layer, 0.0) for layer in layers) if shares else float("nan")

        rows = [(g.name, len(g.layers), g.channels, share(g.layers), "") for g in self.groups]
        grouped = {layer for group in self.groups for layer in group.layers}
        alone = {layer: reason for layer, reason in self.frozen.items() if layer not in grouped}
        rows += [(layer, 1, sizes.get(layer, 0), share([layer]), reason) for layer, reason in alone.items()]
        return pd.DataFrame(rows, columns=["group", "layers", "channels", "share", "frozen"])

    @cached_property
    def num_atoms(self) -> int:
        return sum(group.channels for group in self.groups)

    @cached_property
    def num_classes(self) -> int:
        """Atoms, and the classes of channels that are never pruned: what the sites' numbers count."""
        distinct = {id(site.atoms): site.atoms for site in self.sites if len(site.atoms)}
        return max([self.num_atoms, *(int(atoms.max()) + 1 for atoms in distinct.values())])

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Group name -> its atoms, a contiguous range of 0 .. num_atoms - 1."""
        ends, start = {}, 0
        for group in self.groups:
            ends[group.name] = slice(start, start + group.channels)
            start += group.channels
        return ends

    @cached_property
    def owner(self) -> Tensor:
        """(num_atoms,) int64: the number of the group that each atom belongs to."""
        sizes = torch.tensor([group.channels for group in self.groups], dtype=torch.int64)
        return torch.arange(len(sizes)).repeat_interleave(sizes)

    @cached_property
    def feature_index(self) -> Tensor:
        """(nodes, d): where each node feature comes from in [atoms' signs ..., +1, 0] (SACP, section 3.2).

        A never-pruned channel is +1, the padding beyond a layer's channels 0. A fully connected layer without prunable
        outputs is all ones over the whole width d, as the paper has it.
        """
        one, zero = self.num_atoms, self.num_atoms + 1
        width = max((node.channels for node in self.nodes), default=0)
        index = torch.full((len(self.nodes), width), zero)
        for row, node in zip(index, self.nodes, strict=True):
            atoms = torch.tensor(node.atoms)
            row[: node.channels] = torch.where(atoms < 0, one, atoms)
            if node.kind == "fc" and bool((atoms < 0).all()):
                row[:] = one
        return index

    def full(self) -> dict[str, Tensor]:
        """The `keep` that prunes nothing."""
        return self.unflatten(torch.ones(self.num_atoms, dtype=torch.bool))

    def flatten(self, keep: Mapping[str, Tensor]) -> Tensor:
        """`keep` as one mask over all atoms, (num_atoms,) bool, in group order.

        Raises:
            ValueError: a group is missing, unknown, of the wrong shape or dtype, or left without a channel.
        """
        names = [group.name for group in self.groups]
        if not isinstance(keep, Mapping):
            raise TypeError(f"keep must be a dictionary, group name -> mask, got {type(keep).__name__}; see graph.full()")
        if unknown := [name for name in keep if name not in self.slices]:
            raise ValueError(f"keep names group {unknown[0]!r}, which the graph does not have; its groups: {names}")
        for group in self.groups:
            if group.name not in keep:
                raise ValueError(f"keep has no mask for group {group.name!r}; start from graph.full() and change it")
            mask = keep[group.name]
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (group.channels,):
                got = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
                raise ValueError(f"keep[{group.name!r}] must be a bool tensor of shape ({group.channels},), got {got}")
            if not bool(mask.any()):
                raise ValueError(f"keep[{group.name!r}] keeps no channel: at least one of {group.channels} must stay")
        masks = [keep[name].cpu() for name in names]
        return torch.cat(masks) if masks else torch.zeros(0, dtype=torch.bool)

    def unflatten(self, kept: Tensor) -> dict[str, Tensor]:
        """One mask over all atoms, (num_atoms,) bool, as `keep`."""
        if kept.shape != (self.num_atoms,):
            raise ValueError(f"kept must have shape ({self.num_atoms},), one entry an atom, got {tuple(kept.shape)}")
        return {name: kept[span].bool().clone() for name, span in self.slices.items()}

    def features(self, kept: Tensor) -> Tensor:
        """Node features of many pruned networks at once: +1 kept, -1 pruned, 0 padding.

        Args:
            kept: (B, num_atoms) bool.

        Returns:
            (B, nodes, d) float32, d = the largest number of channels of any layer.
        """
        if kept.ndim != 2 or kept.shape[1] != self.num_atoms:
            raise ValueError(f"kept must have shape (B, {self.num_atoms}), one column an atom, got {tuple(kept.shape)}")
        signs = kept.float() * 2 - 1
        ends = signs.new_tensor([1.0, 0.0]).expand(len(signs), 2)
        return torch.cat([signs, ends], 1)[:, self.feature_index.to(kept.device)]

    def to_pyg(self, keep: Mapping[str, Tensor]) -> Data:
        """The pruned network as a PyG graph: x (nodes, d) float32, edge_index (2, E), directed along the data flow."""
        from graphprune.runs.runtime import import_pyg

        import_pyg()
        from torch_geometric.data import Data

        return Data(x=self.features(self.flatten(keep)[None])[0], edge_index=self.edge_index.clone())

    def fingerprint(self) -> str:
        """A hash of nodes, edges, groups, and norms over kept channels, that is the same in every process."""
        parts = (self.nodes, self.groups, self.edge_index.tolist(), *([self.over_kept] if self.over_kept else []))
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def demand_graph(graph: Any) -> None:
    """Raise TypeError unless it is a graph.

    >>> demand_graph([])
    Traceback (most recent call last):
    TypeError: graph must be a ChannelGraph, got list; give what trace(model, example_input) returned
    """
    demand("graph", graph, ChannelGraph, "give what trace(model, example_input) returned")
