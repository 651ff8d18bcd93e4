"""StyleGAN2's networks: published sizes, each layer against a plain computation, derivatives of derivatives."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import upfirdn
from torch import Tensor, nn

from anomaly_lab.networks import stylegan2
from anomaly_lab.networks.stylegan2 import (
    EqualisedLinear,
    ModulatedConv2d,
    ResidualDown,
    StyleDiscriminator,
    StyleGenerator,
    channels_at,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def size(network: nn.Module) -> int:
    """Weights that are trained; the mean of w and the constant noise are not."""
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(
    ("side", "channels", "mapping_layers", "of_generator", "of_discriminator"),
    [
        (64, 1, 2, 22_238_990, 23_406_849),
        (128, 1, 2, 22_944_401, 23_882_113),
        (256, 1, 2, 23_186_516, 24_000_961),
        (256, 3, 8, 24_767_458, 24_001_089),
        (512, 1, 2, 28_694_615, 28_982_721),
        (1024, 3, 2, 28_794_124, 29_012_513),
    ],
)
def test_published_sizes(
    side: int, channels: int, mapping_layers: int, of_generator: int, of_discriminator: int
) -> None:
    with torch.device("meta"):
        generator = StyleGenerator(512, channels, channels_at((side, side)), mapping_layers)
        discriminator = StyleDiscriminator(channels, channels_at((side, side)))
    assert (size(generator), size(discriminator)) == (of_generator, of_discriminator)
    assert generator.num_styles == 2 * math.log2(side) - 2


@pytest.mark.parametrize("patch_size", [(4, 4), (48, 48), (32, 64), (32,)])
def test_other_sizes_are_refused(patch_size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="StyleGAN2 needs a square whose side is a power of two"):
        channels_at(patch_size)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [32, 128])
def test_any_power_of_two_in_grey_and_colour(side: int, channels: int) -> None:
    widths = channels_at((side, side), width=2, channel_cap=8)
    assert max(widths.values()) == 8
    image = StyleGenerator(8, channels, widths)(random(2, 8))
    assert image.shape == (2, channels, side, side)
    assert StyleDiscriminator(channels, widths)(image).shape == (2,)


# --- the filter [1, 3, 3, 1] -----------------------------------------------------------------------------------------


def filtered(x: Tensor, up: int = 1, down: int = 1, gain: float = 1.0) -> np.ndarray:
    """scipy's: zeros between the pixels, the filter, every `down`-th pixel; all of the result, along both axes."""
    tap, result = gain * np.array([1, 3, 3, 1]) / 8, x.double().numpy()
    for axis in (2, 3):
        result = upfirdn(tap, result, up, down, axis=axis)
    return result


def test_blurring_is_scipys() -> None:
    x = random(2, 3, 9, 6)
    expected = filtered(x)  # as many zeros outside as the filter reaches: padding 3
    for padding in (1, 2, 3):
        cut = slice(3 - padding, -(3 - padding) or None)
        np.testing.assert_allclose(stylegan2.blurred(x, padding), expected[:, :, cut, cut], atol=1e-6)


def test_halving_is_scipys() -> None:
    x = random(2, 3, 8, 6)
    np.testing.assert_allclose(stylegan2.halved(x), filtered(x)[:, :, 2:-2, 2:-2][:, :, ::2, ::2], atol=1e-6)
    # the same pixels, if scipy itself leaves out every second one
    np.testing.assert_allclose(stylegan2.halved(x), filtered(x, down=2)[:, :, 1:-1, 1:-1], atol=1e-6)


def test_doubling_is_scipys() -> None:
    x = random(2, 3, 5, 4)
    np.testing.assert_allclose(stylegan2.doubled(x), filtered(x, up=2, gain=2)[:, :, 1:-1, 1:-1], atol=1e-6)


def test_an_image_keeps_its_mean_and_its_place_when_it_is_resampled() -> None:
    x = F.pad(random(1, 1, 8, 8), [4] * 4)
    for y, factor in ((stylegan2.halved(x), 2.0), (stylegan2.doubled(x), 0.5)):
        assert y.sum().item() * factor**2 == pytest.approx(x.sum().item(), rel=1e-5)
        places = [torch.arange(each.shape[3]) + 0.5 for each in (x, y)]
        centre, moved = (
            (each.abs() * place).sum() / each.abs().sum() for each, place in zip((x, y), places, strict=True)
        )
        assert abs(moved * factor - centre) < 1


