"""Networks without skips, small members: layers one after another, and branches that are concatenated."""

import pytest
import zoo

NETWORKS = "alexnet vgg11_bn squeezenet1_1 googlenet"


@pytest.mark.parametrize("name", NETWORKS.split())
def test_a_family_is_pruned_to_what_was_meant(name: str) -> None:
    zoo.check(name)
