"""Networks of every kind of code: pruned to what their masked twins compute, or frozen, never wrong without a word."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import graphprune
from graphprune.graph.inputs import chosen
from graphprune.graph.rules import table
from graphprune.pruning import channels

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Net(nn.Module):
    """a, then what is given, then c; `b` is for the middle to use."""

    def __init__(self, middle: Callable[[Any, Tensor], Tensor], **more: Any) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 16), conv(16, 16), nn.Linear(16, 5)
        self.middle = middle
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.middle(self, F.relu(self.a(x))).mean((2, 3)))


def difference(model: nn.Module, *args: Any, **kwargs: Any) -> tuple[float, dict[str, int]]:
    """The largest difference between pruned and masked network, as a share; and the groups offered."""
    torch.manual_seed(0)
    model = model.double().eval()
    graph = graphprune.trace(model, args or None, **kwargs)
    keep = {group.name: torch.arange(group.channels) % 2 == 0 for group in graph.groups}
    groups = {group.name: group.channels for group in graph.groups}
    if not keep:
        return 0.0, groups
    small = graphprune.prune(model, graph, keep, check=False).eval()
    with torch.no_grad():
        wanted = chosen(graphprune.masked(model, graph, keep).eval()(*args, **kwargs), None)
        found = chosen(small(*args, **kwargs), None)
    for out in found:
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
        assert out.isfinite().all()
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(wanted, found, strict=True)), groups


def check_size(model: Any, x: Tensor) -> Tensor:
    if x.shape[1] != 16:
        raise ValueError("wrong channels")
    return model.b(x)


def write_into_a_view(model: Any, x: Tensor) -> Tensor:
    y = model.b(x)
    y[:, :8].zero_()
    return y + 1


def write_into_all(model: Any, x: Tensor) -> Tensor:
    y = model.b(x)
    y.view(y.shape[0], -1).sigmoid_()
    return y


def write_past_autograd(model: Any, x: Tensor) -> Tensor:
    y = model.b(x)
    y.data[:, :4] = 7.0
    return y


def add_into_a_view(model: Any, x: Tensor) -> Tensor:
    y = torch.zeros(2, 16, 8, 8, dtype=x.dtype, device=x.device)
    y.view(2, 16, 64).add_(model.b(x).flatten(2))
    return y


def keep_state(model: Any, x: Tensor) -> Tensor:
    if not hasattr(model, "kept"):
        model.kept = model.b(x)
    return model.kept + x


def contract(model: Any, x: Tensor) -> Tensor:
    y = model.b(x).sigmoid().flatten(2)
    return torch.matmul(y.transpose(1, 2), y)[:, None].expand(-1, 16, -1, -1)


def split_by_number(model: Any, x: Tensor) -> Tensor:
    first, second = model.b(x).split([model.width, model.width], 1)
    return torch.cat([first, second], 1)


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.flip(1) * 2


def outer_product(model: Any, x: Tensor) -> Tensor:
    rows, columns = x.mean((2, 3)).sigmoid(), model.b(x).mean((2, 3)).sigmoid()
    return (rows[:, :, None] * columns[:, None, :]).sum(2)[:, :, None, None]


def write_into_a_half(model: Any, x: Tensor) -> Tensor:
    y = model.b(x)
    y.chunk(2, 1)[0].add_(1)
    return y


def write_into_each_channel(model: Any, x: Tensor) -> Tensor:
    y = model.b(x)
    for place, channel in enumerate(y.unbind(1)):
        channel.mul_(place)
    return y


def write_by_an_index(model: Any, x: Tensor) -> Tensor:
    y = model.b(x).clone()
    y[:, [0, 3]] = 0.5
    y[y < 0] = 0.3
    return y


def copy_into(model: Any, x: Tensor) -> Tensor:
    return torch.empty_like(x).copy_(model.b(x).flip(1))


def keep_in_a_list(model: Any, x: Tensor) -> Tensor:
    model.store["of all calls"].append(model.b(x))
    return model.store["of all calls"][0] + x


def follow_the_mean(model: Any, x: Tensor) -> Tensor:
    model.mean.mul_(0.9).add_(x.mean((0, 2, 3)) * 0.1)
    return model.b(x) + model.mean[:, None, None]


BACKWARDS = torch.arange(15, -1, -1)


TRAPS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "scaled by a power of a size": lambda m, x: m.b(x * x.size(1) ** -0.5),
    "divided by a root of a size": lambda m, x: m.b(x / math.sqrt(x.shape[1])),
    "a branch on a size": lambda m, x: m.b(x) if x.shape[1] > 10 else m.b(x) + x,
    "a size that is checked": check_size,
    "a layer's own size as a number": lambda m, x: m.b(x) / m.a.out_channels,
    "a branch on a layer's own size": lambda m, x: m.b(x) if m.a.out_channels > 10 else m.b(x) + x,
    "a size by len": lambda m, x: m.b(x) * len(x[0]),
    "a size by numel": lambda m, x: m.b(x) / x.numel(),
    "the sum of ones of a size": lambda m, x: m.b(x) * torch.ones(x.shape[1]).sum().item(),
    "a stride": lambda m, x: m.b(x) * x.stride(0),
    "positions of channels": lambda m, x: m.b(x) + torch.arange(x.shape[1]).to(x).view(1, -1, 1, 1),
    "ones of a size": lambda m, x: m.b(x) * torch.ones(x.shape[1]).to(x).view(1, -1, 1, 1),
    "a view that is zeroed": write_into_a_view,
    "a view of all that is changed": write_into_all,
    "written past autograd": write_past_autograd,
    "added into a view of zeros": add_into_a_view,
    "a value that is read": lambda m, x: m.b(x) * float(x[:, 3].mean() > 0),
    "a sum that is read": lambda m, x: m.b(x) + x.sum().item(),
    "through NumPy": lambda m, x: m.b(torch.from_numpy(x.detach().cpu().numpy() * 2)),
    "state kept between calls": keep_state,
    "channels contracted": contract,
    "channels times other channels": outer_product,
    "a computed weight": lambda m, x: F.conv2d(x, m.b.weight * 2, m.b.bias, padding=1),
    "einsum": lambda m, x: torch.einsum("bchw,dc->bdhw", x, m.b.weight[:, :, 0, 0]),
    "vmap": lambda m, x: m.b(torch.vmap(lambda t: t.sigmoid() * t.shape[0])(x)),
    "a checkpoint": lambda m, x: checkpoint(m.b, x, use_reentrant=False),
    "a function of autograd": lambda m, x: m.b(Swish.apply(x)),
    "a function of autograd that reorders": lambda m, x: m.b(Mix.apply(x)),
    "channels one by one": lambda m, x: m.b(torch.stack([c * 2 for c in x.unbind(1)], 1)),
    "iteration over rows": lambda m, x: m.b(torch.stack([row.flip(0) for row in x])),
    "out=": lambda m, x: m.b(torch.add(x, 1, out=torch.empty_like(x))),
    "a half that is changed": write_into_a_half,
    "channels that are changed one by one": write_into_each_channel,
    "places that are written by index": write_by_an_index,
    "a copy into new memory": copy_into,
    "channels picked by a tensor": lambda m, x: m.b(x[:, BACKWARDS]),
    "channels picked by index_select": lambda m, x: m.b(x.index_select(1, BACKWARDS)),
    "channels gathered": lambda m, x: m.b(x.gather(1, BACKWARDS[None, :, None, None].expand_as(x))),
    "channels scattered": lambda m, x: m.b(torch.zeros_like(x).scatter(1, BACKWARDS[None, :, None, None].expand_as(x), x)),
    "channels added at an index": lambda m, x: m.b(torch.zeros_like(x).index_add(1, BACKWARDS, x)),
    "values above zero": lambda m, x: m.b(x) * x[x > 0].sum(),
    "a sum with NumPy's keywords": lambda m, x: m.b(x) * torch.sum(x, axis=1, keepdims=True),  # type: ignore[call-overload]
    "a list of values": lambda m, x: m.b(x) * x.mean((0, 2, 3)).tolist()[3],
    "a rounded share of a size": lambda m, x: m.b(x) * round(x.shape[1] * 0.3),
    "a size as a tensor": lambda m, x: m.b(x) * torch.tensor([x.shape[1], 1.0]).sum(),
    "a size as text": lambda m, x: m.b(x) * float(f"{x.shape[1]}"),
    "a size for loops": lambda m, x: m.b(x) * len(list(range(20))[: x.shape[1]]),
    "a size as a bound": lambda m, x: m.b(x).clamp(max=x.shape[1] / 100),
    "a size in a filled tensor": lambda m, x: m.b(x) + x.new_full((1, x.shape[1], 1, 1), x.shape[1]),
    "a triangle of a size": lambda m, x: m.b(x) * torch.ones(x.shape[1], x.shape[1]).tril().sum(1)[:, None, None],
    "a weight that is read": lambda m, x: m.b(x) * m.a.weight.mean((1, 2, 3))[:, None, None],
    "an exact reversal": lambda m, x: m.b(1 - x.flip(1)),
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_does_not_hold(name: str) -> None:
    assert difference(Net(TRAPS[name]), IMAGE)[0] <= 1e-10


def test_traps_that_need_more_than_a_line() -> None:
    hooked = Net(lambda m, x: m.b(x))
    hooked.b.register_forward_hook(lambda module, args, out: out.flip(1))
    assert difference(hooked, IMAGE) == (pytest.approx(0, abs=1e-10), {"a": 16, "b": 16})
    before = Net(lambda m, x: m.b(x))
    before.b.register_forward_pre_hook(lambda module, args: (args[0].sigmoid(),))
    assert difference(before, IMAGE) == (pytest.approx(0, abs=1e-10), {"a": 16, "b": 16})
    tied = Net(lambda m, x: m.d(F.relu(m.b(x))), d=conv(16, 16))
    tied.d.weight = tied.b.weight
    assert difference(tied, IMAGE)[0] <= 1e-10
    assert difference(Net(lambda m, x: m.b(x) * m.t, t=torch.randn(1, 16, 1, 1, dtype=torch.double)), IMAGE)[0] <= 1e-10
    assert difference(Net(split_by_number, width=8), IMAGE)[0] <= 1e-10
    assert difference(Net(keep_in_a_list, store={"of all calls": []}), IMAGE)[0] <= 1e-10
    following = Net(follow_the_mean)
    following.register_buffer("mean", torch.zeros(16))
    assert difference(following, IMAGE) == (pytest.approx(0, abs=1e-10), {"a": 16})  # written with a's, added to b's
    normed = Net(lambda m, x: m.b(x))
    normed.b = nn.utils.parametrizations.weight_norm(normed.b)
    assert difference(normed, IMAGE)[0] <= 1e-10


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_scripted_part_is_frozen() -> None:
    model = Net(lambda m, x: m.b(m.scripted(x)), scripted=torch.jit.script(nn.Sequential(conv(16, 16), nn.ReLU())))
    error, groups = difference(model, IMAGE)
    assert error <= 1e-10
    assert set(groups) <= {"b"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_part_that_torch_has_traced_is_frozen() -> None:
    part = torch.jit.trace(nn.Sequential(conv(16, 16), nn.ReLU()).double(), IMAGE.repeat(1, 6, 1, 1)[:, :16])
    error, groups = difference(Net(lambda m, x: m.b(m.traced(x)), traced=part), IMAGE)
    assert error <= 1e-10
    assert set(groups) <= {"b"}


def test_hooks_that_a_forward_registers_are_its_own() -> None:
    """A recording must leave none on the network: each further one would store one output more."""

    class Capturing(Net):
        def forward(self, x: Tensor) -> Tensor:
            if not hasattr(self, "seen"):
                self.seen: list[Tensor] = []
                self.a.register_forward_hook(lambda module, args, out: self.seen.append(out))
                self.b.register_forward_hook(lambda module, args, out: self.seen.append(out))
            self.seen.clear()
            super().forward(x)
            return self.c((self.seen[1] * x.shape[1]).mean((2, 3)))

    model = Capturing(lambda m, x: m.b(x))
    assert difference(model, IMAGE) == (pytest.approx(0, abs=1e-10), {"a": 16, "b": 16})


def test_a_branch_on_values_is_refused_with_its_line() -> None:
    model = Net(lambda m, x: m.b(x) if x.sum() > 0 else x)
    with pytest.raises(ValueError, match=r"cannot be traced: .*test_any_network.py:\d+ .*decides by the values of tensors"):
        graphprune.trace(model, IMAGE)


def test_the_check_sees_what_the_proof_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net(lambda m, x: m.b(x * x.size(1) ** -0.5)).double().eval()
    graph = graphprune.trace(Net(lambda m, x: m.b(x * 0.25)).double(), IMAGE)
    keep = {group.name: torch.arange(group.channels) % 2 == 0 for group in graph.groups}
    with pytest.raises(ValueError, match=r"the pruned network is not its masked twin: output 0 differs by .*check=False"):
        graphprune.prune(model, graph, keep)
    assert graphprune.prune(model, graph, keep, check=False).a.out_channels == 8
    monkeypatch.setattr(channels, "CHECKED", 10)
    graphprune.prune(model, graph, keep)  # too large to be checked by default
    with pytest.raises(ValueError, match="masked twin"):
        graphprune.prune(model, graph, keep, check=True)


# inputs and outputs ---------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    logits: Tensor
    features: list[Tensor]
    note: str = ""


class Answering(nn.Module):
    """Token ids and an image by keyword; a dataclass back."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.image = nn.Embedding(11, 8), conv(3, 8)
        self.up, self.head = nn.Linear(8, 12), nn.Linear(12, 5)

    def forward(self, *args: Any, ids: Tensor | None = None, image: Tensor | None = None, **rest: Any) -> Answer:
        assert ids is not None
        assert image is not None
        y = self.up(self.words(ids).mean(1) + self.image(image).mean((2, 3))).relu()
        return Answer(self.head(y), [y])


