"""What a discriminator sees instead of the images: by hand, by finite differences, and how p moves."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from anomaly_lab.networks import augmentation
from anomaly_lab.networks.augmentation import ADA, DiffAugment

KINDS = ("diffaugment", "ada")


def images(n: int = 6, channels: int = 1, side: int = 16) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def number(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def made(kind: str, p: float = 1.0) -> augmentation.Augmentation:
    module = augmentation.make(kind)
    if isinstance(module, ADA):
        module.p.fill_(p)
    return module


def test_none_returns_its_very_argument_and_draws_nothing() -> None:
    module, image, before = made("none"), images(), torch.get_rng_state()
    assert module(image)[0] is image
    assert torch.equal(torch.get_rng_state(), before)
    assert not module.state_dict()


def test_at_p_0_ada_is_the_identity_to_the_bit() -> None:
    image = images(200)
    assert torch.equal(ADA()(image)[0], image)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_changed_by_draws_of_its_own(kind: str, channels: int) -> None:
    image = images(1, channels).expand(50, -1, -1, -1)
    (changed,) = made(kind)(image)
    assert changed.shape == image.shape
    assert changed.isfinite().all()
    assert len(changed.unique(dim=0)) == 50
    assert not (changed == image).flatten(1).all(1).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_draws_the_same_and_no_image_depends_on_another(kind: str) -> None:
    module, image, other = made(kind), images(), images()
    other[1:] = 0
    torch.manual_seed(4)
    (once,) = module(image)
    torch.manual_seed(4)
    (again,) = module(other)
    torch.testing.assert_close(once[0], again[0])
    assert not torch.equal(once[1], again[1])


@pytest.mark.parametrize("kind", KINDS)
def test_images_given_together_are_changed_alike(kind: str) -> None:
    module, image = made(kind), images()
    one, copy, darker = module(image, image.clone(), image - 0.5)
    assert torch.equal(one, copy)
    assert not torch.equal(one, darker)
    assert not torch.allclose(module(image)[0], one)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_equal_finite_differences(kind: str, channels: int) -> None:
    module = made(kind)

    def changed(image: Tensor) -> Tensor:
        torch.manual_seed(2)
        result: Tensor = module(image)[0]
        return result

    image = images(2, channels, side=8).double().requires_grad_(True)
    assert torch.autograd.gradcheck(changed, (image,), eps=1e-4, atol=1e-6, fast_mode=True)
    assert torch.autograd.grad(changed(image).square().sum(), image)[0].flatten(1).any(1).all()


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "saturated": lambda image: augmentation.saturated(image, number(0.3, 1.7).double()),
    "contrasted": lambda image: augmentation.contrasted(image, number(0.5, 1.5).double()),
    "translated": lambda image: augmentation.translated(image, number(1, -2).long(), number(0, 2).long()),
    "cut_out": lambda image: augmentation.cut_out(image, number(0, 5).long(), number(3, 6).long()),
    "warped": lambda image: augmentation.warped(image, 1.3 * augmentation.rotation(number(0.4, 2.0)) @ torch.eye(2, 3)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_of_each_operation_equal_finite_differences(name: str) -> None:
    image = images(2, 3, side=6).double().requires_grad_(True)
    assert torch.autograd.gradcheck(OPERATIONS[name], (image,), eps=1e-4, atol=1e-6, fast_mode=True)


def test_colours_by_hand() -> None:
    image = torch.tensor([0.0, 1.0, 0.2, 0.4]).view(1, 2, 1, 2)  # two channels, two pixels
    assert augmentation.saturated(image, number(2.0)).flatten().tolist() == pytest.approx([-0.1, 1.3, 0.3, 0.1])
    assert augmentation.contrasted(image, number(2.0)).flatten().tolist() == pytest.approx([-0.4, 1.6, 0.0, 0.4])


def test_translation_and_cut_out_by_hand() -> None:
    image = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    moved = augmentation.translated(image, number(1).long(), number(-1).long())
    assert moved[0, 0].tolist() == [[0, 0, 0], [2, 3, 0], [5, 6, 0]]
    hidden = augmentation.cut_out(torch.ones(2, 1, 4, 4), number(2, 0).long(), number(2, 4).long())
    assert hidden[0, 0].tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    assert hidden[1, 0].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_warps_that_meet_the_pixels_are_exact() -> None:
    image = images(1, side=8)
    mirror = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    torch.testing.assert_close(augmentation.warped(image, mirror), image.flip(3))
    quarter = torch.cat([augmentation.rotation(number(torch.pi / 2)), torch.zeros(1, 2, 1)], 2)
    assert any(torch.allclose(augmentation.warped(image, quarter), image.rot90(k, (2, 3)), atol=1e-5) for k in (1, 3))
    down = torch.tensor([[[1.0, 0, 0], [0, 1, -2 * 2 / 8]]])
    torch.testing.assert_close(augmentation.warped(image, down)[:, :, 2:], image[:, :, :-2])


def test_each_transform_strikes_with_probability_p() -> None:
    module = made("ada", p=0.3)
    assert isinstance(module, ADA)
    struck = module.maybe(lambda: torch.rand(20_000, 1, 1, 1), torch.ones(()), 0.0).mean().item()
    assert struck == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    ("right", "moves"),
    [(100, +1), (90, +1), (79, -1), (50, -1), (0, -1)],  # of 100 reals taken for real: r = 1, .8, .58, 0, -1
)
def test_p_follows_the_sign_of_its_target(right: int, moves: int) -> None:
    module = made("ada", p=0.5)
    assert isinstance(module, ADA)
    signs = torch.ones(100)
    signs[right:] = -1
    for part in signs[torch.randperm(100)].split(30):
        module.track(part)
    module.adapt(share=0.0)
    assert module.p.item() - 0.5 == pytest.approx(moves * 100 / 500_000, rel=1e-3)
    assert not module.seen.any()
    before = module.p.clone()
    module.adapt(share=0.5)  # nothing was watched since
    assert torch.equal(module.p, before)


def test_p_is_a_probability_and_crosses_a_fifth_of_a_short_training() -> None:
    module = ADA()
    steps = 0
    while module.p < 1:
        module.track(torch.ones(16))
        module.adapt(share=0.01)
        steps += 1
    assert steps == pytest.approx(20, abs=1)
    for sign, bound in ((1, 1.0), (-1, 0.0)):
        for _ in range(30):
            module.track(torch.full((16,), float(sign)))
            module.adapt(share=0.01)
        assert module.p.item() == bound


@pytest.mark.parametrize("kind", KINDS)
def test_low_precision_does_not_reach_it(kind: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        (changed,) = made(kind)(images().bfloat16())
    assert changed.dtype == torch.float32


def test_a_checkpoint_holds_what_p_needs_and_nothing_of_it_is_a_weight() -> None:
    assert not DiffAugment().state_dict()
    assert set(ADA().state_dict()) == {"p", "seen"}
    assert not list(ADA().parameters())
