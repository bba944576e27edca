"""Networks for small devices, small members: depthwise convolutions, channel shuffles, re-parametrised branches."""

import pytest
import zoo

NETWORKS = (
    "mobilenet_v2 mobilenet_v3_small mnasnet0_5 shufflenet_v2_x0_5 shufflenet_v2_x1_0 efficientnet_b0 timm:lcnet_050 "
    "timm:fbnetc_100 timm:repvgg_a0 timm:mobileone_s0"
)


@pytest.mark.parametrize("name", NETWORKS.split())
def test_a_family_is_pruned_to_what_was_meant(name: str) -> None:
    zoo.check(name)
