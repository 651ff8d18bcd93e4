"""The pool's files: what is read back, while they fill and afterwards."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_lab.detectors.families import fake_pool
from anomaly_lab.detectors.families.fake_pool import Pool
from anomaly_lab.types import UserError


def fakes(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_what_is_written_is_read(tmp_path: Path) -> None:
    images = fakes(6)
    pool = fake_pool.filled(tmp_path / "pool", images, iteration=7)
    assert (pool.images.dtype, pool.images.shape) == (np.uint8, (6, 3, 4, 5))
    assert pool.iterations.tolist() == [7] * 6
    back = torch.from_numpy(pool.images.copy()) / 127.5 - 1
    torch.testing.assert_close(back, images, atol=1 / 255 + 1e-6, rtol=0)


def test_it_is_readable_while_it_grows(tmp_path: Path) -> None:
    fake_pool.create(tmp_path, 8, (3, 4, 5))
    with pytest.raises(UserError, match="is empty"):
        Pool(tmp_path)
    for first, iteration in ((0, 1), (4, 6)):
        fake_pool.write(tmp_path, range(first, first + 4), fakes(4), iteration)
        assert len(Pool(tmp_path)) == first + 4
    assert Pool(tmp_path).iterations.tolist() == [1] * 4 + [6] * 4


@settings(deadline=None, max_examples=20)
@given(ranks=st.integers(1, 5), count=st.integers(1, 9))
def test_ranks_fill_it_without_a_gap_or_a_double(tmp_path_factory, ranks: int, count: int) -> None:
    folder, images = tmp_path_factory.mktemp("pool"), fakes(count)
    fake_pool.create(folder, count, images.shape[1:])
    for rank in reversed(range(ranks)):  # in any order
        fake_pool.write(folder, range(count)[rank::ranks], images[rank::ranks], 3)
    alone = fake_pool.filled(folder / "alone", images, 3)
    assert np.array_equal(Pool(folder).images, alone.images)
    assert np.array_equal(Pool(folder).iterations, alone.iterations)


def test_what_came_after_a_checkpoint_is_forgotten(tmp_path: Path) -> None:
    fake_pool.create(tmp_path, 6, (3, 4, 5))
    for place, iteration in enumerate((1, 3, 5)):
        fake_pool.write(tmp_path, [place], fakes(1, place), iteration)
    before = (tmp_path / "images.npy").read_bytes()
    assert fake_pool.keep_until(tmp_path, 4) == 2
    assert Pool(tmp_path).iterations.tolist() == [1, 3]
    fake_pool.write(tmp_path, [2], fakes(1, 2), 5)
    assert (tmp_path / "images.npy").read_bytes() == before
    assert fake_pool.keep_until(tmp_path / "nowhere", 4) == 0


def test_draws_are_the_global_generators_and_of_all_images(tmp_path: Path) -> None:
    pool = fake_pool.filled(tmp_path, torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 2, 2))
    torch.manual_seed(1)
    one, two = pool.draw(64), pool.draw(64)
    torch.manual_seed(1)
    assert torch.equal(pool.draw(64), one)
    assert not torch.equal(one, two)
    assert one.shape == (64, 1, 2, 2)
    assert one.unique().tolist() == pytest.approx([-1, -0.5, 0, 0.5, 1], abs=0.01)


def test_none_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no fake pool") as said:
        Pool(tmp_path)
    assert "\n" not in str(said.value)


def test_a_place_outside_is_refused(tmp_path: Path) -> None:
    fake_pool.create(tmp_path, 2, (3, 4, 5))
    with pytest.raises(ValueError, match="holds"):
        fake_pool.write(tmp_path, [2], fakes(1), 1)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fake_pool.create(tmp_path, 2, (3, 4, 5))
    monkeypatch.setattr(fake_pool.os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        fake_pool.write(tmp_path, [0, 1], fakes(2), 1)


class Payload:
    def __reduce__(self):
        return os.mkdir, ("canary",)


@pytest.mark.parametrize("name", [fake_pool.IMAGES, fake_pool.ITERATIONS])
def test_a_pool_from_elsewhere_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    fake_pool.filled(tmp_path, torch.zeros(2, 1, 4, 4))
    content = np.empty(2, object)
    content[:] = [Payload()] * 2
    np.save(tmp_path / name, content, allow_pickle=True)
    with pytest.raises(UserError, match="no fake pool can be read there"):
        Pool(tmp_path)
    assert not (tmp_path / "canary").exists()


def test_files_of_two_pools_are_none(tmp_path: Path) -> None:
    fake_pool.filled(tmp_path, torch.zeros(3, 1, 4, 4))
    np.save(tmp_path / fake_pool.ITERATIONS, np.ones(2, np.int64))
    with pytest.raises(UserError, match="are not those of a pool"):
        Pool(tmp_path)


def test_a_pool_is_not_written_through_a_link(tmp_path: Path) -> None:
    (pool := tmp_path / "pool").mkdir()
    fake_pool.filled(pool, torch.zeros(2, 1, 4, 4), iteration=5)
    for name in (fake_pool.IMAGES, fake_pool.ITERATIONS):
        (pool / name).rename(tmp_path / name)
        (pool / name).symlink_to(tmp_path / name)
    before = [(tmp_path / name).read_bytes() for name in (fake_pool.IMAGES, fake_pool.ITERATIONS)]
    for write in (lambda: fake_pool.write(pool, [0], torch.ones(1, 1, 4, 4), 6), lambda: fake_pool.keep_until(pool, 1)):
        with pytest.raises(UserError, match="is a link; replace it"):
            write()
    assert before == [(tmp_path / name).read_bytes() for name in (fake_pool.IMAGES, fake_pool.ITERATIONS)]