def test_keywords_dictionaries_token_ids_and_dataclasses() -> None:
    batch = {"ids": torch.tensor([[1, 2, 10], [3, 4, 5]]), "image": IMAGE}
    error, groups = difference(Answering(), **batch)
    assert error <= 1e-10
    assert groups == {"image": 8}  # with the embedding's columns; `up` is put out
    model = Answering().double().eval()
    graph = graphprune.trace(model, batch, outputs=["logits"])
    assert {group.name: group.channels for group in graph.groups} == {"image": 8, "up": 12}
    same = graphprune.trace(model, **batch, outputs=lambda answer: answer.logits)
    assert same.groups == graph.groups
    keep = {"image": torch.arange(8) < 3, "up": torch.arange(12) < 4}
    small = graphprune.prune(model, graph, keep)
    assert (small.words.weight.shape, small.words.embedding_dim, small.up.weight.shape) == ((11, 3), 3, (4, 3))
    with torch.no_grad():
        wanted, found = graphprune.masked(model, graph, keep)(**batch).logits, small(**batch).logits
    assert float((wanted - found).abs().max()) <= 1e-10 * float(wanted.abs().max())


def test_outputs_that_are_not_there_are_named() -> None:
    batch = {"ids": torch.tensor([[1]]), "image": IMAGE[:1]}
    with pytest.raises(ValueError, match=r"outputs=\['scores'\] names what the forward does not return"):
        graphprune.trace(Answering().double(), batch, outputs=["scores"])
    with pytest.raises(TypeError, match="example_input must be a tensor"):
        graphprune.trace(Answering())