# --- modulated convolution -------------------------------------------------------------------------------------------


def one_by_one(layer: ModulatedConv2d, x: Tensor, w: Tensor) -> Tensor:
    """Each image with weights of its own: eq. 1 and 3 of the paper, channel by channel."""
    outputs = []
    for image, style in zip(x, layer.affine(w), strict=True):
        weight = layer.weight.clone()
        if not layer.demodulate:
            weight = weight / math.sqrt(weight[0].numel())
        for o in range(weight.shape[0]):
            changed = torch.stack([weight[o, i] * style[i] for i in range(weight.shape[1])])
            root = (changed.square().sum() + 1e-8).sqrt() if layer.demodulate else 1.0
            plane = torch.zeros(())
            for i in range(weight.shape[1]):
                channel = image[None, None, i]
                if layer.up:
                    between = torch.zeros(1, 1, 2 * channel.shape[2] - 1, 2 * channel.shape[3] - 1)
                    between[:, :, ::2, ::2] = channel
                    full = F.conv2d(F.pad(between, [2] * 4), changed[i].flip(0, 1)[None, None] / root)
                    one = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
                    plane = plane + F.conv2d(F.pad(full, [1] * 4), torch.outer(one, one)[None, None])
                else:
                    plane = plane + F.conv2d(channel, changed[i][None, None] / root, padding=weight.shape[2] // 2)
            outputs.append(plane[0, 0])
    return torch.stack(outputs).unflatten(0, (len(x), -1))


@pytest.mark.parametrize(("kernel_size", "up", "demodulate"), [(3, False, True), (3, True, True), (1, False, False)])
def test_modulated_convolution_is_that_of_each_image_alone(kernel_size: int, up: bool, demodulate: bool) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv2d(3, 2, kernel_size, w_dim=5, up=up)
    assert layer.demodulate == demodulate
    x, w = random(4, 3, 6, 5), random(4, 5, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, w), one_by_one(layer, x, w), rtol=1e-4, atol=1e-5)


def test_a_style_does_not_change_the_variance() -> None:
    torch.manual_seed(0)
    layer = ModulatedConv2d(64, 64, 3, w_dim=4)
    out = layer(random(2, 64, 32, 32), torch.tensor([[0.0] * 4, [30.0] * 4]))[:, :, 1:-1, 1:-1]
    assert out.flatten(1).std(1).tolist() == pytest.approx([1, 1], rel=0.1)


# --- equalised learning rates ----------------------------------------------------------------------------------------


def test_equalised_layers_are_plain_layers_with_scaled_weights() -> None:
    """Their outputs, and their gradients times the scale."""
    torch.manual_seed(0)
    slow = EqualisedLinear(6, 4, bias=0.5, lr_multiplier=0.01)
    plain = nn.Linear(6, 4)
    with torch.no_grad():
        plain.weight.copy_(slow.weight * 0.01 / math.sqrt(6))
        plain.bias.copy_(slow.bias * 0.01)
    x = random(3, 6)
    torch.testing.assert_close(slow(x), plain(x))
    assert plain.bias.tolist() == pytest.approx([0.5] * 4)
    for layer in (slow, plain):
        layer(x).square().sum().backward()
    torch.testing.assert_close(slow.weight.grad, plain.weight.grad * 0.01 / math.sqrt(6))
    torch.testing.assert_close(slow.bias.grad, plain.bias.grad * 0.01)


def test_the_discriminator_is_a_plain_network_with_scaled_weights() -> None:
    torch.manual_seed(0)
    block, x = ResidualDown(3, 5), random(2, 3, 8, 8)
    scaled = {name: weight for name, weight in block.named_parameters()}
    first, second, skip = (scaled[f"{name}.weight"] for name in ("conv1", "conv2", "shortcut"))

    def active(h: Tensor) -> Tensor:
        return F.leaky_relu(h, 0.2) * 2**0.5

    h = active(F.conv2d(x, first / 27**0.5, padding=1))
    h = active(F.conv2d(stylegan2.blurred(h, 2), second / 27**0.5, stride=2))
    expected = (h + F.conv2d(stylegan2.halved(x), skip / 3**0.5)) / 2**0.5
    torch.testing.assert_close(block(x), expected)


