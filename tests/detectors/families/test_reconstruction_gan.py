"""What GANomaly and Skip-GANomaly share: whose turn it is, the beaten discriminator, scores by the batch."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import Fit, smooth

from anomaly_lab.detectors.families.reconstruction_gan import ReconstructionGAN
from anomaly_lab.detectors.ganomaly import GANomaly
from anomaly_lab.detectors.skip_ganomaly import SkipGANomaly
from anomaly_lab.networks.stages import initialise

KINDS = (GANomaly, SkipGANomaly)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[ReconstructionGAN]:
    chosen: type[ReconstructionGAN] = request.param
    return chosen


def tiny(kind: type[ReconstructionGAN], **changes: Any) -> Any:
    torch.manual_seed(0)
    return kind(**{"patch_size": (32, 32), "width": 4, "latent_dim": 6, "gan_iterations": 8, **changes})


class _Beaten:
    """Says that the discriminator's loss is next to nothing."""

    losses: list[Tensor]

    def discriminator_loss(self, real: Tensor) -> Tensor:
        loss: Tensor = super().discriminator_loss(real)
        self.losses[-1] = torch.tensor(1e-6)
        return loss


class BeatenGANomaly(_Beaten, GANomaly):
    pass


class BeatenSkipGANomaly(_Beaten, SkipGANomaly):
    pass


def test_each_network_moves_by_its_own_loss_alone(kind: type[ReconstructionGAN], pictures: Tensor) -> None:
    """Bit-identical weights of the other; the discriminator's graph outlives the reconstructor's step."""
    detector = tiny(kind).train()
    steps = dict(zip(detector.networks, detector.configure_optimizers(), strict=True))
    for name, loss in (("reconstructor", detector.reconstructor_loss), ("discriminator", detector.discriminator_loss)):
        before = {key: value.clone() for key, value in detector.named_parameters()}
        for network in detector.networks:  # as `step_optimizer` does
            detector.get_submodule(network).requires_grad_(network == name)
        loss(pictures).backward()
        steps[name].step()
        moved = {key.split(".")[0] for key, value in detector.named_parameters() if not torch.equal(before[key], value)}
        assert moved == {name}
        assert all(p.grad is None or name == "discriminator" for p in detector.discriminator.parameters())


def test_gradients_are_those_of_two_separate_passes(kind: type[ReconstructionGAN], pictures: Tensor) -> None:
    detector, plain = tiny(kind).double().train(), tiny(kind).double().train()
    image = pictures.double()
    detector.reconstructor_loss(image).backward()

    class Direct(kind):
        def adversarial(self, real: Tensor, reconstruction: Tensor, distance: Any) -> Tensor:
            from anomaly_lab.losses.ganomaly import DiscriminatorOutput

            with torch.no_grad():
                of_real = DiscriminatorOutput(*self.discriminator(real))
            value: Tensor = distance(of_real, DiscriminatorOutput(*self.discriminator(reconstruction)))
            return value

    plain.__class__ = Direct
    plain.reconstructor_loss(image).backward()
    for found, expected in zip(detector.reconstructor.parameters(), plain.reconstructor.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-9)


def test_nothing_is_left_over_after_a_step(kind: type[ReconstructionGAN], fit: Fit, pictures: Tensor) -> None:
    for accumulate in (1, 2):
        detector = tiny(kind)
        detector.accumulate = accumulate
        fit(detector, pictures, iterations=2)
        assert not detector.outputs
        assert not detector.losses
        assert detector.resets == 0


@pytest.mark.parametrize("beaten", [BeatenGANomaly, BeatenSkipGANomaly])
def test_a_beaten_discriminator_begins_anew(beaten: type[ReconstructionGAN], fit: Fit, pictures: Tensor) -> None:
    detector = fit(tiny(beaten), pictures, iterations=3)
    assert isinstance(detector, beaten)
    assert detector.resets == 3
    assert detector.flush()["train/resets"] == 2  # the mean of 1, 2, 3
    norms = [m for m in detector.discriminator.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not any(norm.bias.any() for norm in norms)  # as drawn, not as learnt
    assert all(norm.running_mean.any() for norm in norms)  # the running means stay, as in the code


@pytest.mark.parametrize("collapsed", [True, False])
def test_where_nobody_asks_the_weights_are_those_drawn_or_those_that_were(collapsed: bool) -> None:
    """A GPU draws new weights in any case; they are those that a processor draws where the discriminator is beaten."""
    detector = GANomaly(patch_size=(32, 32), width=4)
    expected = copy.deepcopy(detector.discriminator)
    if collapsed:
        torch.manual_seed(3)
        initialise(expected)
    torch.manual_seed(3)
    detector._initialise_where(torch.tensor(collapsed))
    for one, other in zip(detector.discriminator.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)


def test_resets_survive_a_checkpoint(fit: Fit, pictures: Tensor) -> None:
    state, fresh = fit(tiny(BeatenGANomaly), pictures, iterations=2).state_dict(), tiny(GANomaly)
    fresh.load_state_dict(state)
    assert fresh.resets == 2


@pytest.fixture
def ordered() -> Tensor:
    """Sixteen normal pictures, then sixteen with a bright square."""
    images = smooth(32, seed=4)
    images[16:, :, 8:18, 10:20] = 1.0
    return images


def scores(detector: Any, images: Tensor, batch_size: int = 16) -> Tensor:
    return torch.cat([detector.score({"image": part}).anomaly_score for part in images.split(batch_size)])


def test_eval_mode_knows_no_neighbours(
    kind: type[ReconstructionGAN], fit: Fit, pictures: Tensor, ordered: Tensor
) -> None:
    detector, order = fit(tiny(kind), pictures), torch.randperm(32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(scores(detector, ordered[order]), scores(detector, ordered)[order], rtol=1e-4, atol=1e-7)
    assert isinstance(detector, kind)
    assert detector.caveats == ()


def test_batch_mode_scores_depend_on_the_order(
    kind: type[ReconstructionGAN], fit: Fit, pictures: Tensor, ordered: Tensor
) -> None:
    """The switch breaks what eval mode promises, on test data as the authors' loader brings them: normals first."""
    detector = fit(tiny(kind, bn_mode="batch"), pictures)
    before = copy.deepcopy(detector.state_dict())
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    sorted_scores, shuffled_scores = scores(detector, ordered)[order], scores(detector, ordered[order])
    assert ((sorted_scores - shuffled_scores).abs() > 1e-3 * sorted_scores).float().mean() > 0.8
    assert (scores(detector, ordered, 4) - scores(detector, ordered, 8)).abs().max() > 0
    assert all(torch.equal(before[key], value) for key, value in detector.state_dict().items())
    assert not any(module.training for module in detector.modules())
    assert isinstance(detector, kind)
    assert "order of the test set" in detector.caveats[0]


@pytest.mark.parametrize("augment_d", ["diffaugment", "ada"])
def test_trains_with_an_augmented_discriminator(
    kind: type[ReconstructionGAN], fit: Fit, pictures: Tensor, augment_d: str
) -> None:
    detector = fit(tiny(kind, augment_d=augment_d), pictures, iterations=4)
    assert scores(detector, pictures).isfinite().all()
