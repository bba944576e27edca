"""A world small enough to be read: one network of 2 + 2 channels."""

import torch

from graphprune.rl.world import World, all_masks


def by_hand(accuracy):
    """One network of 2 + 2 channels, whose masks have these accuracies."""
    masks = all_masks(4)
    macs = (masks @ torch.tensor([0.4, 0.3, 0.2, 0.1]))[None]
    empty = torch.zeros(1, 4)
    return World(torch.zeros(1), empty, empty, torch.tensor([accuracy]), torch.zeros(1, 16), macs, empty, empty)
