"""Taps against torchvision's own layers, normalisations by hand, files that are not there or something else."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import squeezenet1_0

from anomaly_lab.networks.efficientnet_lite import EfficientNetLite0
from anomaly_lab.networks.pretrained import Normalised
from anomaly_lab.networks.teachers import PackagedTeacher, Teacher
from anomaly_lab.types import UserError


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "expected"), [("vgg16", 14_714_688), ("squeezenet1_0", 735_424), ("resnet18", 11_176_512)]
)
def test_as_many_weights_as_published(name: str, expected: int) -> None:
    assert sum(p.numel() for p in Teacher(name).parameters()) == expected  # without the classifier


def test_taps_are_torchvisions_layers(tmp_path: Path, image: Tensor) -> None:
    network = squeezenet1_0(weights=None).eval()
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    teacher = Teacher("squeezenet1_0", "unit")
    assert teacher.load(str(file)) == hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    for depth, tap in zip((3, 7, 12, 13), teacher(image), strict=True):
        assert torch.equal(tap, network.features[:depth](image))


def test_taps_of_the_packaged_teacher_end_in_the_classifiers_features(tmp_path: Path, image: Tensor) -> None:
    network = EfficientNetLite0().eval()
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    teacher = PackagedTeacher().train()  # which has batch norm, and stays in eval mode
    assert teacher.load(str(file)) == hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    seen: list[Tensor] = []
    network._dropout.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(Normalised("tensorflow")(image))
    torch.testing.assert_close(teacher(image)[-1].mean((2, 3)), seen[0])
    assert not any(p.requires_grad for p in teacher.parameters())


def test_its_trunk_sees_what_its_weights_expect() -> None:
    teacher, seen = Teacher("squeezenet1_0", "caffe"), []
    teacher.trunk[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    image = torch.rand(1, 3, 32, 32)
    teacher(image)
    torch.testing.assert_close(seen[0], Normalised("caffe")(image))


def test_random_activations_neither_fade_nor_grow(image: Tensor) -> None:
    torch.manual_seed(0)
    for tap in Teacher("vgg16")(image):
        assert 0.1 < tap.square().mean().sqrt() < 10


def test_it_never_learns(image: Tensor) -> None:
    teacher = Teacher("resnet18").train()  # the one that has batch norm
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    teacher(image)
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert not any(p.requires_grad for p in teacher.parameters())


def test_without_a_file_it_says_where_to_get_one() -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file; get .*https://\S+squeezenet1_0\S+pth.*random"):
        Teacher("squeezenet1_0").load("nowhere.pth")
    with pytest.raises(UserError, match=r"\(empty\): no such file"):
        Teacher("squeezenet1_0").load("")


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04")
    for name in ("other.pth", "torn.pth"):
        with pytest.raises(UserError, match=f"{name}: not the weights of torchvision's squeezenet1_0"):
            Teacher("squeezenet1_0").load(str(tmp_path / name))
