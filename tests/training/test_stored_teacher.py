"""A teacher whose outputs are stored: the same bits, its network asked once for a batch, and the whole cost counted."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from graphprune.training.stored_teacher import StoredTeacher


class Asked(nn.Module):
    """Twice the input in bfloat16, and how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def forward(self, x: Tensor) -> Tensor:
        self.times += 1
        return (2 * x).bfloat16()


def ignore(seconds: float, core_seconds: float) -> None:
    pass


def test_what_is_read_is_what_was_computed_bit_for_bit_and_in_its_precision(tmp_path: Path) -> None:
    network, x = Asked(), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    answers = [StoredTeacher(network, tmp_path, "a", ignore)(x) for _ in range(3)]
    assert network.times == 1
    assert all(answer.dtype == torch.bfloat16 and torch.equal(answer, (2 * x).bfloat16()) for answer in answers)


def test_another_batch_shape_type_or_circumstance_is_asked_anew(tmp_path: Path) -> None:
    network, x = Asked(), torch.zeros(2, 6)
    teacher = StoredTeacher(network, tmp_path, "a", ignore)
    for other in (x, x + 1, x.view(3, 4), x.double(), x.int(), x):
        assert torch.equal(teacher(other), (2 * other).bfloat16())
    assert network.times == 5
    StoredTeacher(network, tmp_path, "b", ignore)(x)
    assert network.times == 6


def test_a_batch_that_is_laid_out_otherwise_is_the_same_batch(tmp_path: Path) -> None:
    network, x = Asked(), torch.randn(2, 3, 4, 4)
    teacher = StoredTeacher(network, tmp_path, "a", ignore)
    assert torch.equal(teacher(x), teacher(x.to(memory_format=torch.channels_last)))
    assert network.times == 1


def test_what_the_outputs_took_is_told_to_each_that_reads_them(tmp_path: Path) -> None:
    told: list[tuple[float, float]] = []
    x = torch.zeros(1, 1)
    for _ in range(3):
        StoredTeacher(Asked(), tmp_path, "a", lambda *seconds: told.append(seconds))(x)
    first, second = told
    assert first == second
    assert min(first) >= 0
    assert first[0] > 0


@pytest.mark.parametrize("harm", [lambda content: content[:-1] + b"\xff", lambda content: content[:20], lambda content: b""])
def test_a_file_that_is_not_as_it_was_stored_is_made_again(harm, tmp_path: Path) -> None:
    network, x = Asked(), torch.ones(4, 2)
    teacher = StoredTeacher(network, tmp_path, "a", ignore)
    teacher(x)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(harm(file.read_bytes()))
    with pytest.warns(UserWarning, match="corrupted"):
        assert torch.equal(teacher(x), (2 * x).bfloat16())
    assert torch.equal(teacher(x), (2 * x).bfloat16())  # and stands again
    assert network.times == 2


def test_outputs_with_a_name_are_stored_as_the_logits_in_them(tmp_path: Path) -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": x + 1}

    teacher = StoredTeacher(Named(), tmp_path, "a", ignore)
    assert torch.equal(teacher(torch.zeros(2)), torch.ones(2))
    assert torch.equal(teacher(torch.zeros(2)), torch.ones(2))


def test_it_is_in_eval_mode_as_its_network_is_and_moves_as_one(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    StoredTeacher(network, tmp_path, "a", ignore).eval().to(memory_format=torch.channels_last)
    assert not network[1].training
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match="taken"):
        StoredTeacher(Asked(), tmp_path / "taken", "a", ignore)
