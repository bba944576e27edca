"""The command line: `graphprune own | run | compare | publish | tabular | reproduce`, or `python -m graphprune ...`."""

import argparse
import ast
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from graphprune.report import notebook
from graphprune.report import publish as publishing


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; 0 = done, 1 = a notebook failed, 2 = bad input."""
    options = _parser().parse_args(arguments)
    try:
        options.call(options)
    except notebook.NotebookFailed as error:
        print(error, file=sys.stderr)
        return 1
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m graphprune", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    own = commands.add_parser("own", help="prune a network of your own to a budget, fine-tune it, and say what it cost")
    own.add_argument(
        "model", metavar="MODEL", help="module:function that returns it, timm:NAME, torchvision:NAME, hf:FOLDER, resnet20 ..."
    )
    own.add_argument("--data", required=True, help="imagefolder:PATH, digits, cifar10 ..., or module:function")
    own.add_argument("--macs", type=float, default=0.5, help="share of the multiply-adds that may stay; default: %(default)s")
    own.add_argument("--method", default="l1", help="l1, spectral, mip, sacp, ours or rl; default: %(default)s")
    own.add_argument("--out", type=Path, required=True, help="the folder for all that is written")
    own.add_argument("--weights", type=Path, help="the network's weights, safetensors or a state dict")
    own.add_argument("--round-to", type=int, default=1, help="widths are multiples of this; default: %(default)s")
    own.add_argument("--norms", default="whole", help="kept: the width of a transformer is pruned, too; default: %(default)s")
    own.add_argument("--epochs", type=float, default=3.0, help="of the fine-tuning; default: %(default)s")
    own.add_argument("--lr", type=float, default=0.01, help="of the fine-tuning; default: %(default)s")
    own.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    own.add_argument("--m", type=int, default=10, help="networks that a search trains briefly; default: %(default)s")
    own.add_argument("--candidates", type=int, default=100_000, help="that a search ranks; default: %(default)s")
    own.add_argument("--looks", type=int, default=500, help="networks that ours and rl look at; default: %(default)s")
    own.add_argument("--size", type=int, help="side of an image folder's images in pixels; default: 224")
    own.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    own.set_defaults(call=_own)

    run = commands.add_parser("run", help="execute a notebook under a profile")
    run.add_argument("notebook", type=Path, metavar="NOTEBOOK")
    run.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters",
        help="set one parameter, e.g. -p m 5, or -p seeds '[0, 1]'; one value for a list is a list of one; "
             "such a run goes to reports/runs/custom, or to the name given by -p profile NAME",
    )  # fmt: skip
    run.set_defaults(call=_run)

    compare = commands.add_parser("compare", help="how a run's tables differ from the committed ones")
    compare.set_defaults(call=_compare)

    publish = commands.add_parser("publish", help="copy a run's figures, tables and results to reports/PROFILE")
    publish.set_defaults(call=_publish)

    for command in (run, compare, publish):
        command.add_argument("--profile", default=notebook.LAPTOP, help="default: %(default)s")

    table = commands.add_parser("tabular", help="measure a table of true accuracies into reports/tabular (resumable)")
    table.add_argument("name", metavar="NAME", help="digits, digits_resnet8 or cifar10")
    table.set_defaults(call=_tabular)

    paper = commands.add_parser("reproduce", help="a table of the SACP paper; killed or out of time, it goes on from there")
    paper.add_argument("table", metavar="TABLE", help="table3, table4 or figure2")
    paper.add_argument("--net", required=True, help="vgg16, resnet18, resnet56 or resnet20a; resnet8 with --recipe tiny; "
                       "resnet20a or resnet56a with --recipe desk")  # fmt: skip
    paper.add_argument("--recipe", default="paper", help="paper, desk (table3 in hours), or tiny (a rehearsal); default: paper")
    paper.add_argument("--minutes", type=float, help="stop after these, storing everything; default: when all is done")
    paper.add_argument("--folder", type=Path, help="where everything is stored; default: reports/runs/reproduce/RECIPE-NET")
    paper.add_argument("--data", help="default: cifar10, or digits with --recipe tiny")
    paper.add_argument("--n-jobs", type=int, default=1, help="networks trained at once; default: %(default)s")
    paper.add_argument("--seeds", type=int, nargs="+", help="recipe desk: these alone")
    paper.add_argument("--removed", type=float, nargs="+", help="recipe desk: these shares of the MACs alone, e.g. 0.5 0.781")
    paper.add_argument("--arms", nargs="+", help="recipe desk: these arms alone, e.g. 'uniform L1' SACP")
    paper.add_argument("--publish", action="store_true", help="write the rows to reports/paper, too (not of recipe tiny)")
    paper.set_defaults(call=_reproduce)
    return parser


def _own(options: argparse.Namespace) -> None:
    from dataclasses import fields  # here, as the others import much

    from graphprune.report import own_page
    from graphprune.runs import safe_files
    from graphprune.studies import own

    wish = own.Wish(**{field.name: getattr(options, field.name) for field in fields(own.Wish)})
    outcome = own.prune_own(wish, options.out)
    safe_files.replace(options.out / "report.html", own_page.page(outcome.facts, outcome.graph).encode())
    before, after = outcome.facts["before"], outcome.facts["after"]
    for name, form in (("macs", ",d"), ("params", ",d"), ("accuracy_test", ".4f"), ("milliseconds", ".2f")):
        print(f"{name}: {before[name]:{form}} -> {after[name]:{form}}")
    print("\n".join(f"wrote {path}" for path in [*outcome.files, options.out / "report.html"]))


def _run(options: argparse.Namespace) -> None:
    os.environ.setdefault("GRAPHPRUNE_QUIET", "1")  # a progress bar would be stored in the executed notebook
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # this environment's kernel, whatever else is installed
    notebook.run(options.notebook, options.profile, {name: _value(text) for name, text in options.parameters})


def _value(text: str) -> Any:
    """A Python literal as it would stand in the parameters cell, or JSON; anything else is text."""
    for read in (ast.literal_eval, json.loads):
        with suppress(ValueError, SyntaxError):
            return read(text)
    return text


def _compare(options: argparse.Namespace) -> None:
    print("\n".join(publishing.compare(options.profile)))


def _publish(options: argparse.Namespace) -> None:
    changed = publishing.publish(options.profile)
    print("\n".join(f"changed {path}" for path in changed) or "the committed results are up to date")


def _tabular(options: argparse.Namespace) -> None:
    from graphprune.studies import contest  # here, as it imports much

    print(f"wrote {contest.build(options.name)}")


def _reproduce(options: argparse.Namespace) -> None:
    if options.recipe == "desk":
        return _desk(options)
    from graphprune.studies import reproduction  # here, as it imports much

    if only := [f"--{name}" for name in ("seeds", "removed", "arms") if getattr(options, name)]:
        raise ValueError(f"{only[0]}: recipe desk alone has it, not {options.recipe!r}")
    if options.publish and options.recipe != "paper":
        raise ValueError(f"--publish: reports/paper holds rows of --recipe paper and desk alone, not of {options.recipe!r}")
    limits = (options.minutes, options.folder, options.data, options.n_jobs)
    outcome = reproduction.reproduce(options.table, options.net, options.recipe, *limits)
    print(reproduction.format_outcome(outcome), end="")
    if options.publish:
        print("\n".join(f"wrote {path}" for path in reproduction.publish(outcome, options.table, options.net)))


def _desk(options: argparse.Namespace) -> None:
    from graphprune.report import figures, published  # here, as they import much
    from graphprune.studies import desk, desk_table, paper

    if options.table != "table3":
        raise ValueError(f"table={options.table!r}: recipe desk has table3 alone")
    only = {"seeds": options.seeds, "removed": options.removed, "names": options.arms}
    how = {"minutes": options.minutes, "folder": options.folder, "name": options.data or "cifar10", "n_jobs": options.n_jobs}
    outcome = desk.table3(options.net, **only, **how)
    print(outcome.says)
    if options.publish:
        files = desk_table.publish(outcome)
        beside = {network: paper.PUBLISHED.get(network.removesuffix("a"), {}) for network in desk.NETWORKS}
        figure = published.draw_accuracy_against_cut(desk.load_committed(), desk.ARMS, beside)
        figures.save(figure, picture := desk.results_folder() / "table3_desk.png")
        print("\n".join(f"wrote {path}" for path in [*files, picture]))


if __name__ == "__main__":
    sys.exit(main())
