"""What is particular to GBAD: three phases, who gets which loss, and that nothing is ever raised."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from toys import Toy, ToyData, smooth, train

from anomaly_lab.detectors.gbad import GBAD
from anomaly_lab.types import UserError

TOY = Toy({"backbone": "squeezenet1_0", "classifier_iterations": 150, "optimizer": "adamw", "lr": 1e-3,
           "bigan_iterations": 30, "bigan_minibatches": 1, "average_decay": 0.9, "normals": 80, "batch_size": 16,
           "lr_bigan": 1e-3})  # fmt: skip


def tiny(**settings: Any) -> GBAD:
    torch.manual_seed(0)
    lengths = {"classifier_iterations": 2, "bigan_iterations": 2, "bigan_minibatches": 2, "normals": 6, "batch_size": 4}
    return GBAD(
        **{"patch_size": (32, 32), "backbone": "squeezenet1_0", "classes": ("gun", "knife"), **lengths, **settings}
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    detector = tiny()
    train(detector, ToyData(smooth(16, seed=1)), tmp_path_factory.mktemp("gbad"))
    return detector.state_dict()


def test_phases_and_lengths() -> None:
    with torch.device("meta"):
        detector = GBAD(classes=tuple("abcde"))
    found = [(p.name, p.iterations, p.networks, p.minibatches, p.cases, p.share) for p in detector.phases()]
    bigan = ("encoder", "generator", "discriminator", "standard", "averages")
    assert found == [
        ("classifier", 6000, ("classifier",), 1, "balanced", (0.0, 1.0)),
        ("bigan", 10_000, bigan, 4, "normal", (0.0, 1.0)),  # 50 passes over 50 000 normals at batch 256
        ("svm", 1563, ("machine",), 1, "balanced", (0.0, 1.0)),  # until 50 000 normals are gathered at batch 64
    ]
    assert len(detector.standard.mean) == 1029
    assert detector.machine.capacity == (50_000, 10_000)


def test_held_out_patients_are_the_svms_alone() -> None:
    shares = {phase.name: phase.share for phase in tiny(held_out=0.25).phases()}
    assert shares == {"classifier": (0.0, 0.75), "bigan": (0.0, 0.75), "svm": (0.75, 1.0)}


def test_the_classifiers_loss_by_hand() -> None:
    detector = tiny().eval()
    image, target = smooth(3, seed=1), torch.tensor([[1, 0], [0, -1], [1, 1]])
    logits = detector.classifier.head(detector.maps(image))
    assert logits.shape == (3, 5, 2)
    known, truth = target >= 0, target.clamp_min(0).float()

    def entropy(part: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(part[known], truth[known])

    expected = entropy(logits.mean(1)) + torch.stack([entropy(logits[:, i]) for i in range(5)]).mean()
    torch.testing.assert_close(detector.classifier_loss(image, target), expected)
    joint = tiny(fuse="joint").eval()
    torch.testing.assert_close(joint.fused(logits), logits[:, 4])


def test_x_is_the_pooled_levels_at_length_one_beside_the_probabilities() -> None:
    detector, image = tiny().eval(), smooth(3, seed=1)
    x = detector.features(image)
    assert x.shape == (3, 1026)
    torch.testing.assert_close(x[:, :1024].norm(dim=1), torch.ones(3))
    torch.testing.assert_close(x[:, 1024:], detector.predict(image).probabilities)
    assert tiny(bigan_input="features").eval().features(image).shape == (3, 1024)


def constant(network: torch.nn.Module, value: float) -> None:
    """Let the last layer return the same whatever comes."""
    torch.nn.init.zeros_(network.last.weight)
    torch.nn.init.constant_(network.last.bias, value)


@pytest.mark.parametrize("reconstruction", ["mean", "sum"])
def test_the_bigans_losses_by_hand(reconstruction: str) -> None:
    """D says σ(0.7) to everything; G draws 2 everywhere: R of x = 0.5 is 1.5 a value."""
    detector = tiny(reconstruction=reconstruction, reconstruction_weight=3.0)
    constant(detector.discriminator, 0.7)
    constant(detector.generator, 2.0)
    x = torch.full((4, 1026), 0.5)
    true, false = F.softplus(torch.tensor(-0.7)), F.softplus(torch.tensor(0.7))  # -log D, -log(1 - D)
    distance = 1.5 * (1 if reconstruction == "mean" else 1026)
    torch.testing.assert_close(detector.discriminator_loss(x), true + false)
    torch.testing.assert_close(detector.generator_loss(x), true + 3 * distance)
    torch.testing.assert_close(detector.encoder_loss(x), false)


def test_each_loss_pairs_what_belongs_together() -> None:
    detector, x = tiny().eval(), torch.randn(4, 1026)
    decoded, pairs = list[Tensor](), list[tuple[Tensor, Tensor]]()
    detector.generator.register_forward_pre_hook(lambda _, given: decoded.append(given[0]))
    detector.discriminator.register_forward_pre_hook(lambda _, given: pairs.append(given))
    code = detector.encoder(x)
    detector.discriminator_loss(x)
    detector.generator_loss(x)
    detector.encoder_loss(x)
    *drawn, reconstructed = decoded
    torch.testing.assert_close(reconstructed, code)  # R = |x - G(E(x))|
    expected = [(x, code), *((detector.generator(z), z) for z in drawn), (x, code)]
    for pair, wanted in zip(pairs, expected, strict=True):
        for found, value in zip(pair, wanted, strict=True):
            torch.testing.assert_close(found, value)


def test_losses_of_the_svm_by_hand() -> None:
    """R = mean |x - G(E(x))|, FM = ‖f(x, E(x)) - f(G(E(x)), E(x))‖₂, of the averaged networks, x standardised."""
    detector = tiny().eval()
    detector.standard.follow(torch.randn(50, 1026))
    encoder, generator, discriminator = (detector.averages[n] for n in ("encoder", "generator", "discriminator"))
    x = torch.randn(3, 1026)
    s = (x - detector.standard.mean) / detector.standard.variance.sqrt()
    z = encoder(s)
    x_hat = generator(z)
    expected = torch.stack(
        [(s - x_hat).abs().mean(1), (discriminator.features(s, z) - discriminator.features(x_hat, z)).norm(dim=1)], 1
    )
    torch.testing.assert_close(detector.losses(x), expected)


def gradient_of_the_encoder(detector: GBAD, x: Tensor) -> Tensor:
    """After the steps of G and of E, as training takes them: what E was moved by."""
    detector.zero_grad()
    detector.encoder.requires_grad_(False)
    detector.generator_loss(x).backward()
    assert all(p.grad is None for p in detector.encoder.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in detector.generator.parameters())
    detector.encoder.requires_grad_(True)
    detector.zero_grad()
    detector.encoder_loss(x).backward()
    return torch.cat([p.grad.flatten() for p in detector.encoder.parameters() if p.grad is not None])


def test_reconstruction_moves_the_generator_alone() -> None:
    """The encoder's gradient is the same whatever R weighs, unless it is asked for."""
    x = torch.randn(8, 1026, generator=torch.Generator().manual_seed(3))

    def gradient(weight: float, moves: str) -> Tensor:
        detector = tiny(reconstruction_weight=weight, reconstruction_moves=moves)
        detector.discriminator.eval()  # no dropout
        return gradient_of_the_encoder(detector, x)

    assert torch.equal(gradient(0.0, "generator"), gradient(1000.0, "generator"))
    assert torch.equal(gradient(0.0, "generator"), gradient(0.0, "both"))
    assert not torch.allclose(gradient(0.0, "both"), gradient(1000.0, "both"))


