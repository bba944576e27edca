"""What SACP's paper prints, and the sizes of an experiment."""

import pytest

from graphprune.studies import paper
from graphprune.studies.paper import sizes


@pytest.mark.parametrize("net", ["vgg16", "resnet18", "resnet56"])
def test_the_printed_cost_lies_in_the_window(net: str) -> None:
    low, high = paper.SIZES[net].macs_window
    assert low < 1 - paper.TABLE3[net]["SACP"].flops_cut / 100 < high


def test_sizes_are_the_papers_or_a_rehearsals() -> None:
    assert (sizes("resnet56", "paper").n_train, sizes("resnet56", "paper").n_candidates) == (50_000, 5_000_000)
    assert (sizes("vgg16", "paper").m, sizes("vgg16", "paper").k) == (150, 10)
    assert sizes("vgg16", "tiny") is sizes("resnet8", "tiny") is paper.TINY


def test_the_papers_recipe_is_200_epochs_and_the_light_one_5_of_the_same() -> None:
    assert (paper.TRAINING.epochs, paper.TRAINING.lr, paper.TRAINING.batch_size) == (200, 0.01, 128)
    assert (paper.LIGHT.epochs, paper.LIGHT.lr, paper.LIGHT.batch_size) == (5, 0.01, 128)


@pytest.mark.parametrize(
    ("net", "recipe", "says"),
    [
        ("resnet8", "paper", "net='resnet8': recipe paper has vgg16, resnet18, resnet56, resnet20a$"),
        ("resnet50", "tiny", "net='resnet50': recipe tiny has vgg16, resnet18, resnet56, resnet20a, resnet8$"),
        ("vgg16", "desk", r"recipe='desk': there are paper .*, desk \(table3 alone\) and tiny"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(net: str, recipe: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sizes(net, recipe)


def test_printed_shares_are_per_cent_and_the_base_has_lost_nothing() -> None:
    for table in paper.TABLE3.values():
        assert (table["Base"].flops_cut, table["Base"].params_cut) == (0, 0)
        assert all(50 < row.accuracy < 100 for row in table.values())
        assert all(0 < row.flops_cut < 100 for name, row in table.items() if name != "Base")
    assert paper.TABLE4["SACP"] == paper.TABLE3["resnet18"]["SACP"]


def test_published_methods_name_their_source_and_leave_the_base_out() -> None:
    published = paper.PUBLISHED["resnet56"]
    assert "Base" not in published
    assert published["SACP"].source == "SACP, table 3"
    assert published["CHIP"].source == "CORING, README"