def test_weights_are_standard_normal_whatever_their_use() -> None:
    torch.manual_seed(0)
    generator = StyleGenerator(64, 1, channels_at((32, 32), width=16))
    discriminator = StyleDiscriminator(1, channels_at((32, 32), width=16))
    for network in (generator.synthesis, discriminator):
        for name, weight in network.named_parameters():
            if name.endswith("weight") and weight.numel() > 1000:
                assert weight.std().item() == pytest.approx(1, abs=0.1), name
    assert generator.mapping.layers[0].weight.std().item() == pytest.approx(100, rel=0.1)  # lr_multiplier .01


# --- the networks ----------------------------------------------------------------------------------------------------


def test_deviation_within_a_group_by_hand() -> None:
    x = torch.tensor([[0.0, 5.0], [1.0, 5.0], [4.0, 5.0], [1.0, 9.0]]).view(4, 2, 1, 1)
    out = stylegan2.with_deviation(x, group=2)  # groups of images 0 and 2, 1 and 3
    assert torch.equal(out[:, :2], x)
    assert out[:, 2].flatten().tolist() == pytest.approx([(2 + 0) / 2, (0 + 2) / 2] * 2, abs=1e-3)
    alone = stylegan2.with_deviation(x, group=1)[:, 2]
    assert alone.flatten().tolist() == pytest.approx([1e-4] * 4, abs=1e-6)


