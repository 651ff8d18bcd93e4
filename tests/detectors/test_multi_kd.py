"""What is particular to Multi-KD."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toys import Fit, Toy, ToyData, smooth, train

from anomaly_lab.detectors.multi_kd import MultiKD, colour
from anomaly_lab.networks.cloner import guided
from anomaly_lab.types import UserError

# The teacher is random. Its values say little of a dark square in a bright picture, so the directions alone decide.
TOY = Toy({"teacher": "squeezenet1_0", "teacher_weights": "random", "cloner_width": 16, "value_weight": 0.0,
           "equalise": True, "distillation_iterations": 100, "map_sigma": 1.0})  # fmt: skip


def tiny(**changes: object) -> MultiKD:
    torch.manual_seed(0)
    sizes = {"patch_size": (32, 32), "teacher": "squeezenet1_0", "teacher_weights": "random", "cloner_width": 4}
    return MultiKD(**{**sizes, "distillation_iterations": 4, "map_sigma": 1.0, **changes})


def test_the_published_sizes() -> None:
    detector = MultiKD()
    assert sum(p.numel() for p in detector.cloner.parameters()) == 343_984
    (optimizer,) = detector.configure_optimizers()
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == 343_984
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_loss_and_score_by_hand(pictures: Tensor) -> None:
    """The loss takes all four taps, the score the last three."""
    detector = tiny(value_weight=3.0).eval()
    image = pictures.add(1).div(2).repeat(1, 3, 1, 1)
    pairs = list(zip(detector.cloner(image), detector.teacher(image), strict=True))
    direction = torch.stack([1 - nn.CosineSimilarity()(s.flatten(1), t.flatten(1)) for s, t in pairs])
    value = torch.stack([(s - t).square().mean((1, 2, 3)) for s, t in pairs])
    expected = direction + 3 * value
    torch.testing.assert_close(detector.distillation_loss(pictures), expected.sum(0).mean())
    torch.testing.assert_close(detector.predict(pictures).anomaly_score, expected[1:].sum(0))


def test_a_cloner_that_is_the_teacher_finds_nothing(pictures: Tensor) -> None:
    detector = tiny(maps="plain").eval()
    detector.taps = lambda image: (detector.teacher(image), detector.teacher(image))
    score, anomaly_map, _ = detector.predict(pictures)[:3]
    torch.testing.assert_close(score, torch.zeros_like(score), atol=1e-6, rtol=0)
    assert anomaly_map is not None
    assert anomaly_map.max() < 1e-5


@pytest.mark.parametrize("maps", ["plain", "smoothgrad", "guided"])
def test_scoring_leaves_no_gradient_and_no_hook_behind(pictures: Tensor, maps: str) -> None:
    detector = tiny(maps=maps, copies=2).eval()
    before, drawn = copy.deepcopy(detector.state_dict()), torch.get_rng_state()
    image = pictures[:2].clone()
    first, again = detector.predict(image), detector.predict(image)
    assert torch.equal(first.anomaly_map, again.anomaly_map)
    assert image.grad is None
    assert not image.requires_grad
    assert not first.anomaly_score.requires_grad
    assert all(p.grad is None for p in detector.parameters())
    assert not any(module._backward_hooks for module in detector.modules())
    assert all(torch.equal(before[key], value) for key, value in detector.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize("maps", ["plain", "smoothgrad", "guided"])
def test_a_map_depends_on_no_other_image(pictures: Tensor, maps: str) -> None:
    detector = tiny(maps=maps, copies=2).eval()
    together = detector.predict(pictures[:4]).anomaly_map
    alone = torch.cat([detector.predict(image[None]).anomaly_map for image in pictures[:4]])
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-5)


def test_the_gradient_is_the_scores_slope(pictures: Tensor) -> None:
    """A small step along it raises the score by about what it promises."""
    detector = tiny(maps="plain").eval()
    image = colour(pictures[:3])
    _, slope = detector.sensitivity(image)
    length = slope.flatten(1).norm(dim=1)
    step = 1e-3 * slope / length[:, None, None, None]
    rise = detector.disagreement(image + step) - detector.disagreement(image - step)
    torch.testing.assert_close(rise / 2e-3, length, rtol=0.1, atol=1e-3)


def test_guidance_changes_the_map_but_not_the_score(pictures: Tensor) -> None:
    plain, detector = tiny(maps="plain").eval(), tiny(maps="guided").eval()
    one, two = plain.predict(pictures[:2]), detector.predict(pictures[:2])
    assert torch.equal(one.anomaly_score, two.anomaly_score)
    assert not torch.allclose(one.anomaly_map, two.anomaly_map)


def test_guidance_is_the_cloners_alone() -> None:
    detector = tiny()
    with guided(detector.cloner):
        hooked = {module for module in detector.modules() if module._backward_hooks}
    assert hooked == {module for module in detector.cloner.modules() if isinstance(module, nn.ReLU)}


def test_smoothgrad_is_the_mean_slope_of_noisy_copies(pictures: Tensor) -> None:
    detector = tiny(maps="smoothgrad", copies=3).eval()
    image = colour(pictures[:2])
    noise = 0.05 * torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    slope = sum(detector.sensitivity(image + each)[1] for each in noise) / 3
    expected = detector.anomaly_map(slope)
    found = detector.predict(pictures[:2])
    torch.testing.assert_close(found.anomaly_map, expected)
    torch.testing.assert_close(found.anomaly_score, detector.disagreement(image))


def test_a_map_is_the_size_of_the_slope_without_its_highest_hundredth() -> None:
    detector = tiny(map_sigma=1e-3)  # no blur
    slope = torch.ones(2, 3, 20, 20) * torch.tensor([1.0, -2.0, 3.0]).view(3, 1, 1)
    slope[0, :, 3, 4] = 1000.0
    torch.testing.assert_close(detector.anomaly_map(slope), torch.full((2, 1, 20, 20), 6.0))


def test_maps_are_comparable_over_images() -> None:
    """Not stretched: a slope twice as high gives a map twice as high."""
    slope = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    one, two = tiny().anomaly_map(torch.cat([slope, 2 * slope]))
    torch.testing.assert_close(two, 2 * one)


def test_a_blur_keeps_what_it_spreads() -> None:
    slope = torch.zeros(1, 3, 32, 32)
    slope[:, :, 12:20, 12:20] = 1.0
    anomaly_map = tiny(map_sigma=2.0).anomaly_map(slope)
    assert anomaly_map.sum().item() == pytest.approx(3 * 64, rel=1e-3)
    assert anomaly_map[0, 0, 10, 16] > 0


def test_equalised_taps_have_size_one_on_the_first_normals(fit: Fit, pictures: Tensor) -> None:
    same = pictures[:1].repeat(4, 1, 1, 1)
    detector = fit(tiny(equalise=True, teacher_input="caffe"), same)
    expected = torch.stack([tap.square().mean().sqrt() for tap in detector.teacher(colour(same))])
    torch.testing.assert_close(detector.cloner.scale, expected)
    assert expected.max() > 2
    for tap in detector.taps(colour(same))[1]:
        assert tap.square().mean().item() == pytest.approx(1, rel=1e-4)
    assert fit(tiny(), same).cloner.scale.tolist() == [1, 1, 1, 1]


def test_the_teacher_stays_as_it_is(fit: Fit, pictures: Tensor) -> None:
    detector = tiny(teacher="resnet18")  # it has batch norm
    before = copy.deepcopy(detector.teacher.state_dict())
    fit(detector, pictures, iterations=2)
    assert all(torch.equal(before[key], value) for key, value in detector.teacher.state_dict().items())


def test_weights_are_read_before_the_training(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    weights = {f"features.{key}": torch.zeros_like(w) for key, w in tiny().teacher.trunk.state_dict().items()}
    torch.save(weights, file)
    detector = tiny(teacher_weights=str(file))
    assert detector.teacher.trunk[0].weight.any()
    detector.load_pretrained()
    assert not detector.teacher.trunk[0].weight.any()


def test_a_random_teacher_is_a_caveat(tmp_path: Path) -> None:
    assert ["random" in caveat for caveat in tiny().caveats] == [True]
    assert tiny(teacher_weights="some.pth").caveats == ()


def test_what_the_record_says_of_the_weights(tmp_path: Path) -> None:
    assert tiny().load_pretrained() == {"name": "squeezenet1_0", "weights": "random", "sha256": None, "random": True}
    file = tmp_path / "weights.pth"
    torch.save({f"features.{key}": w for key, w in tiny().teacher.trunk.state_dict().items()}, file)
    said = tiny(teacher_weights=str(file)).load_pretrained()
    assert (said["random"], len(said["sha256"])) == (False, 16)
    with pytest.raises(UserError, match="for a trial"):
        tiny(teacher_weights="").load_pretrained()


@pytest.mark.parametrize("wrong", [{"in_channels": 2}, {"patch_size": (16, 64)}])
def test_what_no_teacher_can_see(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="grey or colour images of at least 32×32"):
        tiny(**wrong)


@pytest.mark.slow
def test_the_map_shows_where_a_square_is(tmp_path: Path) -> None:
    """A bright one in pictures of four blended corners; the teacher is random."""
    torch.manual_seed(0)
    detector = MultiKD((32, 32), **TOY.settings | {"equalise": True, "value_weight": 0.5})
    train(detector, ToyData(smooth(256, 1, coarse_side=2), TOY.batch_size), tmp_path)
    anomalous = smooth(100, 3, coarse_side=2)
    anomalous[:, :, 8:18, 10:20] = 1.0
    anomaly_map = detector.score({"image": anomalous}).anomaly_map
    assert anomaly_map is not None
    assert anomaly_map[:, :, 8:18, 10:20].mean() > 2 * anomaly_map.mean()
