"""Networks of other packages traced, pruned, and compared with their masked twins, Torch-Pruning beside it.

    python benchmarks/conformance_families.py [NAME ...]     all that have no row yet, or these ("transformers:vit")
    python benchmarks/conformance_families.py --report       the report from the rows that are there
    python benchmarks/conformance_families.py --no-onnx      leaves the exports, which take most of the time, to a later run

What the development extra has not: pip install ultralytics segmentation-models-pytorch monai
Writes reports/conformance_families.csv and .md after each network.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import graphprune  # noqa: E402
from benchmarks.families import build, names  # noqa: E402
from graphprune.graph.cutting import kept_places  # noqa: E402
from graphprune.graph.inputs import Inputs, as_inputs  # noqa: E402
from graphprune.graph.parts import named_tensors  # noqa: E402
from graphprune.runs import runtime, safe_files  # noqa: E402

TABLE, REPORT = ROOT / "reports" / "conformance_families.csv", ROOT / "reports" / "conformance_families.md"
COLUMNS = [
    *["network", "norms", "parameters", "groups", "frozen", "left", "forward", "backward", "loaded", "onnx", "trace_s"],
    *["prune_s", "tp_left", "tp_s", "tp_error", "status"],
]
NORMED = "transformers:"  # these are tried with norms over the kept channels too
EXPORT, PEER = 30, 10  # processor seconds that an export and Torch-Pruning may take


class TooLong(BaseException):
    """Not an Exception, so that a library under test does not swallow it."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooLong(f"more than {seconds} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def case(name: str) -> tuple[nn.Module, Inputs, dict[str, Any]]:
    """The network in float64 and evaluation mode, nothing in it at one value; its inputs; what else `trace` takes."""
    model, example, more = build(name)
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    for parameter in model.parameters():
        if parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
            parameter.data.uniform_(0.5, 1.5)
    inputs = as_inputs(example, {}, more.get("outputs"))
    return model, inputs.mapped(lambda x: x.double() if x.is_floating_point() else x), more


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def half(graph: graphprune.ChannelGraph) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {group.name: torch.randperm(group.channels, generator=draw) < group.channels / 2 for group in graph.groups}


