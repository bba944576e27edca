"""What the tests of networks by family have in common; the whole zoo is `make conformance`."""

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType


@cache
def conformance() -> ModuleType:
    """`benchmarks/conformance.py`, which is a script and in no package."""
    path = Path(__file__).parent.parent / "benchmarks" / "conformance.py"
    spec = importlib.util.spec_from_file_location("conformance", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(name: str) -> None:
    """A network, half of its channels pruned: equal to the masked twin, as small as was meant, trained a step."""
    row = conformance().check(name)
    assert row["status"] == "ok"
    assert row["error"] <= 1e-10
    assert row["trained"] == "yes"
    assert row["prunable"] >= conformance().family_goal(name)[1]
    assert row["lost"] >= 0.3
    assert abs(row["realised"] - 0.5) <= 0.03  # at least half is kept of an odd number of channels
    assert row["trace_s"] + row["prune_s"] < 10
