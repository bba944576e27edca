"""Networks whose layers are added up or concatenated across blocks, small members: residual, dense, aggregated."""

import pytest
import zoo

NETWORKS = (
    "resnet18 resnext50_32x4d densenet121 regnet_y_400mf timm:dla34 timm:hrnet_w18_small timm:seresnet50 timm:resnest14d "
    "timm:xception41 timm:dpn68"
)


@pytest.mark.parametrize("name", NETWORKS.split())
def test_a_family_is_pruned_to_what_was_meant(name: str) -> None:
    zoo.check(name)