@pytest.mark.parametrize(("n", "group", "size"), [(6, 4, 3), (5, 4, 1), (2, 4, 2), (8, 4, 4), (1, 4, 1)])
def test_groups_shrink_where_the_batch_is_no_multiple(n: int, group: int, size: int) -> None:
    x = random(n, 2, 4, 4)
    channel = stylegan2.with_deviation(x, group)[:, 2, 0, 0]
    assert len(channel.unique()) == (n // size if size > 1 else 1)
    expected = x[:: n // size].std(0, correction=0).mean()
    torch.testing.assert_close(channel[0], expected, rtol=1e-3, atol=2e-4)


def test_only_features_are_of_each_image_alone() -> None:
    torch.manual_seed(0)
    discriminator, image = StyleDiscriminator(1, channels_at((32, 32), width=4)), random(4, 1, 32, 32)
    torch.testing.assert_close(discriminator.features(image)[:1], discriminator.features(image[:1]))
    assert not torch.allclose(discriminator(image)[:1], discriminator(image[:1]))


def test_style_numbers() -> None:
    """A change of style l moves what comes after its layer, and the images of its resolution and above."""
    torch.manual_seed(0)
    synthesis = StyleGenerator(8, 1, channels_at((32, 32), width=4)).synthesis
    seen: dict[str, list[Tensor]] = {}
    for name, module in synthesis.named_modules():
        if hasattr(module, "affine"):
            module.register_forward_hook(lambda _m, inputs, _o, name=name: seen.setdefault(name, []).append(inputs[1]))
    synthesis(torch.arange(8.0)[None, :, None].expand(1, -1, 8))
    assert {name: int(w[0][0, 0]) for name, w in seen.items()} == {
        "convs.0.conv": 0,
        "images.0.conv": 1,
        "ups.0.conv": 1,
        "convs.1.conv": 2,
        "images.1.conv": 3,
        "ups.1.conv": 3,
        "convs.2.conv": 4,
        "images.2.conv": 5,
        "ups.2.conv": 5,
        "convs.3.conv": 6,
        "images.3.conv": 7,
    }


def test_noise_is_learned_and_constant_where_it_is_asked_for() -> None:
    torch.manual_seed(0)
    generator, z = StyleGenerator(8, 1, channels_at((32, 32), width=4)), random(3, 8)
    assert torch.equal(generator(z, noise="random"), generator(z, noise="random"))  # its strength begins at 0
    for conv in (*generator.synthesis.convs, *generator.synthesis.ups):
        nn.init.ones_(conv.strength)
    assert torch.equal(generator(z), generator(z))
    one, two = generator(z, noise="random"), generator(z, noise="random")
    assert not torch.equal(one, two)
    torch.testing.assert_close(generator(z)[:1], generator(z[:1]))
    one, two, other = (generator(z, noise=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.allclose(one, other, atol=1e-3)


def test_mapping_and_truncation() -> None:
    torch.manual_seed(0)
    generator, z = StyleGenerator(8, 1, channels_at((32, 32), width=4), mapping_layers=3), random(3, 8)
    w = generator.mapping(z)
    torch.testing.assert_close(generator.mapping(5 * z), w)  # z is normalised
    generator.mapping.follow(torch.ones(8))
    assert generator.mapping.mean.tolist() == pytest.approx([0.005] * 8)
    styles = generator.styles(w, truncation=0.5)
    torch.testing.assert_close(styles[:, 4], 0.5 * w + 0.5 * generator.mapping.mean)
    torch.testing.assert_close(generator(z, truncation=0.5), generator.synthesis(styles))


def test_mixing_crosses_over_once_at_any_layer() -> None:
    torch.manual_seed(0)
    layers = stylegan2.mixed(torch.zeros(4000, 6, 1), torch.ones(4000, 6, 1), probability=0.9)[:, :, 0]
    assert ((layers[:, 1:] - layers[:, :-1]) >= 0).all()
    assert not layers[:, 0].any()
    starts = (6 - layers.sum(1)).long().bincount(minlength=7) / 4000
    assert starts.tolist() == pytest.approx([0, *[0.9 / 5] * 5, 0.1], abs=0.03)
    assert not stylegan2.mixed(torch.zeros(9, 6, 1), torch.ones(9, 6, 1), probability=0.0).any()


def test_averages_follow_weights_and_copy_buffers() -> None:
    torch.manual_seed(0)
    network = StyleGenerator(8, 1, channels_at((32, 32), width=2))
    average = copy.deepcopy(network)
    before = average.synthesis.constant.clone()
    with torch.no_grad():
        network.synthesis.constant += 1
        network.mapping.mean += 1
    stylegan2.follow(average, network, decay=0.9)
    torch.testing.assert_close(average.synthesis.constant, before + 0.1)
    assert torch.equal(average.mapping.mean, network.mapping.mean)
    stylegan2.follow(average, network, decay=0.0)
    torch.testing.assert_close(average.synthesis.constant, network.synthesis.constant)


# --- derivatives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [False, True])
def test_second_derivatives_of_a_modulated_convolution(up: bool) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv2d(2, 2, 3, w_dim=3, up=up).double()
    x, w = random(2, 2, 3, 3).double().requires_grad_(), random(2, 3, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(layer, (x, w))
    assert torch.autograd.gradgradcheck(layer, (x, w))


def test_second_derivatives_of_a_discriminators_block() -> None:
    torch.manual_seed(0)
    block = ResidualDown(2, 3).double()

    def call(x: Tensor, weight: Tensor) -> Tensor:
        changed = {"conv2.weight": weight}
        out: Tensor = torch.func.functional_call(block, changed, (x,))
        return stylegan2.with_deviation(out, 2).tanh()

    x = random(2, 2, 4, 4).double().requires_grad_()
    assert torch.autograd.gradgradcheck(call, (x, block.conv2.weight.detach().clone().requires_grad_()), atol=1e-4)


def test_in_bfloat16_it_is_nearly_the_same() -> None:
    torch.manual_seed(0)
    generator, discriminator = (
        StyleGenerator(16, 1, channels_at((32, 32), width=8)),
        StyleDiscriminator(1, channels_at((32, 32), width=8)),
    )
    z = random(4, 16)
    image = generator(z)
    with torch.autocast("cpu", torch.bfloat16):
        low, logit = generator(z), discriminator(image)
    assert (low - image).abs().mean() < 0.03 * image.abs().mean()
    assert (logit.float() - discriminator(image)).abs().max() < 0.1
