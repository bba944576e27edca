"""Copies of networks: as `copy.deepcopy` makes them, but for the tensors exchanged."""

import copy

import torch
import torchvision
from torch import Tensor, nn

from graphprune.graph.parts import named_tensors
from graphprune.graph.weightless import copy_for_run, copy_network, light_shell, on_meta, zeroed


class Odd(nn.Module):
    """Attributes of many kinds, some of them shared."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.table, self.seen = [3, 4], {"a": [1, 2], "b": (5, {"c": 6})}, set()
        self.same = self.sizes
        self.layer = nn.Conv2d(2, 2, 1)
        self.again = self.layer
        self.inside = [torch.ones(2), self.layer]
        self.free = torch.arange(3.0)
        self.register_buffer("count", torch.tensor(7))
        self.register_forward_hook(lambda module, args, out: out + 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.count


def test_a_twin_is_a_deep_copy() -> None:
    odd = Odd()
    made, wanted = copy_network(odd, {}), copy.deepcopy(odd)
    x = torch.randn(1, 2, 3, 3)
    assert torch.equal(made(x), wanted(x))
    assert vars(made).keys() == vars(wanted).keys()
    assert made.same is made.sizes == odd.sizes is not made.table
    assert made.sizes is not odd.sizes
    assert made.again is made.layer is made.inside[1] is not odd.layer
    assert made.table == odd.table
    assert made.table["a"] is not odd.table["a"]
    made.seen.add(1)
    made.layer.weight.data.zero_()
    assert odd.seen == set()
    assert not torch.equal(made(x), odd(x))
    assert len(made._forward_hooks) == 1
    mine = {tensor.untyped_storage().data_ptr() for tensor in named_tensors(odd).values()}
    assert mine.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in named_tensors(made).values())


class Own(nn.Module):
    """A module that says itself how it is copied."""

    def __deepcopy__(self, memo: dict[int, object]) -> "Own":
        return Own()


def test_a_module_s_own_way_of_being_copied_is_kept() -> None:
    own = nn.Sequential(Own(), nn.ReLU())
    own[0].mark = 1
    assert not hasattr(copy_network(own, {})[0], "mark")


def test_weightless_copies_have_the_same_shapes_and_leave_the_model_alone() -> None:
    model = torchvision.models.mobilenet_v3_small(weights=None)
    before = {name: tensor.clone() for name, tensor in named_tensors(model).items()}
    for shell in (on_meta(model), light_shell(model)):
        found = named_tensors(shell)
        assert all(tensor.is_meta for tensor in found.values())
        assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in before.items()}
        shell.train()
        shell.features[0] = nn.Identity()
    assert all(torch.equal(tensor, before[name]) for name, tensor in named_tensors(model).items())
    assert isinstance(model.features[0], nn.Sequential)


def test_a_throwaway_copy_keeps_its_hooks_and_state_to_itself() -> None:
    odd = Odd()
    made = copy_for_run(odd)
    made.register_forward_hook(lambda module, args, out: out)
    made.layer.register_forward_pre_hook(lambda module, args: None)
    made.sizes.append(5)
    made.cached = 1  # type: ignore[assignment]
    assert (len(odd._forward_hooks), len(odd.layer._forward_pre_hooks), odd.sizes) == (1, 0, [3, 4])
    assert not hasattr(odd, "cached")
    assert made.layer.weight is odd.layer.weight


def test_zeros_in_place_of_parameters_take_no_memory_and_buffers_keep_their_values() -> None:
    odd = Odd()
    made = zeroed(odd)
    assert made.layer.weight.untyped_storage().nbytes() == 4
    assert made(torch.randn(1, 2, 3, 3)).unique().tolist() == [1]  # the hook's
    assert int(made.count) == 7
    assert bool(odd.layer.weight.any())