def test_each_step_moves_one_network(tmp_path: Path) -> None:
    moved: list[tuple[str, set[str]]] = []

    class Watched(GBAD):
        def step_optimizer(self, network: str, loss: Any, *batches: Tensor) -> None:
            before = {key: p.detach().clone() for key, p in self.named_parameters()}
            super().step_optimizer(network, loss, *batches)
            changed = {key.partition(".")[0] for key, p in self.named_parameters() if not torch.equal(before[key], p)}
            moved.append((network, changed))

    torch.manual_seed(0)
    detector = Watched(
        (32, 32), backbone="squeezenet1_0", classifier_iterations=1, bigan_iterations=1, normals=2, batch_size=4
    )
    train(detector, ToyData(smooth(8, seed=1)), tmp_path)
    assert moved == [(n, {n}) for n in ("classifier", "discriminator", "generator", "encoder")]


def test_the_bigan_sees_normals_in_one_batch_and_the_svm_both(tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    class Watched(GBAD):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            anomalous = int((batch["target"] == 1).any(-1).sum())
            seen.setdefault(self.phase.name, []).append((batch["image"].shape[:2].numel(), anomalous))
            super().training_step(batch, batch_idx)

    torch.manual_seed(0)
    detector = Watched(
        (32, 32), backbone="squeezenet1_0", classifier_iterations=1, bigan_iterations=2, normals=5, batch_size=4
    )
    train(detector, ToyData(smooth(8, seed=1)), tmp_path)
    assert seen == {"classifier": [(4, 2)], "bigan": [(16, 0)] * 2, "svm": [(4, 2)] * 3}
    assert detector.standard.count == 32
    assert detector.machine.counts.tolist() == [5, 6]
    assert detector.machine.fitted


@pytest.mark.parametrize("soft", [False, True])
def test_damping_never_raises_a_probability(soft: bool, fitted: dict[str, Tensor]) -> None:
    detector = tiny(soft=soft)
    detector.load_state_dict(fitted)
    probabilities, decision = torch.rand(50, 2), torch.linspace(-5, 5, 50)
    damped = detector.damped(probabilities, decision)
    assert (damped <= probabilities).all()
    assert (damped >= 0).all()
    assert (damped < probabilities)[decision < 0].all()
    if not soft:
        torch.testing.assert_close(damped[decision <= 0], 0.1 * probabilities[decision <= 0])
        assert torch.equal(damped[decision > 0], probabilities[decision > 0])
    image = smooth(6, seed=2)
    plain = detector.eval().probabilities(detector.fused(detector.classifier.head(detector.maps(image))))
    assert (detector.predict(image).probabilities <= plain).all()


def test_before_the_svm_is_fitted_nothing_is_damped() -> None:
    detector = tiny()
    probabilities = torch.rand(3, 2)
    assert torch.equal(detector.damped(probabilities, torch.tensor([-1.0, 0.0, 1.0])), probabilities)
    assert not detector.ready


def test_every_score(fitted: dict[str, Tensor]) -> None:
    image, found = smooth(6, seed=2), {}
    for score in ("classes", "svm", "reconstruction", "features"):
        detector = tiny(score=score).eval()
        detector.load_state_dict(fitted)
        found[score] = detector.predict(image).anomaly_score
        assert detector.scores_probabilities == (score == "classes")
    losses = detector.losses(detector.features(image))
    torch.testing.assert_close(found["reconstruction"], losses[:, 0])
    torch.testing.assert_close(found["features"], losses[:, 1])
    torch.testing.assert_close(found["svm"], detector.machine(losses).float())
    torch.testing.assert_close(found["classes"], detector.predict(image).probabilities.amax(1))


def test_the_svm_is_fitted_to_what_scoring_computes(fitted: dict[str, Tensor]) -> None:
    """No dropout, no statistics of a batch, whatever mode training leaves the networks in."""
    detector, image = tiny(), smooth(4, seed=2)
    detector.load_state_dict(fitted)
    detector.eval()
    expected = detector.losses(detector.features(image))
    detector.averages.train()
    detector.machine = type(detector.machine)(6, 6, 2)
    detector.all_gather = lambda x: x  # type: ignore[method-assign]
    detector.svm_step(image[None], torch.tensor([[[0, 0]] * 4]))
    assert torch.equal(detector.machine.rows[:4], expected)


def test_images_that_are_neither_are_not_gathered() -> None:
    detector = tiny().eval()
    detector.all_gather = lambda x: x  # type: ignore[method-assign]
    targets = torch.tensor([[[1, -1], [0, -1], [0, 0], [-1, -1], [0, 1]]])
    detector.svm_step(smooth(5, seed=1)[None], targets)
    assert detector.machine.counts.tolist() == [1, 2]


def test_without_an_anomalous_image_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = torch.zeros(1, 4, 2, dtype=torch.int8)
    monkeypatch.setattr("toys.targets", lambda _, anomalous: none.expand(len(anomalous), -1, -1))
    with pytest.raises(UserError, match=r"given 6 normals and 0 anomalous images: raise detector\.normals"):
        train(tiny(classifier_iterations=1, bigan_iterations=1), ToyData(smooth(8, seed=1)), tmp_path)


def test_a_run_goes_on_from_any_phase_and_ends_alike(tmp_path: Path) -> None:
    """Bit for bit: weights, moving averages, statistics, gathered rows and the fitted machine."""

    class Flush(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            pl_module.flush()

    images = smooth(16, seed=1)
    straight = tiny()
    train(straight, ToyData(images, epoch_length=1), tmp_path, callbacks=[Flush()])
    checkpoints = sorted((tmp_path / "checkpoints").glob("*.ckpt"))
    assert len(checkpoints) == 2 + 2 + 3
    for checkpoint in checkpoints[:-1]:
        resumed = tiny()
        train(resumed, ToyData(images, epoch_length=1), tmp_path, checkpoint, [Flush()])
        state = resumed.state_dict()
        assert not [key for key, value in straight.state_dict().items() if not torch.equal(value, state[key])]
