"""Every family of torchvision, and a spread of timm, in small members: pruned, equal to the masked twin, trained a step.

The whole zoo is `make conformance`.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TORCHVISION = (
    "alexnet vgg11_bn resnet18 resnext50_32x4d densenet121 googlenet mobilenet_v2 mobilenet_v3_small mnasnet0_5 "
    "shufflenet_v2_x0_5 shufflenet_v2_x1_0 squeezenet1_1 efficientnet_b0 regnet_y_400mf convnext_tiny swin_t swin_v2_t"
)
TIMM = "dla34 hrnet_w18_small seresnet50 resnest14d repvgg_a0 mobileone_s0 xception41 lcnet_050 fbnetc_100 dpn68"


@pytest.fixture(scope="module")
def conformance() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "conformance.py"
    spec = importlib.util.spec_from_file_location("conformance", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [*TORCHVISION.split(), *(f"timm:{name}" for name in TIMM.split())])
def test_a_family_is_pruned_to_what_was_meant(conformance: ModuleType, name: str) -> None:
    row = conformance.check(name)
    assert row["status"] == "ok"
    assert row["error"] <= 1e-10
    assert row["trained"] == "yes"
    assert row["prunable"] >= conformance.family_goal(name)[1]
    assert row["lost"] >= 0.3
    assert abs(row["realised"] - 0.5) <= 0.03  # at least half is kept of an odd number of channels
    assert row["trace_s"] + row["prune_s"] < 10
