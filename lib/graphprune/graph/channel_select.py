"""A layer that gathers channels by index, so that a shortcut survives pruning."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ChannelSelect(nn.Module):
    """Gather input channels by index, with zeros where the index is -1; no weights.

    The option-A shortcut (He et al. 2016, "Deep residual learning for image recognition", section 3.3) is one of these:
    it strides, and pads the missing channels with zeros. As a module whose index can be shortened it survives pruning.

    Args:
        index: for every output channel the input channel it copies, or -1 for a channel of zeros.
        stride: spatial step; 2 keeps every second row and column.

    Shapes:
        (B, in, H, W) -> (B, len(index), ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: an index below -1, an empty index, or a stride below 1.

    Example:
        >>> import torch
        >>> ChannelSelect([-1, 1])(torch.tensor([3.0, 5.0]).reshape(1, 2, 1, 1)).flatten().tolist()
        [0.0, 5.0]
    """

    index: Tensor

    def __init__(self, index: Sequence[int] | Tensor, stride: int = 1) -> None:
        super().__init__()
        index = torch.as_tensor(index, dtype=torch.int64).clone()
        if index.ndim != 1 or index.numel() == 0 or int(index.min()) < -1:
            raise ValueError(f"index must list input channels, -1 for a channel of zeros; got {index.tolist()}")
        if stride < 1:
            raise ValueError(f"stride must be at least 1; got {stride}")
        self.register_buffer("index", index, persistent=False)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride].index_select(1, self.index.clamp(min=0))
        return x.masked_fill((self.index < 0)[:, None, None], 0)

    def extra_repr(self) -> str:
        return f"out_channels={self.index.numel()}, stride={self.stride}"
