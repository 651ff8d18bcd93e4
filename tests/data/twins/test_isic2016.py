import numpy as np
from PIL import Image

from anomaly_lab.data.datasets.isic2016 import ISIC2016
from anomaly_lab.data.twins.isic2016 import MASKS, PICTURES, write_twin


def test_twin_is_read_back_with_masks_of_the_pictures_size(tmp_path):
    write_twin(tmp_path, seed=0, size=6)
    cases = ISIC2016(root=str(tmp_path), exclude="none").cases(tmp_path)
    assert [case.id for case in cases] == [f"ISIC_{2 * i:07d}" for i in range(6)]
    images, masks = (
        [Image.open(path) for path in paths] for paths in zip(*((c.image, c.mask) for c in cases), strict=True)
    )
    assert [image.size for image in images] == [mask.size for mask in masks]
    assert len({image.size for image in images}) > 3
    assert {image.mode for image in images} == {"RGB"}
    assert set(np.unique(np.asarray(masks[0]))) == {0, 255}


def test_lesions_are_darker_than_the_skin_and_well_inside(tmp_path):
    write_twin(tmp_path, seed=0, size=12)
    darker = []
    for path in sorted((tmp_path / MASKS).iterdir()):
        mask = np.asarray(Image.open(path)) > 0
        name = path.name.replace("_Segmentation.png", ".jpg")
        image = np.asarray(Image.open(tmp_path / PICTURES / name).convert("L")).astype(float)
        assert 0.01 < mask.mean() < 0.6
        darker.append(np.median(image[mask]) < np.median(image[~mask]))
    assert np.mean(darker) > 0.8


def test_same_seed_same_files_whatever_the_size(tmp_path):
    for name, seed, size in (("a", 0, 2), ("b", 0, 3), ("c", 1, 2)):
        (tmp_path / name).mkdir()
        write_twin(tmp_path / name, seed, size)
    first, again, other = ((tmp_path / name / PICTURES / "ISIC_0000002.jpg").read_bytes() for name in "abc")
    assert first == again != other
