"""What pruning to a budget gives: the small network, and all that was decided on the way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.cost import Cost
from graphprune.pruning.files import save_pruned

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Pruned:
    """A network pruned to a budget, and what was decided.

    Attributes:
        network: the small network, an ordinary module.
        keep: the channels of the unpruned network that stay, group -> (C,) bool.
        graph: the trace of the unpruned network.
        before, after: what both cost.
        frozen: layer -> why its channels stay, what was asked by `ignore` among them.
    """

    network: nn.Module
    keep: dict[str, Tensor]
    graph: ChannelGraph
    before: Cost
    after: Cost
    frozen: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the network and `keep` as `save_pruned` does; `load_pruned(path, unpruned_network)` reads it."""
        return save_pruned(path, self.network, self.graph, self.keep)

    @cached_property
    def widths(self) -> pd.DataFrame:
        """A row for each group of coupled channels: its layers, channels before and after.

        What can only go together counts as one: a head of attention, or channels that a shuffle ties. So a group may have
        fewer channels than its layers put out, and `round_to` rounds the layers' widths.
        """
        import pandas as pd

        after = {name: int(mask.sum()) for name, mask in self.keep.items()}
        rows = [(group.name, len(group.layers), group.channels, after[group.name]) for group in self.graph.groups]
        return pd.DataFrame(rows, columns=["group", "layers", "before", "after"])

    def __repr__(self) -> str:
        kept, channels = sum(int(mask.sum()) for mask in self.keep.values()), self.graph.num_atoms
        parts = [
            f"{self.after.macs / max(1, self.before.macs):.1%} of {self.before.macs:,} multiply-adds",
            f"{self.after.params / max(1, self.before.params):.1%} of {self.before.params:,} parameters",
            f"{kept} of {channels} channels in {len(self.graph.groups)} groups",
            f"frozen layers: {len(self.frozen)}",
        ]
        return f"Pruned({type(self.network).__name__}: {', '.join(parts)})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(repr(self))}</p>{self.widths.to_html(index=False, border=0)}"
