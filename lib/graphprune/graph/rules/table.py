"""Which rule an operation goes by.

Rules are found by the operation's name (functions and methods share them) or by the module class whose forward is used
unchanged; anything else is `unknown` and freezes what it touches.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from graphprune.graph.channel_select import ChannelSelect
from graphprune.graph.rules import output_shapes
from graphprune.graph.rules.data_movement import (
    channel_shuffle,
    chunk,
    collection,
    concatenate,
    created,
    execute,
    expand,
    expand_as,
    first_operand,
    flatten,
    glu,
    pad,
    reshape,
    roll,
    select,
    split,
    stack,
    unbind,
    unflatten,
)
from graphprune.graph.rules.elementwise import elementwise
from graphprune.graph.rules.indexing import gather, getitem, index_add, index_select, scatter
from graphprune.graph.rules.layers import (
    addmm,
    attention,
    channel_select,
    convolution,
    embedding,
    linear,
    matmul,
    pooling,
    prelu,
    recurrent,
    reduction,
    spatial,
)
from graphprune.graph.rules.normalisation import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    softmax,
)
from graphprune.graph.rules.operation import Rule, unknown
from graphprune.graph.rules.output_shapes import Formula


def _names(text: str, rule: Rule) -> dict[str, Rule]:
    return {name: rule for base in text.split() for name in (base, f"{base}_", f"i{base}", f"__{base}__")}


ARITHMETIC = _names(
    "add sub mul div truediv true_divide divide multiply subtract rsub maximum minimum pow lerp clamp clip "
    "neg abs exp log log1p expm1 sqrt rsqrt square reciprocal sign round floor ceil erf sin cos tanh sigmoid relu relu6 "
    "gelu silu mish elu selu celu leaky_relu hardtanh hardswish hardsigmoid softplus softsign logsigmoid logit "
    "threshold dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout "
    "stochastic_depth drop_path detach requires_grad zeros_like ones_like bernoulli nan_to_num "
    "rrelu hardshrink softshrink tanhshrink",
    elementwise,
)
"""Elementwise operations that keep a floating dtype: the result's shape is their operands' common one."""

BY_NAME: dict[str, Rule] = {
    **ARITHMETIC,
    **_names(
        "floordiv clone copy contiguous where empty_like rand_like randn_like "
        "full_like gt lt ge le eq ne masked_fill logical_not logical_and logical_or mod fmod remainder",
        elementwise,
    ),
    **_names("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d", convolution),
    **_names("batch_norm", batch_norm),
    **_names("instance_norm", instance_norm),
    **_names("group_norm", group_norm),
    **_names("layer_norm rms_norm", layer_norm),
    **_names("local_response_norm", local_response_norm),
    **_names("linear", linear),
    **_names("prelu", prelu),
    **_names("matmul bmm mm _sparse_mm", matmul),
    **_names("scaled_dot_product_attention", attention),
    **_names("embedding", embedding),
    **_names("addmm", addmm),
    **_names("type_as to type float half double bfloat16", first_operand),
    **_names("new_zeros new_ones new_empty new_full new_tensor zeros ones empty full", created),
    **_names("softmax log_softmax softmin normalize gumbel_softmax", softmax),
    **_names("interpolate upsample upsample_nearest upsample_bilinear", spatial),
    **_names(
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
        "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d",
        pooling,
    ),
    **_names("mean sum amax amin prod std var norm logsumexp", reduction),
    **_names("view reshape", reshape),
    **_names("unflatten", unflatten),
    **_names("flatten ravel", flatten),
    **_names("expand", expand),
    **_names("expand_as", expand_as),
    **_names("chunk tensor_split", chunk),
    **_names("split split_with_sizes", split),
    **_names("unbind", unbind),
    **_names("getitem", getitem),
    **_names("index_select", index_select),
    **_names("gather", gather),
    **_names("scatter scatter_add scatter_reduce", scatter),
    **_names("index_add index_copy index_reduce index_fill", index_add),
    **_names("select narrow", select),
    **_names("roll", roll),
    **_names("cat concat concatenate", concatenate),
    **_names("stack", stack),
    **_names("pad", pad),
    **_names("channel_shuffle native_channel_shuffle", channel_shuffle),
    **_names("glu", glu),
    **_names(
        "permute transpose swapaxes swapdims movedim moveaxis t squeeze unsqueeze repeat tile repeat_interleave "
        "flip pixel_shuffle pixel_unshuffle getattr view_as reshape_as",
        execute,
    ),
}


def _modules(home: ModuleType) -> list[type[nn.Module]]:
    """The public module classes of one of torch.nn's files."""
    found = [kind for _, kind in inspect.getmembers(home, inspect.isclass) if kind.__module__ == home.__name__]
    return [kind for kind in found if issubclass(kind, nn.Module) and not kind.__name__.startswith("_")]


