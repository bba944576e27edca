"""The conformance matrix: every network traced, pruned, proven equal to its masked twin, trained one step.

    python benchmarks/conformance.py            the whole matrix, resumed where it stopped; then the report
    python benchmarks/conformance.py NAME ...   these networks ("resnet18", "timm:dla34") at ratio 0.5
    python benchmarks/conformance.py --report   the report from the rows that are there

One row a network is appended to reports/conformance.csv as soon as it is done; a row is not run again while it is there.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import graphprune
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.tracing import InputRejected
from graphprune.pruning.cost import prunable_share
from graphprune.runs import runtime

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "reports" / "conformance.csv"
REPORT = ROOT / "reports" / "conformance.md"
DIFFERENCES = [
    "Coupled layers, compared in tests/test_torch_pruning_oracle.py:",
    "- equal: resnet20, alexnet, vgg11_bn, resnet18, squeezenet1_1, densenet121, mobilenet_v2, mnasnet0_5, efficientnet_b0;",
    "- convnext_tiny: Torch-Pruning also shrinks what LayerNorm averages over, which changes its result; those stay here.",
    "  The MLPs' hidden widths are the same;",
    "- shufflenet_v2_x0_5: Torch-Pruning stops with ZeroDivisionError; here the two halves couple by position.",
]


def words(text: str) -> list[str]:
    return text.split()


TIMM = words(
    "resnet26d resnext26ts seresnet50 resnest14d skresnet18 ecaresnet50t res2net50_26w_4s dla34 hrnet_w18_small "
    "densenetblur121d mobilenetv3_small_050 efficientnet_lite0 mixnet_s ghostnet_100 fbnetc_100 mobilenetv4_conv_small "
    "repvgg_a0 convnext_atto regnety_002 regnetx_002 xception41 inception_v4 inception_resnet_v2 vovnet39a "
    "ese_vovnet19b_dw cspresnet50 cspdarknet53 dpn68 selecsls42 rexnet_100 tinynet_e lcnet_050 hardcorenas_a "
    "mobileone_s0 hgnet_tiny repghostnet_050 gernet_s starnet_s1 resnet51q mnasnet_small"
)
FIXED = ["nfnet_l0", "convnextv2_atto"]  # standardised weights, means over channels: nothing, or little, can go
MATRIX = words(
    "alexnet vgg11 resnet18 resnet50 resnext50_32x4d densenet121 googlenet mobilenet_v2 mobilenet_v3_small mnasnet0_5 "
    "shufflenet_v2_x0_5 squeezenet1_1 efficientnet_b0 regnet_y_400mf convnext_tiny swin_t vit_b_16 timm:dla34 "
    "timm:hrnet_w18_small timm:ghostnet_100"
)
GIANTS = {"vit_h_14", "regnet_y_128gf"}  # their weights are left out: traced and pruned on the meta device
SIZES = (32, 64, 96, 128, 224, 299)
COLUMNS = words(
    "network ratio scores input params groups frozen prunable lost realised error trained step_s trace_s prune_s peak_gib "
    "cost status reasons"
)


def names() -> list[str]:
    """The zoo: torchvision's classification models, then timm's."""
    zoo = torchvision.models.list_models(module=torchvision.models)
    return [*zoo, *(f"timm:{name}" for name in (*TIMM, *FIXED))]


def build(name: str, meta: bool = False) -> nn.Module:
    with warnings.catch_warnings(), torch.device("meta" if meta and not name.startswith("regnet") else "cpu"):
        warnings.simplefilter("ignore")
        return graphprune.models.build(name if ":" in name else f"torchvision:{name}", num_classes=1000)


def randomise(model: nn.Module) -> nn.Module:
    """Normalisation statistics that hide nothing; no parameter is left at one value (ones, zeros, a layer scale of 1e-6)."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    for parameter in model.parameters():
        if bool((parameter == parameter.flatten()[0]).all()):
            parameter.data.uniform_(0.5, 1.5) if bool(parameter.flatten()[0] > 0) else parameter.data.normal_(0, 0.5)
    return model


def smallest_trace(model: nn.Module) -> tuple[ChannelGraph, int, float]:
    """The trace at the smallest square input that the network takes, training mode included; processor seconds."""
    for size in SIZES:
        start = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="layers that evaluation does not reach")
                graph = graphprune.trace(model, torch.zeros(1, 3, size, size))
            return graph, size, time.process_time() - start
        except (InputRejected, UserWarning) as error:  # of warnings, only the one above is an error
            last = error
    raise last


