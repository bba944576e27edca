"""One page of HTML about a network pruned by `graphprune own`: what it was, what it is, and how to load it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.report import figures

DRAWN = 200  # layers of the largest network that is drawn
STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{padding:.2em .8em;border-bottom:1px solid #ccc;text-align:right}td:first-child,th:first-child{text-align:left}"
    "pre{background:#f4f4f4;padding:1em;overflow:auto}img{max-width:100%}"
)
ROWS = {  # what stands in result.json -> how it is called, and written
    "accuracy_test": ("accuracy on test (or the data's metric)", "{:.4f}"),
    "accuracy_val": ("the same on validation", "{:.4f}"),
    "macs": ("multiply-adds", "{:,}"),
    "params": ("parameters", "{:,}"),
    "milliseconds": ("milliseconds a forward pass of one input (median)", "{:.2f}"),
}


def page(facts: Mapping[str, Any], graph: ChannelGraph) -> str:
    """The page, complete in itself.

    Args:
        facts: as `studies.own.prune_own` measured them.
        graph: the trace of the unpruned network.
    """
    before, after = facts["before"], facts["after"]
    cells = [(name, form.format(before[key]), form.format(after[key]), _ratio(before[key], after[key])) for key, (name, form) in
             ROWS.items()]  # fmt: skip
    widths = [(name, str(was), str(now), f"{now / was:.0%}") for name, (was, now) in facts["widths"].items()]
    frozen = "".join(f"<li><b>{escape(layer)}</b>: {escape(reason)}</li>" for layer, reason in facts["frozen"].items())
    onnx = facts["onnx"]
    checked = (
        f"small.onnx differs from PyTorch by at most {onnx['difference']:.1g}" if "difference" in onnx else onnx["skipped"]
    )
    load = (
        "import graphprune\n"
        "model = ...  # the unpruned network, any weights\n"
        'small = graphprune.load_pruned("small.safetensors", model).eval()'
    )
    parts = [
        f"<h1>{escape(facts['model'])}, pruned</h1>",
        f"<p>Data: {escape(facts['data'])}. Method: {escape(facts['method'])}. Asked for: at most {facts['asked']:.0%} of the "
        f"multiply-adds. Measured on {escape(facts['hardware'])}.</p>",
        _table(("", "before", "after", "after / before"), cells),
        f"<h2>How to load it</h2><pre>{escape(load)}</pre><p>ONNX: {escape(checked)}.</p>",
        f"<h2>Widths</h2>{_table(('group of layers', 'before', 'after', 'kept'), widths)}",
        f"<h2>What stays, and why</h2><ul>{frozen}</ul>",
        _drawing(graph),
    ]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(facts["model"])}, pruned</title>'
    return f"{head}<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"


def _ratio(before: float, after: float) -> str:
    return f"{after / before:.3f}" if before > 0 else ""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _drawing(graph: ChannelGraph) -> str:
    """The graph as a picture inside the page; of a network too large to be read, only its size."""
    if len(graph.nodes) > DRAWN:
        return f"<h2>The graph</h2><p>{escape(repr(graph))}: too large to draw.</p>"
    from matplotlib import pyplot as plt

    figure, picture = figures.draw_graph(graph), io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    code = base64.b64encode(picture.getvalue()).decode()
    return f'<h2>The graph</h2><img alt="The network as a graph" src="data:image/png;base64,{code}">'
