"""Arguments looked at before any work: what is refused is named, with its value and what it must be."""

import inspect
import operator
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def at_least(least: int, remedy: str = "", **values: Any) -> None:
    """Raise ValueError unless every value is a whole number of at least `least`.

    Args:
        remedy: how the error ends.
        values: the arguments by their names.

    >>> at_least(1, batches=8, batch_size=0)
    Traceback (most recent call last):
    ValueError: batch_size=0: must be at least 1
    """
    for name, value in values.items():
        try:
            whole = not isinstance(value, bool) and operator.index(value) == value
        except TypeError:
            whole = False
        if not whole:
            raise ValueError(f"{name}={value!r}: must be a whole number, at least {least}{remedy}")
        if value < least:
            raise ValueError(f"{name}={value!r}: must be at least {least}{remedy}")


def share(**values: Any) -> None:
    """Raise ValueError unless every value is a number from 0 to 1.

    >>> share(momentum=1.5)
    Traceback (most recent call last):
    ValueError: momentum=1.5: must be a number from 0 to 1
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:  # nan is none either
            raise ValueError(f"{name}={value!r}: must be a number from 0 to 1")


def demand_number(remedy: str, **values: Any) -> None:
    """Raise TypeError unless every value is a number; its range is for the caller to look at.

    Args:
        remedy: how the error ends.
        values: the arguments by their names.

    >>> demand_number("e.g. 0.9", sparsity="0.5")
    Traceback (most recent call last):
    TypeError: sparsity='0.5': must be a number, got str; e.g. 0.9
    """
    for name, value in values.items():
        if not isinstance(value, Real) and not (isinstance(value, Tensor) and value.ndim == 0):
            raise TypeError(f"{name}={value!r}: must be a number, got {type(value).__name__}; {remedy}")


def takes(argument: str, function: Callable[..., Any], names: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Raise TypeError unless a function can be called with these arguments by place, in this order.

    Args:
        argument: what the function was given as.
        names: of its arguments; a parameter that bears one of them must stand at that place.
        optional: parameters that it may have besides.

    >>> takes("scores", lambda graph, model: {}, ["model", "graph"])
    Traceback (most recent call last):
    TypeError: scores: the function must take (model, graph), and takes (graph, model)
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    known = list(signature.parameters)
    misplaced = any(name in known and known.index(name) != place for place, name in enumerate(names))
    try:
        signature.bind(*names, **{name: None for name in optional if name in known})
    except TypeError:
        misplaced = True
    if misplaced:
        raise TypeError(f"{argument}: the function must take ({', '.join(names)}), and takes ({', '.join(known)})")


def demand_network(model: Any) -> None:
    """Raise TypeError unless it is a network, and ValueError if it has lazy layers that were never called.

    >>> demand_network("resnet18")
    Traceback (most recent call last):
    TypeError: model must be a torch.nn.Module, got str; give the network itself
    """
    if not isinstance(model, nn.Module):
        remedy = "of what prune_to returned give .network" if hasattr(model, "network") else "give the network itself"
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}; {remedy}")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(f"model: {name!r} of a lazy layer has no size yet; call the model once on a real input first")


def demand_values(model: nn.Module) -> None:
    """Raise ValueError unless every parameter has values.

    >>> demand_values(nn.Linear(2, 1, device="meta"))
    Traceback (most recent call last):
    ValueError: model: its parameter 'weight' is on the meta device, without values; materialise it first and load its weights
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            where = "is on the meta device, without values"
            raise ValueError(f"model: its parameter {name!r} {where}; materialise it first and load its weights")


def demand_finite(model: nn.Module) -> None:
    """Raise ValueError unless every parameter has finite values, and no buffer NaN. (Masks in buffers may be infinite.)

    >>> layer = nn.Linear(2, 1)
    >>> _ = layer.weight.data.fill_(float("nan"))
    >>> demand_finite(layer)
    Traceback (most recent call last):
    ValueError: model: its parameter 'weight' holds 2 NaN or infinite values of 2; load sound weights
    """
    demand_values(model)
    for name, parameter in model.named_parameters():
        if wrong := int((~parameter.detach().isfinite()).sum()):
            what = f"holds {wrong} NaN or infinite values of {parameter.numel()}"
            raise ValueError(f"model: its parameter {name!r} {what}; load sound weights")
    for name, buffer in model.named_buffers():
        if not buffer.is_meta and (wrong := int(buffer.isnan().sum())):
            raise ValueError(f"model: its buffer {name!r} holds {wrong} NaN of {buffer.numel()} values; load sound ones")


def demand(argument: str, value: Any, kind: type, remedy: str) -> None:
    """Raise TypeError unless a value is of a kind.

    >>> demand("keep", [True], dict, "start from graph.full() and change it")
    Traceback (most recent call last):
    TypeError: keep must be a dict, got list; start from graph.full() and change it
    """
    if not isinstance(value, kind):
        raise TypeError(f"{argument} must be a {kind.__name__}, got {type(value).__name__}; {remedy}")
