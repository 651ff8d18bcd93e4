"""The road of the data beside MONAI's: same files, same windows, same numbers; here on small brains."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from anomaly_lab.bench import data


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brains of which one gives some 2 000 windows, and that windows at half overlap cover to the edge, as BraTS'."""
    monkeypatch.setattr(data, "SHAPE", (112, 112, 80))


def test_volumes_are_brains_with_a_lesion(small: None, tmp_path: Path) -> None:
    root = data.write_volumes(tmp_path / "volumes", 2)
    assert [folder.name for folder in sorted(root.iterdir())] == ["patient0000", "patient0001"]
    images = []
    for folder in sorted(root.iterdir()):
        image, lesion = (nibabel.load(folder / f"{name}.nii.gz") for name in ("flair", "lesion"))
        assert image.shape == lesion.shape == data.SHAPE
        assert image.get_data_dtype() == np.int16
        marked = np.asarray(lesion.dataobj) > 0
        assert 0 < marked.sum() <= 20**3
        assert np.all(np.asarray(image.dataobj)[marked] != 0)
        images.append(np.asarray(image.dataobj))
    assert not np.array_equal(*images)


def test_the_store_holds_what_monai_finds(small: None, tmp_path: Path) -> None:
    """Window by window, to a grey level of 65 536; only the air about a brain is black here and stays 0 σ there."""
    root = data.write_volumes(tmp_path / "volumes", 1)
    ours, theirs = np.asarray(data._build_store(root, tmp_path / "store").images), data._monai_windows(root)
    assert ours.dtype == theirs.dtype == np.uint16
    assert ours.shape == theirs.shape
    assert len(ours) > 100
    air = (ours == 0) & (theirs == 32768)
    assert 0 < air.mean() < 0.05
    assert np.abs(ours[~air].astype(int) - theirs[~air]).max() <= 1


def test_different_windows_are_no_measure(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "NUM_VOLUMES", 1)
    monkeypatch.setattr(data, "_monai_windows", lambda root: np.zeros((3, 1, 32, 32), np.uint16))
    with pytest.raises(RuntimeError, match="MONAI extracts 3 windows, the store holds"):
        data.store_and_batches(rounds=1)


@pytest.mark.slow
def test_store_and_batches_are_measured_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SHAPE", (160, 160, 110))
    monkeypatch.setattr(data, "NUM_VOLUMES", 2)
    times = data.store_and_batches(rounds=1)
    assert set(times) == {name for pair in data.PAIRS for name in pair}
    assert all(len(seconds) == 1 for seconds in times.values())


@pytest.mark.slow
def test_memory_is_a_fresh_processs_peak(small: None) -> None:
    """Its imports alone take more than 50 MB, and eight small volumes do not need 16 GB."""
    size = 8 * 2 * np.prod(data.SHAPE) / 1e9
    ((name, (peak,)),) = data.memory(gigabytes=size).items()
    assert name == f"peak of a build of {size:g} GB, GB"
    assert 0.05 < peak < 16


def test_lists_are_sixrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "BAGS", 3000)
    monkeypatch.chdir(tmp_path)
    root = data._write_lists(tmp_path / "lists")
    rows = [(root / "ImageSet" / "1000" / f"{name}.csv").read_text().splitlines()[1:] for name in ("train", "test")]
    assert [len(part) for part in rows] == [2400, 600]
    names = [row.split(",")[0] for part in rows for row in part]
    assert len(set(names)) == 3000
    assert sum(name.startswith("P") for name in names) == 1000
    found = data._list_and_split(str(root))
    assert found["rows"] == 3000
    assert found["peak_gb"] > 0