def keep_by(scores: str, ratio: float, model: nn.Module, graph: ChannelGraph, seed: int = 0) -> dict[str, Tensor]:
    """uniform: the same rate and the largest filters; random: the same rate, by chance; global: one threshold, >= 1 kept."""
    draw = torch.Generator().manual_seed(seed)
    value = graphprune.importance.random(model, graph, draw) if scores == "random" else graphprune.importance.l1(model, graph)
    if scores != "global":
        row = [round(ratio * 10)] * len(graph.groups)
        return graphprune.keep_from_rates(graph, torch.tensor(row), value)
    scaled = {group.name: value[group.name] / value[group.name].mean().clamp(min=1e-12) for group in graph.groups}
    threshold = torch.cat(list(scaled.values())).quantile(ratio)
    return {name: (score > threshold) | (score == score.max()) for name, score in scaled.items()}


def outputs(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return [
        tensor
        for part in (result.values() if isinstance(result, dict) else result)
        if part is not None
        for tensor in outputs(part)
    ]


def train_step(small: nn.Module, size: int) -> str:
    """One optimizer step on a batch of two; "" or what went wrong."""
    small.train()
    optimizer = torch.optim.SGD(small.parameters(), lr=1e-6)
    x = torch.randn(2, 3, size, size, dtype=next(small.parameters()).dtype)
    sum(out.square().mean() for out in outputs(small(x))).backward()  # type: ignore[union-attr]
    bad = [name for name, p in small.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    optimizer.step()
    return f"gradient of {bad[0]} is not finite" if bad else ""


def costs_agree(small: nn.Module, graph: ChannelGraph, keep: dict[str, Tensor], x: Tensor) -> str:
    """cost and CostModel against torch's counter on the running network, attention's fast path off; "equal" or what differs."""
    torch.backends.mha.set_fastpath_enabled(False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        small(x)
    torch.backends.mha.set_fastpath_enabled(True)
    counted = (counter.get_total_flops() // 2, sum(p.numel() for p in small.parameters()))
    cost = graphprune.cost(small, x)
    macs, params = graphprune.CostModel(graph, x).of_counts(torch.tensor([[int(m.sum()) for m in keep.values()]]))
    found = {"cost": (cost.macs, cost.params), "CostModel": (int(macs), int(params))}
    wrong = [f"{name} {value}" for name, value in found.items() if value != counted]
    return f"counted {counted}, {', '.join(wrong)}" if wrong else "equal"


def widths_hold(small: nn.Module, graph: ChannelGraph, keep: dict[str, Tensor]) -> str:
    """Every layer has exactly the channels that `keep` gives it, and at least one; "" or what went wrong."""
    kept = torch.cat([graph.flatten(keep), torch.ones(1, dtype=torch.bool)])
    tensors = dict(small.named_parameters(remove_duplicate=False))
    for node in graph.nodes:
        expected, weight = int(kept[list(node.atoms)].sum()), tensors.get(f"{node.name}.weight")
        module = small.get_submodule(node.name) if weight is not None else None
        if weight is None or node.kind not in {"conv", "fc"}:
            continue
        found = getattr(module, "out_channels", None) or weight.shape[0]
        if found != expected or found < 1:
            return f"{node.name} has {found} channels, not {expected}"
    return ""


def peak_gib(reset: bool = False) -> float:
    """This process's peak memory since the last reset, in GiB; 0 where the system does not tell."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    except OSError:
        return 0.0


def check(name: str, ratio: float = 0.5, scores: str = "random") -> dict[str, Any]:
    """One row of the matrix."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"network": name, "ratio": ratio, "scores": scores}
    torch.manual_seed(0)
    gc.collect()
    peak_gib(reset=True)
    meta = name in GIANTS
    try:
        model = build(name, meta).eval()
        if not meta:
            model = randomise(model.double())
        graph, size, row["trace_s"] = smallest_trace(model)
        row |= {"input": size, "params": sum(p.numel() for p in model.parameters()), "groups": len(graph.groups)}
        row |= {"frozen": len(graph.frozen), "reasons": reasons(graph), "prunable": prunable_share(graph)}
        row["status"] = "ok"
        if graph.groups:
            compare(row, model, graph, keep_by("random" if meta else scores, ratio, model, graph), size, meta)
    except Exception as error:
        row["status"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    row["peak_gib"] = peak_gib()
    return row


def compare(row: dict[str, Any], model: nn.Module, graph: ChannelGraph, keep: dict[str, Tensor], size: int, meta: bool) -> None:
    """Prune, and fill the row with what holds."""
    start = time.process_time()
    small = graphprune.prune(model, graph, keep)
    row["prune_s"] = time.process_time() - start
    row["lost"] = 1 - sum(p.numel() for p in small.parameters()) / row["params"]
    total = sum(group.width for group in graph.groups)
    gone = sum(group.width * (1 - float(keep[group.name].double().mean())) for group in graph.groups)
    row["realised"] = gone / total
    if wrong := widths_hold(small, graph, keep):
        row["status"] = wrong
    if meta:
        row["error"] = row["trained"] = "not run"
        return
    x = torch.randn(1, 3, size, size, dtype=torch.double)
    with torch.no_grad():
        found = outputs(small(x))
        twin = graphprune.masked(model, graph, keep).eval()
        wanted = outputs(twin(x))
    del twin
    row["cost"] = costs_agree(small, graph, keep, x)
    row["error"] = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(wanted, found, strict=True))
    if [out.shape for out in found] != [out.shape for out in wanted] or not row["error"] <= 1e-10:
        row["status"] = "masked and pruned disagree"
    start = time.process_time()
    wrong = train_step(small, size)
    row |= {"trained": wrong or "yes", "step_s": time.process_time() - start}
    if wrong or row["cost"] != "equal":
        row["status"] = wrong or f"cost: {row['cost']}"


def reasons(graph: ChannelGraph) -> str:
    """Why layers are frozen, counted, without the names of the places."""
    counts: dict[str, int] = {}
    for reason in graph.frozen.values():
        words = [word for word in reason.partition(" (")[0].split() if "'" not in word and word != "at"]
        counts[" ".join(words)] = counts.get(" ".join(words), 0) + 1
    return "; ".join(f"{count} x {reason}" for reason, count in sorted(counts.items(), key=lambda item: -item[1])[:3])


# the table ------------------------------------------------------------------------------------------------------------


def key(row: dict[str, Any]) -> tuple[str, float, str]:
    return row["network"], float(row["ratio"]), row["scores"]


def wanted() -> list[tuple[str, float, str]]:
    """The whole matrix, the small networks' part first."""
    spread = [(n, r, s) for n in MATRIX for r in (0.1, 0.5, 0.9) for s in ("uniform", "random", "global")]
    zoo = [(name, 0.5, "random") for name in names()]
    return [*zoo, *(case for case in spread if case not in zoo)]


def read() -> list[dict[str, Any]]:
    if not TABLE.is_file():
        return []
    return [dict.fromkeys(COLUMNS, "") | row for row in csv.DictReader(TABLE.open())]


def append(row: dict[str, Any]) -> None:
    """Write the table with one more row, atomically; an older row of the same case gives way."""
    rows = [old for old in read() if key(old) != key(row)] + [
        {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
    ]
    TABLE.parent.mkdir(exist_ok=True)
    part = TABLE.with_name(f".{TABLE.name}.{os.getpid()}.part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        order = {case: index for index, case in enumerate(wanted())}
        writer.writerows(sorted(rows, key=lambda r: order.get(key(r), len(order))))
    part.replace(TABLE)


def family_goal(name: str) -> tuple[str, float]:
    """The prunable share that a family must reach."""
    base = name.removeprefix("timm:")
    if any(word in base for word in ("vit", "swin", "convnext")):
        return "transformers, ConvNeXt", 0.55
    if any(word in base for word in ("vgg", "resnet", "resnext", "densenet", "googlenet", "inception")):
        return "VGG, ResNet, DenseNet, Inception", 0.95
    return "depthwise nets, ShuffleNet and the rest", 0.85


def report() -> None:
    """reports/conformance.md: what holds, what does not, what was not run."""
    rows = read()
    done = {key(row) for row in rows}
    missing = [case for case in wanted() if case not in done]
    zoo = [row for row in rows if (float(row["ratio"]), row["scores"]) == (0.5, "random")]
    lines = [
        "# Conformance: every network traced, pruned and compared with its masked twin",
        "",
        "`make conformance` runs what is missing and writes this. Float64, random normalisation statistics, random weights;",
        "one optimizer step on a batch of two; the smallest square input the network takes. Seconds are processor seconds of",
        f"one thread, memory is the process's peak. {runtime.hardware()}; torch {torch.__version__}.",
        "Networks of other packages are in [conformance_families.md](conformance_families.md).",
        "",
        *summary(rows, zoo, missing),
        "",
        *heading(
            "network, input, parameters, groups, frozen, prunable, lost, error, trained, cost, trace s, prune s, GiB, holds"
        ),
        *(table_row(row) for row in zoo),
        "",
        "## Why layers are frozen",
        "",
        *(f"- {row['network']}: {row['reasons']}" for row in zoo if int(row["frozen"] or 0) > 1),
    ]
    spread = [row for row in rows if row["network"] in MATRIX]
    if spread:
        shown = [{**r, "realised": number(r["realised"]), "lost": number(r["lost"])} for r in spread]
        lines += ["", "## Ratios and scores", "", *heading("network, scores, ratio, realised, lost, error, status")]
        lines += [f"| {' | '.join(r[c] for c in words('network scores ratio realised lost error status'))} |" for r in shown]
    lines += ["", "## Against Torch-Pruning's groups", "", *DIFFERENCES]
    if missing:
        lines += ["", "## Not run", "", *(f"- {name} at {ratio}, {scores}" for name, ratio, scores in missing)]
    REPORT.write_text("\n".join(lines) + "\n")


def heading(columns: str) -> list[str]:
    names = columns.split(", ")
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]


def summary(rows: list[dict[str, Any]], zoo: list[dict[str, Any]], missing: list[Any]) -> Iterable[str]:
    fine = [row for row in rows if row["status"] == "ok"]
    yield f"- {len(fine)} of {len(rows)} cases hold; {len(missing)} of the matrix's {len(wanted())} were not run (below)."
    errors = [float(row["error"]) for row in rows if row["error"] not in {"", "not run"}]
    worst = max(errors, default=0)
    yield f"- max abs(masked - pruned) / max abs(masked): {worst:.1e} at worst, over {len(errors)} cases (limit 1e-10)."
    below = [row["network"] for row in zoo if row["prunable"] and float(row["prunable"]) < family_goal(row["network"])[1]]
    yield "- Goals for the prunable share: 95 % VGG, ResNet, DenseNet, Inception; 55 % transformers, ConvNeXt; 85 % the rest."
    yield f"  Below its family's: {', '.join(below) or 'none'}."
    little = [row["network"] for row in zoo if not row["lost"] or float(row["lost"]) < 0.3]
    yield f"- Fewer than 30 % of the parameters lost at ratio 0.5: {', '.join(little) or 'none'}."
    slow = [row["network"] for row in zoo if float(row["trace_s"] or 0) + float(row["prune_s"] or 0) > 10]
    yield f"- Trace plus prune over 10 s: {', '.join(slow) or 'none'}."


def number(text: str) -> str:
    return f"{float(text):.2f}" if text else ""


def table_row(row: dict[str, Any]) -> str:
    error = row["error"] if row["error"] in {"", "not run"} else f"{float(row['error']):.0e}"
    millions = f"{int(row['params']) / 1e6:.1f} M" if row["params"] else ""
    cells = [row["network"], row["input"], millions, row["groups"], row["frozen"]]
    cells += [number(row["prunable"]), number(row["lost"])]
    cells += [
        error,
        row["trained"],
        row["cost"],
        number(row["trace_s"]),
        number(row["prune_s"]),
        number(row["peak_gib"]),
        row["status"],
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the conformance matrix, or a part of it.")
    parser.add_argument("names", nargs="*", help="networks to run anew at ratio 0.5; default: the whole matrix, resumed")
    parser.add_argument("--report", action="store_true", help="only write the report")
    parser.add_argument("--zoo", action="store_true", help="ratio 0.5 only")
    options = parser.parse_args()
    done = {key(row) for row in read()}
    cases = [(name, 0.5, "random") for name in options.names] or [case for case in wanted() if case not in done]
    for case in [] if options.report else cases:
        if options.zoo and case[1:] != (0.5, "random"):
            continue
        row = check(*case)
        append(row)
        print(case, row["status"], f"error {row['error']}", flush=True)
    report()
    return int(any(row["status"] != "ok" for row in read()))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*torch.jit.*")
    sys.exit(main())