BY_MODULE: dict[type[nn.Module], Rule] = {
    **dict.fromkeys([*_modules(nn.modules.activation), *_modules(nn.modules.dropout)], elementwise),
    nn.Identity: elementwise,
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax, nn.Softmin), softmax),
    **dict.fromkeys((nn.MultiheadAttention, nn.Softmax2d), unknown),
    nn.PReLU: prelu,
    nn.GLU: glu,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), convolution),
    nn.Linear: linear,
    nn.Embedding: embedding,
    **dict.fromkeys((nn.LSTM, nn.GRU, nn.RNN), recurrent),
    ChannelSelect: channel_select,
    _BatchNorm: batch_norm,
    _InstanceNorm: instance_norm,
    nn.GroupNorm: group_norm,
    **dict.fromkeys((nn.LayerNorm, nn.RMSNorm), layer_norm),
    nn.LocalResponseNorm: local_response_norm,
    **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d), spatial),
    **dict.fromkeys([kind for kind in _modules(nn.modules.pooling) if "Unpool" not in kind.__name__], pooling),
    nn.Flatten: flatten,
    nn.Unflatten: unflatten,
    **dict.fromkeys((nn.PixelShuffle, nn.PixelUnshuffle), execute),
    nn.ChannelShuffle: channel_shuffle,
    **dict.fromkeys(_modules(nn.modules.padding), pad),
}


def register(op: type[nn.Module] | str, rule: Rule) -> None:
    """Say what a layer of your own does to channel labels; see docs/layer_rules.md.

    Args:
        op: a module's class (and its subclasses that leave the forward as it is), or the name of a function or method of
            torch. An older rule gives way.
        rule: (run, call) -> labels of the result, of the result's shape. `graphprune.call.Run` and `Call` say what they offer.
    """
    if isinstance(op, str):
        BY_NAME[op] = rule
    elif isinstance(op, type) and issubclass(op, nn.Module):
        BY_MODULE[op] = rule
    else:
        raise TypeError(f"op must be a class of modules or the name of a function, got {op!r}")


def module_base(module: nn.Module) -> type[nn.Module] | None:
    """The torch class whose forward a module uses unchanged; None where it has a forward of its own."""
    for base in type(module).__mro__:
        if base in BY_MODULE and type(module).forward is base.forward:
            return base
    return None


def rule_of(op: Any) -> Rule:
    """The rule of a function, method name or module; `unknown` if there is none."""
    if isinstance(op, nn.Module):
        base = module_base(op)
        return BY_MODULE[base] if base else unknown
    if isinstance(op, str):
        return BY_NAME.get(op, unknown)
    if isinstance(op, type) and issubclass(op, tuple):
        return collection
    home = (getattr(op, "__module__", None) or "torch").partition(".")[0]
    name = getattr(op, "__name__", "")
    return BY_NAME.get(name, unknown) if home in {"torch", "_operator", "builtins", "torchvision"} else unknown


FORMULAS: dict[Rule, Formula] = {
    elementwise: output_shapes.elementwise,
    **dict.fromkeys((batch_norm, instance_norm, group_norm, layer_norm), output_shapes.unchanged),
    **dict.fromkeys((local_response_norm, prelu, softmax), output_shapes.unchanged),
    convolution: output_shapes.convolution,
    linear: output_shapes.linear,
    channel_select: output_shapes.channel_select,
    pooling: output_shapes.pooling,
    reduction: output_shapes.reduction,
    concatenate: output_shapes.concatenate,
}


def formula_of(op: Any, rule: Rule) -> Formula | None:
    """The formula of the shape of an operation's result, None where it must be executed."""
    name = op if isinstance(op, str) else getattr(op, "__name__", "")
    if rule is elementwise and not isinstance(op, nn.Module) and name not in ARITHMETIC:
        return None
    return FORMULAS.get(rule)


WEIGHT_READERS = (convolution, linear, embedding, addmm, batch_norm, instance_norm, group_norm, layer_norm, prelu)


def reads_weight(user: fx.Node, attribute: fx.Node) -> bool:
    """Whether a node reads a parameter as its weight, not as an operand."""
    return user.op == "call_function" and user.meta["rule"] in WEIGHT_READERS and user.args[:1] != (attribute,)
