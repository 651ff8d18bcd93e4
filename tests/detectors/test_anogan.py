"""What is particular to AnoGAN."""

import copy

import pytest
import torch
from torch import Tensor
from toys import Toy, smooth

from anomaly_lab.detectors import anogan
from anomaly_lab.detectors.anogan import GROUP, AnoGAN

TOY = Toy({"width": 8, "latent_dim": 8, "gan_iterations": 400, "lr_gan": 0.002, "search_steps": 60, "lr_search": 0.1})

SIZE = (32, 32)


def tiny(**changes: object) -> AnoGAN:
    torch.manual_seed(0)
    arguments = {"patch_size": SIZE, "width": 4, "latent_dim": 8, "gan_iterations": 2, "search_steps": 8}
    return AnoGAN(**{**arguments, **changes}).eval()


def sharp(**changes: object) -> AnoGAN:
    """Untrained, but its pictures depend on z: weights large enough for searches to go somewhere."""
    detector = tiny(**changes)
    with torch.no_grad():
        for weight in detector.generator.parameters():
            weight.mul_(5 if weight.ndim > 1 else 1)
    return detector


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_score_is_the_same_to_the_bit_in_any_batch(precision: str, batch_size: int) -> None:
    """Over enough steps for rounding errors to grow."""
    images = smooth(6, seed=1)
    detector = sharp(search_steps=50, search_precision=precision)
    together = detector.score({"image": images}).anomaly_score
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    apart = [detector.score({"image": part}).anomaly_score for part in images[order].split(batch_size)]
    assert torch.equal(torch.cat(apart), together[order])


@pytest.mark.parametrize("emulated", [True, False])
def test_it_searches_in_bf16_only_where_that_is_not_slower(emulated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anogan, "emulates_bfloat16", lambda device: emulated)
    images = smooth(2, seed=1)
    fast, exact = (sharp(search_steps=5, search_precision=each).score({"image": images}) for each in ("bf16", "fp32"))
    assert torch.equal(fast.anomaly_score, exact.anomaly_score) is emulated


def test_what_is_kept_is_the_least_of_the_trace() -> None:
    images, detector = smooth(GROUP + 3, seed=1), sharp(search_steps=20, lr_search=0.5)
    start = detector.starts(images)[0]
    found = detector.search(images, start)
    assert found.trace.shape == (len(images), 21)
    assert (found.trace.diff() > 0).any()  # a step may climb, so there is something to keep
    running = found.trace.cummin(1).values
    assert (running.diff() <= 0).all()
    torch.testing.assert_close(found.loss, running[:, -1])
    features = detector.discriminator.features(images)
    torch.testing.assert_close(detector.distance(images, features, found.z), found.loss)
    torch.testing.assert_close(detector.distance(images, features, start), found.trace[:, 0])


def test_searching_gets_nearer() -> None:
    images, detector = smooth(4, seed=1), sharp(search_steps=60, lr_search=0.1)
    found = detector.search(images, detector.starts(images)[0])
    assert (found.loss < found.trace[:, 0]).all()


def test_loss_of_a_search_by_hand(pictures: Tensor) -> None:
    detector, z = tiny(feature_weight=0.25), torch.randn(len(pictures), 8)
    fake, features = detector.generator(z), detector.discriminator.features
    loss = detector.distance(pictures, features(pictures), z)
    pixel = (pictures[3] - fake[3]).abs().sum()
    feature = (features(pictures)[3] - features(fake)[3]).abs().sum()
    torch.testing.assert_close(loss[3], 0.75 * pixel + 0.25 * feature)


def test_a_search_starts_from_the_image_alone(pictures: Tensor) -> None:
    detector = tiny(restarts=3)
    start = detector.starts(pictures)
    assert start.shape == (3, len(pictures), 8)
    torch.randn(100)
    assert torch.equal(detector.starts(pictures.flip(0)), start.flip(1))
    assert len(start.flatten(0, 1).unique(dim=0)) == 3 * len(pictures)
    assert torch.equal(tiny().starts(pictures)[0], start[0])  # AnoGAN's is the first of AnoGAN-mean's


def test_anogan_mean_is_the_mean_over_its_searches(pictures: Tensor) -> None:
    detector = sharp(restarts=3)
    score, anomaly_map, reconstruction = detector.predict(pictures)[:3]
    found = [detector.search(pictures, start) for start in detector.starts(pictures)]
    torch.testing.assert_close(score, torch.stack([search.loss for search in found]).mean(0))
    residuals = [(pictures - detector.generator(search.z)).abs().mean(1, keepdim=True) for search in found]
    torch.testing.assert_close(anomaly_map, torch.stack(residuals).mean(0))
    best = min(found, key=lambda search: search.loss[2].item())
    torch.testing.assert_close(reconstruction[2], detector.generator(best.z)[2])


def test_a_search_leaves_weights_and_their_gradients_alone(pictures: Tensor) -> None:
    detector = tiny()
    before = copy.deepcopy(detector.state_dict())
    with torch.no_grad():  # as a validation loop has it
        detector.score({"image": pictures})
    assert all(torch.equal(before[key], value) for key, value in detector.state_dict().items())
    assert all(weight.grad is None for weight in detector.parameters())


def test_training_is_not_watched_by_searches(pictures: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = tiny()
    monkeypatch.setattr(detector, "search", None)  # would fail
    assert not detector.ready
    assert detector.validation_step({"image": pictures}, 0).anomaly_score.isnan().all()


def test_losses_by_hand(pictures: Tensor) -> None:
    detector = tiny()
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    real, ones = detector.discriminator(pictures), torch.ones(len(pictures))
    for seed, loss in enumerate((detector.discriminator_loss, detector.generator_loss)):
        torch.manual_seed(seed)
        found = loss(pictures)
        torch.manual_seed(seed)
        fake = detector.discriminator(detector.generator(torch.randn(len(pictures), 8)))
        both = cross_entropy(real, ones) + cross_entropy(fake, 0 * ones), cross_entropy(fake, ones)
        torch.testing.assert_close(found, both[seed])


def test_no_search_is_refused() -> None:
    with pytest.raises(ValueError, match="start at 1"):
        tiny(restarts=0)
