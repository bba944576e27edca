"""Networks with layer normalisation, small members: windowed attention, and convolutions made after its image."""

import pytest
import zoo

NETWORKS = "swin_t swin_v2_t convnext_tiny"


@pytest.mark.parametrize("name", NETWORKS.split())
def test_a_family_is_pruned_to_what_was_meant(name: str) -> None:
    zoo.check(name)
