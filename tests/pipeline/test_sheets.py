"""What a generator draws between two images, and of the styles of two, is in the run folder; the seed says which."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from anomaly_lab.callbacks.samples import grid
from anomaly_lab.detectors.alocc import ALOCC
from anomaly_lab.detectors.dcgan import DCGAN
from anomaly_lab.detectors.families.gan import GenerativeDetector
from anomaly_lab.detectors.hq_anogan import HQAnoGAN
from anomaly_lab.pipeline.sheets import ROWS, SOURCES, STEPS, write_sheets

SIDE = 32
STYLES = {"width": 2, "channel_cap": 8, "latent_dim": 8, "mapping_layers": 2, "backbone": "resnet18",
          "encoder_width": 2, "samples": 8, "batch_size": 4}  # fmt: skip


def plain() -> DCGAN:
    torch.manual_seed(0)
    return DCGAN((SIDE, SIDE), width=2, latent_dim=4)


def styled() -> HQAnoGAN:
    torch.manual_seed(0)
    return HQAnoGAN((SIDE, SIDE), **STYLES)


def tiles(path: Path, rows: int, columns: int) -> NDArray[np.int64]:
    """The images of a sheet, [rows, columns, SIDE, SIDE]."""
    with Image.open(path) as picture:
        whole = np.asarray(picture).astype(int)
    return whole.reshape(rows, SIDE, columns, SIDE).transpose(0, 2, 1, 3)


def as_tiles(images: Tensor) -> NDArray[np.int64]:
    return grid(images, 1).reshape(-1, SIDE, SIDE).numpy().astype(int)


def noise(detector: GenerativeDetector, count: int, seed: int) -> Tensor:
    return detector.noise(count, torch.Generator().manual_seed(seed))


def alike(a: NDArray[np.int64], b: NDArray[np.int64]) -> bool:
    """Equal but for the rounding of another batch."""
    return bool((np.abs(a - b) <= 1).all())


@torch.no_grad()
def test_an_interpolation_ends_in_the_two_drawn_images(tmp_path: Path) -> None:
    for detector in (plain(), styled()):
        write_sheets(tmp_path, detector, seed=3)
        found = tiles(tmp_path / "interpolation.png", ROWS, STEPS)
        drawn = as_tiles(detector.drawn(noise(detector, 2 * ROWS, 3)))
        assert alike(found[:, 0], drawn[:ROWS])
        assert alike(found[:, -1], drawn[ROWS:])
        assert not alike(found[:, 0], found[:, STEPS // 2])


@torch.no_grad()
def test_a_mixture_has_the_coarse_styles_of_its_column_and_the_fine_ones_of_its_row(tmp_path: Path) -> None:
    detector = styled()
    write_sheets(tmp_path, detector, seed=3)
    found = tiles(tmp_path / "style_mixing.png", SOURCES + 1, SOURCES + 1)
    coarse, fine = noise(detector, 2 * SOURCES, 3).chunk(2)
    assert (found[0, 0] == 0).all()
    assert alike(found[0, 1:], as_tiles(detector.drawn(coarse)))
    assert alike(found[1:, 0], as_tiles(detector.drawn(fine)))
    of_coarse, of_fine = (detector.averages.mapping(z)[:, None] for z in (coarse[2:3], fine[4:5]))
    by_hand = torch.cat([of_coarse] * 4 + [of_fine] * 4, 1)
    assert alike(found[5, 3], as_tiles(detector.synthesised(by_hand))[0])


def test_the_seed_alone_says_what_is_drawn(tmp_path: Path) -> None:
    detector, written = styled(), []
    state = torch.get_rng_state()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    for place, seed in enumerate((3, 3, 4)):
        torch.manual_seed(place)
        moved = torch.get_rng_state()
        write_sheets(tmp_path / str(place), detector, seed)
        assert torch.equal(torch.get_rng_state(), moved)
        written.append(
            [(tmp_path / str(place) / f"{name}.png").read_bytes() for name in ("interpolation", "style_mixing")]
        )
    torch.set_rng_state(state)
    assert written[0] == written[1]
    assert written[0][0] != written[2][0]
    assert written[0][1] != written[2][1]
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_who_has_no_styles_mixes_none_and_who_takes_no_noise_draws_nothing(tmp_path: Path) -> None:
    write_sheets(tmp_path / "plain", plain(), seed=0)
    assert [path.name for path in (tmp_path / "plain").iterdir()] == ["interpolation.png"]
    write_sheets(tmp_path / "none", ALOCC((SIDE, SIDE), width=2), seed=0)
    assert not (tmp_path / "none").exists()