class Attending(nn.Module):
    """Two layers' worth of attention over rows, by heads, its sizes kept as attributes."""

    def __init__(self, keys: int = 4) -> None:
        super().__init__()
        self.heads, self.keys, self.size, self.total = 4, keys, 6, 24
        self.q, self.k, self.v = nn.Linear(10, 24), nn.Linear(10, 6 * keys), nn.Linear(10, 6 * keys)
        self.out = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.size).transpose(1, 2)
        k, v = (layer(x).view(b, n, self.keys, self.size).transpose(1, 2) for layer in (self.k, self.v))
        if self.keys != self.heads:
            k, v = (t.repeat_interleave(2, 1) for t in (k, v))
        weights = (q @ k.transpose(-2, -1) * self.size**-0.5).softmax(-1)
        return x + self.out((weights @ v).transpose(1, 2).reshape(b, n, self.total))


@pytest.mark.parametrize("keys", [4, 2])
def test_heads_go_as_a_whole_and_attributes_follow(keys: int) -> None:
    model = Attending(keys).double()
    x = torch.randn(2, 5, 10, dtype=torch.double)
    error, groups = difference(model, x)
    assert error <= 1e-10
    assert groups == {"q": keys}
    graph = graphprune.trace(model, x)
    small = graphprune.prune(model, graph, {"q": torch.arange(keys) == 1})
    assert (small.heads, small.keys, small.total, small.size) == (4 // keys, 1, 24 // keys, 6)
    assert (small.q.out_features, small.k.out_features, small.out.in_features) == (24 // keys, 6, 24 // keys)
    assert model.heads == 4
    counted = graphprune.CostModel(graph, x).of_counts(torch.tensor([[1]]))
    assert (int(counted[0]), int(counted[1])) == (graphprune.cost(small, x).macs, graphprune.cost(small, x).params)


class Biased(nn.Module):
    """Two attentions: one with a bias for each head, the other with zeros of the number of heads that it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.first, self.second, self.table = nn.Linear(10, 36), nn.Linear(10, 36), nn.Embedding(9, 4)
        self.out, self.last = nn.Linear(12, 10), nn.Linear(12, 3)

    def attend(self, layer: nn.Linear, x: Tensor, bias: Tensor | None) -> Tensor:
        q, k, v = (t.view(*x.shape[:2], self.heads, 3).transpose(1, 2) for t in layer(x).chunk(3, -1))
        if bias is None:
            bias = torch.zeros((1, self.heads, 5, 5), dtype=x.dtype, device=x.device)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.contiguous())
        return y.transpose(1, 2).reshape(*x.shape[:2], -1)

    def forward(self, x: Tensor) -> Tensor:
        apart = torch.arange(x.shape[1])[None] - torch.arange(x.shape[1])[:, None]
        if (apart[0] < 0).any():  # of sizes alone
            raise ValueError("no order")
        bias = self.table(apart + 4).permute(2, 0, 1)[None]
        x = x + self.out(self.attend(self.first, x, bias)) + self.out(self.attend(self.first, x, bias))
        return self.last(self.attend(self.second, x, None))


def test_biases_and_zeros_go_with_their_heads() -> None:
    model, x = Biased(), torch.randn(2, 5, 10, dtype=torch.double)
    error, groups = difference(model, x)
    assert (error <= 1e-10, groups) == (True, {"first": 4})
    graph = graphprune.trace(model, x)
    small = graphprune.prune(model, graph, {"first": torch.arange(4) == 2})  # `contiguous` of one head copies nothing
    assert (small.heads, small.table.weight.shape, small.second.out_features) == (1, (9, 1), 9)


def test_a_number_of_heads_that_also_divides_a_fixed_width_stays() -> None:
    class Dividing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.up, self.qkv, self.out = 4, nn.Linear(6, 16), nn.Linear(8, 24), nn.Linear(8, 16)
            self.down = nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.down(self.up(x).relu())
            b, n, width = x.shape
            q, k, v = self.qkv(F.layer_norm(x, (8,))).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            return self.out(((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(b, n, width))

    model, x = Dividing(), torch.randn(2, 5, 6, dtype=torch.double)
    assert difference(model, x) == (pytest.approx(0, abs=1e-10), {"up": 16})
    reason = graphprune.trace(model, x).frozen["qkv"]
    assert re.match(r"a smaller size breaks 'reshape\w*': RuntimeError: shape", reason)


def test_an_lstm_behind_convolutions_reads_fewer_features() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sound = nn.Conv1d(2, 8, 3)
            self.read = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
            self.head = nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.read(self.sound(x).relu().transpose(1, 2))[0][:, -1])

    model, x = Reading(), torch.randn(2, 2, 20, dtype=torch.double)
    error, groups = difference(model, x)
    assert (error <= 1e-10, groups) == (True, {"sound": 8})
    graph = graphprune.trace(model, x)
    small = graphprune.prune(model, graph, {"sound": torch.arange(8) < 3})
    assert (small.read.input_size, small.read.weight_ih_l0_reverse.shape) == (3, (24, 3))


def test_a_siamese_network_shares_its_layers() -> None:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.head = conv(3, 8), nn.Linear(8, 2)

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            one, two = (self.a(x).relu().mean((2, 3)) for x in (first, second))
            return self.head((one - two).abs())

    assert difference(Siamese(), IMAGE, IMAGE * 2) == (pytest.approx(0, abs=1e-10), {"a": 8})


def test_the_guide_to_rules_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BY_MODULE", dict(table.BY_MODULE))
    text = (Path(__file__).resolve().parents[2] / "docs" / "layer_rules.md").read_text()
    scope: dict[str, Any] = {}
    for snippet in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(snippet, scope)
    assert scope["mix"] in table.BY_MODULE.values()
    with pytest.raises(TypeError, match="op must be a class of modules or the name of a function, got 3"):
        table.register(3, scope["mix"])  # type: ignore[arg-type]