def farthest(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference as a share of the largest output; infinite where shapes differ."""
    if [out.shape for out in found] != [out.shape for out in wanted]:
        return float("inf")
    pairs = [(a.detach(), b.detach()) for a, b in zip(found, wanted, strict=True) if b.is_floating_point() and b.numel()]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-300)) for a, b in pairs)


def run(model: nn.Module, inputs: Inputs) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The outputs that count, and the gradients of the sum of their squares."""
    outs = [out for out in inputs.call(model) if out.is_floating_point()]
    sum(out.square().sum() for out in outs).backward()  # type: ignore[union-attr]
    return outs, {name: tensor.grad for name, tensor in named_tensors(model).items() if tensor.grad is not None}


def gradients_agree(parts: dict[str, Tensor], whole: dict[str, Tensor], places: Any) -> float:
    """The largest difference of kept gradients, as a share of the largest gradient."""
    scale = max(float(grad.abs().max()) for grad in parts.values())
    worst = 0.0
    for name, grad in parts.items():
        full = whole[name]
        for dim in range(full.ndim):
            full = full.index_select(dim, places[name, dim]) if (name, dim) in places else full
        worst = max(worst, float((grad - full).abs().max()) / scale)
    return worst


def under_all_names(places: Any, model: nn.Module) -> Any:
    """The same places for each name of a parameter that several modules share."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    shared = {name: same for same in names.values() for name in same}
    return {(other, dim): index for (name, dim), index in places.items() for other in shared.get(name, [name])}


def exported(model: nn.Module, inputs: Inputs) -> str:
    """ "" if onnxruntime gives what the network gives, else what went wrong."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/network.onnx"
        torch.onnx.export(model, inputs.args, file, kwargs=dict(inputs.kwargs), dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        given = dict(zip([item.name for item in session.get_inputs()], inputs.tensors, strict=False))
        found = [torch.from_numpy(out) for out in session.run(None, {name: x.numpy() for name, x in given.items()})]
    with torch.no_grad():
        wanted = Inputs(inputs.args, inputs.kwargs).call(model)
    close = any(a.shape == wanted[0].shape and farthest([a], wanted[:1]) < 1e-4 for a in found)
    return "" if close else "another result"


def check(name: str, norms: Any, export: bool = True) -> dict[str, Any]:
    """One row; without an export, which takes most of the time, it counts as unfinished."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"network": name, "norms": norms}
    try:
        model, inputs, more = case(name)
        example = (inputs.kwargs or None) if not inputs.args else inputs.args
        start = time.process_time()
        graph = graphprune.trace(model, example, norms=norms, **more)
        row |= {"trace_s": time.process_time() - start, "parameters": size(model)}
        row |= {"groups": len(graph.groups), "frozen": len(graph.frozen)}
        keep = half(graph)
        start = time.process_time()
        small = graphprune.prune(model, graph, keep, check=False).eval()
        row |= {"prune_s": time.process_time() - start, "left": size(small) / size(model)}
        twin = graphprune.masked(model, graph, keep).eval()
        (wanted, whole), (found, parts) = run(twin, inputs), run(small, inputs)
        row["forward"] = farthest(found, wanted)
        row["backward"] = gradients_agree(parts, whole, under_all_names(kept_places(graph, graph.flatten(keep)), model))
        row["status"] = "ok" if max(row["forward"], row["backward"]) <= 1e-10 else "masked and pruned disagree"
        row["loaded"] = loads(name, small, graph, keep, inputs)
        row["onnx"] = onnx(name, small, inputs) if export else ""
        if norms == "whole":
            row |= torch_pruning(name, graph)
    except Exception as error:
        row["status"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"
    return row


def loads(name: str, small: nn.Module, graph: graphprune.ChannelGraph, keep: dict[str, Tensor], inputs: Inputs) -> str:
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = graphprune.save_pruned(f"{folder}/small.safetensors", small, graph, keep)
        loaded = graphprune.load_pruned(path, case(name)[0]).eval()
        return "yes" if farthest(inputs.call(loaded), inputs.call(small)) <= 1e-12 else "no"


def onnx(name: str, small: nn.Module, inputs: Inputs) -> str:
    """In single precision: yes; no and why; or that the unpruned network is not exported either."""
    inputs = inputs.mapped(lambda x: x.float() if x.is_floating_point() else x)
    small, reasons = small.float(), []
    for model in (small, case(name)[0].float()):
        try:
            with limited(EXPORT):
                reasons.append(exported(model, inputs))
        except (Exception, TooLong) as error:
            reasons.append(type(error).__name__)
        if not reasons[0]:
            return "yes"
    return "nor the unpruned" if reasons[1] else f"no: {reasons[0]}"


# Torch-Pruning --------------------------------------------------------------------------------------------------------


def torch_pruning(name: str, graph: graphprune.ChannelGraph) -> dict[str, Any]:
    """Torch-Pruning's result at the same ratio by chance, its processor seconds, and how far it is from its masked twin.

    Every tensor holds its own places' numbers while it prunes, so that what was kept can be read off.
    """
    import torch_pruning as tp

    model, inputs, _ = case(name)
    before = {key: tensor.detach().clone() for key, tensor in named_tensors(model).items()}
    for tensor in named_tensors(model).values():
        if tensor.is_floating_point():
            tensor.data = torch.arange(tensor.numel(), dtype=torch.double).reshape(tensor.shape) + 1
    ends = {layer for layer, reason in graph.frozen.items() if "network's output" in reason}
    ignored = [module for path, module in model.named_modules() if path in ends]
    example: Any = dict(inputs.kwargs) if inputs.kwargs else inputs.args
    outputs: Callable[[Any], Any] | None = (lambda out: out.logits) if inputs.outputs else None
    start = time.process_time()
    try:
        with limited(PEER):
            torch.manual_seed(0)
            pruner = tp.pruner.BasePruner(
                model,
                example,
                importance=tp.importance.RandomImportance(),
                pruning_ratio=0.5,
                ignored_layers=ignored,
                output_transform=outputs,
            )
            pruner.step()
        found = {"tp_s": time.process_time() - start, "tp_left": size(model) / sum(map(parameters_of(before, model), before))}
        twin = case(name)[0]
        full = named_tensors(twin)
        for key, tensor in named_tensors(model).items():
            if tensor.is_floating_point():
                places = tensor.detach().long().flatten() - 1
                tensor.data = before[key].flatten()[places].reshape(tensor.shape)
                gone = torch.ones(before[key].numel(), dtype=torch.bool)
                gone[places] = False
                full[key].data.view(-1)[gone] = 1.0 if key.endswith("running_var") else 0.0
        with torch.no_grad():
            found["tp_error"] = f"{farthest(inputs.call(model.eval()), inputs.call(twin.eval())):.2g}"
        return found
    except (Exception, TooLong) as error:
        return {"tp_error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:80]}"}


def parameters_of(before: dict[str, Tensor], model: nn.Module) -> Callable[[str], int]:
    own = {name for name, _ in model.named_parameters()}
    return lambda name: before[name].numel() if name in own else 0


# the table ------------------------------------------------------------------------------------------------------------


def wanted() -> list[tuple[str, str]]:
    return [(name, norms) for name in names() for norms in (("whole", "kept") if name.startswith(NORMED) else ("whole",))]


def read() -> list[dict[str, Any]]:
    return list(csv.DictReader(TABLE.read_text().splitlines())) if TABLE.is_file() else []


def append(row: dict[str, Any]) -> None:
    """The table with one more row, written atomically; an older row of the same case gives way."""
    rows = [old for old in read() if (old["network"], old["norms"]) != (row["network"], row["norms"])]
    rows.append({name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()})
    order = {key: place for place, key in enumerate(wanted())}
    part = TABLE.with_name(f".{TABLE.name}.{os.getpid()}.part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda r: order.get((r["network"], r["norms"]), len(order))))
    part.replace(TABLE)


def installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except ModuleNotFoundError:
        return f"{package} (not here)"


def over_goal(row: dict[str, Any]) -> str:
    """The network and what is left of it, where that is more than it should be; else ""."""
    goal = {"whole": 0.75, "kept": 0.4}[row["norms"]]
    return f"{row['network']} {row['norms']} {float(row['left']):.2f}" if row["left"] and float(row["left"]) > goal else ""


def report() -> None:
    rows = read()
    held = [row for row in rows if row["status"] == "ok"]
    packages = ["transformers", "ultralytics", "segmentation-models-pytorch", "torchvision", "monai", "torch-geometric"]
    exact = [row for row in rows if row["tp_left"] and float(row["tp_error"]) <= 1e-10]
    lines = [
        "# Conformance: networks of other packages",
        "",
        "`python benchmarks/conformance_families.py` runs what is missing and writes this. Half of every group by chance,",
        "float64; *left* is the share of the parameters; *forward* and *backward* the largest difference between pruned and",
        "masked network, as a share of the largest output or gradient. Norms *kept*: the statistics of layer norms run over",
        "the kept channels, in the twin too. Seconds are processor seconds of one thread. Torch-Pruning runs once a network,",
        "with the same ratio, the output layers left alone and nothing else said (its own examples add, for transformers,",
        "which layers are heads, and mend the modules by hand): its share left, its seconds, and its difference from its own",
        "masked twin. Torchvision's detectors are taken without what selects and joins boxes.",
        "",
        f"{runtime.hardware()}; {', '.join(map(installed, ['torch', *packages, 'torch-pruning']))}.",
        "",
        f"- {len(held)} of {len(rows)} cases hold (limit 1e-10, forward and backward); {len(wanted()) - len(rows)} not run.",
        f"- More left than the goal (0.75, with norms kept 0.4): {', '.join(map(over_goal, filter(over_goal, rows)))}.",
        f"- Exported to ONNX, and run to the same result: {sum(row['onnx'] == 'yes' for row in rows)}; where the unpruned",
        f"  network is not exported either: {sum(row['onnx'].startswith('nor') for row in rows)}; not tried: "
        f"{sum(not row['onnx'] for row in rows)}.",
        f"- Torch-Pruning gives a network that runs in {sum(bool(r['tp_left']) for r in rows)} of "
        f"{len([r for r in rows if r['norms'] == 'whole'])} cases, and in {len(exact)} it equals its masked twin to 1e-10.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
        *(f"| {' | '.join(str(row[name]).replace('|', '/') for name in COLUMNS)} |" for row in rows),
    ]
    safe_files.replace(REPORT, ("\n".join(lines) + "\n").encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--no-onnx", action="store_true", help="leave the export to a later run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = read()
    done = {(row["network"], row["norms"]) for row in rows if row["onnx"] or options.no_onnx or row["status"] != "ok"}
    cases = [key for key in wanted() if (key[0] in options.names if options.names else key not in done)]
    for name, norms in [] if options.report else cases:
        row = check(name, norms, not options.no_onnx)
        append(row)
        report()
        print(name, norms, row["status"], row["left"], row["onnx"], row["tp_error"], flush=True)
    report()
    return int(any(row["status"] != "ok" for row in read()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
