"""The paper's tables at the paper's size, in pieces: each call does what fits into its minutes and stores it.

The accuracy of a row is that of the network chosen on the validation split, on the test split; the paper's choice, the best of
the k on the test split, stands in a column of its own. A row that is not done is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from graphprune import arms, artifacts, data, paper, runtime
from graphprune.checkpoint import Clock, Paused
from graphprune.funnel import AllFailedError, ordered
from graphprune.paper import Printed, Sizes
from graphprune.pieces import Pieces
from graphprune.regression import predictor
from graphprune.scorer import Scorer
from graphprune.space import kept_masks
from graphprune.trial import alone_in

Maker = Callable[[Pieces], dict[str, Any]]
Window = tuple[float, float]
Frames = tuple[pd.DataFrame, pd.DataFrame]  # the lightly fine-tuned and the retrained

ANY: Window = (0.0, 1.0)
LIMIT = 48 << 20  # bytes in all that a folder should have, to be carried
COLUMNS = ["method", "accuracy, %", "drop, points", "best of k on test, %", "FLOPs, M", "FLOPs cut, %", "params, M"]
COLUMNS += ["params cut, %", "printed accuracy, %", "printed FLOPs cut, %", "printed params cut, %"]
COLUMNS += ["networks", "failed", "epochs", "hours", "rounded", "hardware"]
NOTE = """accuracy: on the test split, of the network chosen on the validation split. best of k on test: the paper's choice.
FLOPs: in the paper's unit. SACP and random: R(r) >= tau alone; at equal MACs: in a window about the printed FLOPs, too [ours].
networks, epochs, hours: trained for the row, some for other rows as well. rounded: how often a training went on from a
state that had been rounded to be carried. printed: by the paper. Empty: not done, or not printed."""


@dataclass(frozen=True)
class Line:
    """A row of a table: how it is made (None: the paper's only), and what the paper prints for it."""

    method: str
    make: Maker | None
    printed: Printed | None = None


# --- how rows are made --------------------------------------------------------------------------------------------------


def base(pieces: Pieces) -> dict[str, Any]:
    """The base network."""
    return chosen(pieces, pd.DataFrame([pieces.base_row | {"rank": 1}]))


def sacp(pieces: Pieces, window: Window) -> dict[str, Any]:
    """SACP (Algorithm 1) on all candidates with R(r) >= tau, or on those in a window of MACs, too."""
    light, full = refined(pieces, _named("SACP", window), alike(pieces, window)[: pieces.sizes.m])
    return chosen(pieces, full, light)


def chance(pieces: Pieces, window: Window) -> dict[str, Any]:
    """The first m of the draws instead of the m most alike."""
    light, full = refined(pieces, _named("random", window), drawn(pieces, window))
    return chosen(pieces, full, light)


def one_network(pieces: Pieces, name: str, priority: Callable[..., dict[str, Tensor]]) -> dict[str, Any]:
    """Channels removed in one order until the MACs fit, all of the training budget for that network."""
    setting = pieces.funnel(pieces.sizes.macs_window)
    kept = arms.cut_to_window(setting, priority(setting.scores))
    return chosen(pieces, pieces.networks(f"{name}: restart", [kept] * setting.k, arms.longer(setting), restarts=True))


def bees(pieces: Pieces) -> dict[str, Any]:
    """The bee colony of ABCPruner."""
    setting, seen = pieces.funnel(pieces.sizes.macs_window), 0

    def fitness(indices: Tensor) -> Tensor:
        nonlocal seen
        rows = pieces.networks(f"bee colony: light, {seen} before,", masks(pieces, indices), setting.light)
        seen += len(indices)
        return torch.tensor(rows["accuracy_val"].astype(float).fillna(0.0).tolist(), dtype=torch.float64)

    visited, _ = arms.forage_in(setting, fitness)
    light, full = refined(pieces, "bee colony", visited)
    return chosen(pieces, full, light)


def regressed(pieces: Pieces) -> dict[str, Any]:
    """SACP-1: the encoder learns accuracies instead, those of the m random networks after light fine-tuning [ours]."""
    labelled = drawn(pieces, ANY)
    known = pieces.networks("random: light", masks(pieces, labelled), pieces.sizes.light)
    fine = torch.tensor((known["failed"] == "").tolist())
    accuracies = torch.tensor(known["accuracy_val"].astype(float).tolist(), dtype=torch.float64)[fine]

    def predicted(indices: Tensor) -> Tensor:
        scorer, direction = predictor(pieces.graph, pieces.scores, labelled[fine], accuracies)
        return scorer.embed(indices) @ direction

    light, full = refined(pieces, "SACP-1", pieces.candidates("SACP-1", pieces.funnel(), predicted))
    return chosen(pieces, full, light, known)


def lightly(pieces: Pieces) -> dict[str, Any]:
    """SACP-2: the best of the m lightly fine-tuned, not retrained."""
    kept = masks(pieces, alike(pieces, ANY)[: pieces.sizes.m])
    return chosen(pieces, pieces.networks("SACP: light", kept, pieces.sizes.light))


def among(pieces: Pieces, m: int, k: int) -> dict[str, Any]:
    """SACP with m fine-tuned and the k best of them retrained: a point of figure 2."""
    light, full = refined(pieces, f"SACP of {m}", alike(pieces, ANY)[:m], k)
    return chosen(pieces, full, light)


def alike(pieces: Pieces, window: Window) -> Tensor:
    """The candidates most like the whole network, in this order; as many as figure 2 needs."""
    setting = pieces.funnel(window, most=max(pieces.sizes.m, *pieces.sizes.many))
    return pieces.candidates(
        _named("SACP", window), setting, lambda indices: Scorer(pieces.encoder, pieces.graph, pieces.scores)(indices)
    )


def drawn(pieces: Pieces, window: Window) -> Tensor:
    """m candidates by chance."""
    return pieces.candidates(_named("random", window), pieces.funnel(window), arms.by_chance())


def refined(pieces: Pieces, name: str, indices: Tensor, k: int | None = None) -> Frames:
    """Light fine-tuning of all, retraining of the k best on validation (lines 14 and 15)."""
    kept = masks(pieces, indices)
    light = pieces.networks(f"{name}: light", kept, pieces.sizes.light)
    best = ordered(light, "accuracy").index[: k or pieces.sizes.k]
    return light, pieces.networks(f"{name}: retraining", [kept[i] for i in best], pieces.sizes.full)


def masks(pieces: Pieces, indices: Tensor) -> list[Tensor]:
    """(n, groups) rate indices -> (num_atoms,) bool each, the channels of the largest L1 norms."""
    return list(kept_masks(pieces.graph, indices, pieces.scores))


def chosen(pieces: Pieces, networks: pd.DataFrame, *before: pd.DataFrame) -> dict[str, Any]:
    """A row: the best on validation of `networks` (line 16), beside the base; and what it took with those `before`."""
    best, whole = ordered(networks, "accuracy").iloc[0], pieces.base_row
    spent = pd.concat([networks, *before])
    accuracy, flops, params = float(best["accuracy_test"]), int(best["flops"]), int(best["params"])
    return {
        "accuracy, %": 100 * accuracy,
        "drop, points": 100 * (whole["accuracy_test"] - accuracy),
        "best of k on test, %": 100 * float(networks["accuracy_test"].astype(float).max()),
        "FLOPs, M": flops / 1e6,
        "FLOPs cut, %": 100 * (1 - flops / whole["flops"]),
        "params, M": params / 1e6,
        "params cut, %": 100 * (1 - params / whole["params"]),
        "networks": len(spent),
        "failed": int((spent["failed"] != "").sum()),
        "epochs": float(spent["epochs"].sum()),
        "hours": float(spent["seconds"].sum()) / 3600,
        "rounded": int(spent["rounded"].sum()),
        "hardware": " and ".join(sorted(set(spent["hardware"]))),
    }


def _named(method: str, window: Window) -> str:
    return method if window == ANY else f"{method} at equal MACs"


# --- tables -------------------------------------------------------------------------------------------------------------


def table3(net: str, sizes: Sizes) -> list[Line]:
    """SACP as printed, and beside it what a fair comparison needs: other ways to choose a network of the same MACs."""
    printed, window = paper.TABLE3.get(net, {}), sizes.macs_window
    rivals = [Line(name, None, row) for name, row in printed.items() if name not in ("Base", "SACP")]
    return [
        Line("Base", base, printed.get("Base")),
        *rivals,
        Line("SACP", partial(sacp, window=ANY), printed.get("SACP")),
        Line("SACP at equal MACs", partial(sacp, window=window), printed.get("SACP")),
        Line("random at equal MACs", partial(chance, window=window)),
        Line("uniform L1 at equal MACs", partial(one_network, name="uniform L1", priority=arms.by_place)),
        Line("global L1 at equal MACs", partial(one_network, name="global L1", priority=arms.by_size)),
        Line("bee colony at equal MACs", bees),
    ]


def table4(net: str, sizes: Sizes) -> list[Line]:
    """The ablations, and chance; all with R(r) >= tau alone."""
    printed = paper.TABLE4 if net == "resnet18" else {}
    makers: dict[str, Maker] = {"SACP-1": regressed, "SACP-2": lightly, "SACP": partial(sacp, window=ANY)}
    lines = [Line(name, make, printed.get(name)) for name, make in makers.items()]
    return [*lines, Line("random", partial(chance, window=ANY))]


def figure2(net: str, sizes: Sizes) -> list[Line]:
    """Accuracy against k and against m; the paper prints the figure only, without numbers."""
    points = [(sizes.m, k) for k in range(1, sizes.k + 1)] + [(m, sizes.k) for m in sizes.many if m != sizes.m]
    return [Line(f"m = {m}, k = {k}", partial(among, m=m, k=k)) for m, k in points]


TABLES = {"table3": table3, "table4": table4, "figure2": figure2}


@dataclass(frozen=True)
class Outcome:
    """How far a table is: its rows as text (empty where not done), and a line that says so."""

    table: pd.DataFrame
    done: bool
    says: str


def reproduce(
    table: str, net: str, recipe: str, minutes: float, folder: Path | None = None, name: str | None = None
) -> Outcome:
    """Do what fits into the minutes of a table, and go on where the last call on this folder stopped.

    Args:
        table: "table3", "table4" or "figure2".
        net, recipe: as `paper.sizes` takes them.
        minutes: when to stop; exceeded by what cannot be stopped, such as measuring a network. Some work is always done.
        folder: where everything is stored, to be carried to another machine; reports/runs/reproduce/RECIPE-NET.
        name: the data set's; cifar10 (recipe paper) or digits (tiny).

    Raises:
        ValueError: an argument is unknown or out of its range, or the folder is another experiment's or in use.
    """
    sizes = paper.sizes(net, recipe)
    if table not in TABLES:
        raise ValueError(f"table={table!r}: there are {', '.join(TABLES)}")
    if not minutes > 0:
        raise ValueError(f"minutes={minutes}: must be above 0, e.g. 9")
    clock = Clock(60 * minutes)
    folder = folder or runtime.run_dir("reproduce") / f"{recipe}-{net}"
    loaded = data.load(name or ("cifar10" if recipe == "paper" else "digits"))
    try:
        lock = alone_in(folder)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    with lock:
        pieces = Pieces(net, loaded.for_public_weights() if sizes.base is None else loaded, sizes, folder, clock)
        return _so_far(pieces, f"{table} {net}", TABLES[table](net, sizes))


def _so_far(pieces: Pieces, title: str, lines: list[Line]) -> Outcome:
    rows, stopped = [], ""
    for line in lines:
        row: dict[str, Any] = {"method": line.method}
        if line.printed is not None:
            printed = (line.printed.accuracy, line.printed.flops_cut, line.printed.params_cut)
            row |= dict(zip(COLUMNS[8:11], printed, strict=True))
        try:
            row |= line.make(pieces) if line.make is not None else {}
        except Paused as pause:  # later rows may be done: what would take work pauses at once
            stopped = stopped or f"{line.method!r} ({pause})"
        except AllFailedError:
            row |= {"failed": "all"}
        rows.append({column: _text(row.get(column)) for column in COLUMNS})
    ours = [row for row, line in zip(rows, lines, strict=True) if line.make is not None]
    done = sum(row["networks"] != "" or row["failed"] == "all" for row in ours)
    networks = pieces.records.count("network ")
    says = f"{title}: {done} of {len(ours)} rows, {networks} pruned networks trained, {_carried(pieces.files())}; "
    says += f"stopped in {stopped}, the same command goes on from there" if stopped else "complete"
    return Outcome(pd.DataFrame(rows, columns=COLUMNS), not stopped, says)


def _carried(files: list[Path]) -> str:
    sizes = [file.stat().st_size for file in files]
    over = "" if sum(sizes) <= LIMIT else ", MORE THAN 48 MiB: finish the table that has a network in training first"
    return f"{len(files)} files of {sum(sizes) / 2**20:.1f} MiB in all, the largest {max(sizes) / 2**20:.1f} MiB{over}"


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def markdown(outcome: Outcome) -> str:
    """The table as Markdown, under the line that says how far it is."""
    lines = [outcome.table.columns.tolist(), ["---"] * len(outcome.table.columns), *outcome.table.to_numpy().tolist()]
    return f"{outcome.says}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{NOTE}\n"


def publish(outcome: Outcome, table: str, net: str) -> list[Path]:
    """Write the rows to reports/paper/TABLE-NET.csv and .md, whatever is done of them."""
    folder = runtime.root() / "reports" / "paper"
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"csv": outcome.table.to_csv(index=False, lineterminator="\n"), "md": markdown(outcome)}
    for suffix, content in contents.items():
        artifacts.replace(folder / f"{table}-{net}.{suffix}", content.encode())
    return [folder / f"{table}-{net}.{suffix}" for suffix in contents]
