"""ISIC 2016 (ISBI challenge, part 1: Gutman et al., arXiv 1605.01397): patches of dermoscopic pictures, lesion or skin.

Layout: `ISBI2016_ISIC_Part1_Training_Data/ISIC_#######.jpg` (900 pictures of various sizes) and
`ISBI2016_ISIC_Part1_Training_GroundTruth/ISIC_#######_Segmentation.png`. The official test part is not used.
Protocol of the source (Shen et al. 2020, adGAN): 660 pictures, without those with much hair or strong marks, which were
excluded by hand (the list is not published, see `exclude`); resized to 128×160, with 32×32 windows at 75 % overlap,
13 × 17 per picture. A window without lesion pixels is normal, one with more than 75 % lesion is anomalous, all others
are left out. 25 744 normal windows train; 7 332 normal and 8 608 anomalous windows of other pictures are the test set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from anomaly_lab.data.datamodule import PatchDataModule, Role
from anomaly_lab.data.datasets import artefacts
from anomaly_lab.data.store.disk import disk_errors, locked
from anomaly_lab.data.twins.isic2016 import write_twin
from anomaly_lab.experiment.regular import regular
from anomaly_lab.types import Case, UserError

PICTURES = "ISBI2016_ISIC_Part1_Training_Data"
MASKS = "ISBI2016_ISIC_Part1_Training_GroundTruth"
_SUFFIX = "_Segmentation.png"
_EXCLUDED = 240 / 900  # fraction of the pictures that the source paper leaves out


class ISIC2016(PatchDataModule):
    """Dermoscopic pictures with lesion masks; patients are unknown, so every picture counts as a patient of its own.

    Attributes:
        excluded: ids of the pictures that `cases` left out.

    Examples:
        >>> import tempfile
        >>> data = ISIC2016(root="none", source="twin", exclude="none")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.write_twin(Path(folder), seed=0, size=2)
        ...     [(case.id, case.mask.name) for case in data.cases(Path(folder))]
        [('ISIC_0000000', 'ISIC_0000000_Segmentation.png'), ('ISIC_0000002', 'ISIC_0000002_Segmentation.png')]
    """

    name = "isic2016"
    brightness = "dark"  # pigment on skin
    where_to_get = (
        "get part 1 of the ISBI 2016 challenge from challenge.isic-archive.com and lay the training data out as "
        f"{PICTURES}/ISIC_0000000.jpg and {MASKS}/ISIC_0000000{_SUFFIX}"
    )
    twin_version = 1
    version = 1
    official: ClassVar[dict[str, int]] = {"images": 900}

    def __init__(self, *, exclude: str = "auto", **arguments: Any) -> None:
        """Set the options of this data set.

        Args:
            exclude: which pictures to leave out: a text file with one id per line; "auto" for `exclude.txt` in the
                folder of the data or, without that file, the 240 of 900 pictures with the most hair and coloured marks
                as measured by `artefacts` (30 ms per picture, once; the result is kept in the store folder); "none"
                for no picture.
            **arguments: arguments of PatchDataModule.
        """
        super().__init__(**arguments)
        self.exclude, self.excluded = exclude, frozenset[str]()

    def cases(self, root: Path) -> list[Case]:
        """List the pictures that are not excluded, with their masks, by id."""
        pictures = _by_id(root / PICTURES, ".jpg")
        masks = _by_id(root / MASKS, _SUFFIX)
        if not pictures:
            raise UserError(f"{root / PICTURES}: no pictures *.jpg; {self.where_to_get}")
        for fault, ids in (
            (f"{root / MASKS}: no mask for", pictures.keys() - masks.keys()),
            (f"{root / PICTURES}: no picture for the mask of", masks.keys() - pictures.keys()),
        ):
            if ids:
                raise UserError(f"{fault} {', '.join(sorted(ids)[:5])}; complete the data set")
        self.excluded = self._left_out(root, pictures)
        if len(self.excluded) == len(pictures):
            raise UserError(f"data.exclude={self.exclude}: no picture is left; shorten the list")
        kept = [i for i in pictures if i not in self.excluded]
        return [Case(id=i, patient=i, image=pictures[i], label=1, mask=masks[i]) for i in kept]

    def role(self, path: Path, source: Path) -> Role:
        """Return "mask" for a segmentation."""
        return "mask" if path.name.lower().endswith(_SUFFIX.lower()) else "scan"

    def known_mask(self, image: Path, source: Path) -> Path | None:
        """Return the segmentation of a picture, beside it or in the folder of the data set."""
        folders = (image.parent, image.parent.with_name(MASKS))
        return next(filter(Path.exists, (folder / f"{image.stem}{_SUFFIX}" for folder in folders)), None)

    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        """Count all pictures and the excluded ones."""
        return {"images": len(cases) + len(self.excluded), "excluded": len(self.excluded)}

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic pictures in the official layout."""
        write_twin(root, seed, size)

    def _left_out(self, root: Path, pictures: dict[str, Path]) -> frozenset[str]:
        if self.exclude == "none":
            return frozenset()
        listed = root / "exclude.txt" if self.exclude == "auto" else Path(self.exclude)
        if self.exclude != "auto" or listed.exists():
            return _listed(listed, pictures)
        shares = self._shares(pictures)
        worst = sorted(pictures, key=lambda i: (-shares[i], i))
        return frozenset(worst[: round(_EXCLUDED * len(pictures))])

    def _shares(self, pictures: dict[str, Path]) -> dict[str, float]:
        """Return the artefact fraction of every picture, from the file in `store_dir` if it belongs to these files."""
        states = [(i, path.stat().st_size, path.stat().st_mtime_ns) for i, path in pictures.items()]
        key = hashlib.sha256(json.dumps([artefacts.VERSION, states]).encode()).hexdigest()[:16]
        kept = self.store_dir / f"isic2016-artefacts-{key}.json"
        with disk_errors(self.store_dir), locked(self.store_dir, "isic2016-artefacts"):
            if not kept.exists():
                measured = {i: artefacts.artefact_share(path) for i, path in pictures.items()}
                work = kept.with_suffix(".tmp")
                work.write_text(json.dumps(measured), encoding="utf-8")
                work.replace(kept)
            shares: dict[str, float] = json.loads(regular(kept).read_text(encoding="utf-8"))
        return shares


def _by_id(folder: Path, ending: str) -> dict[str, Path]:
    """Return the files of a folder by their name without `ending`, in order; hidden files are ignored."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    named = [path for path in files if path.name.lower().endswith(ending.lower()) and not path.name.startswith(".")]
    return {path.name[: -len(ending)]: path for path in named}


def _listed(path: Path, pictures: dict[str, Path]) -> frozenset[str]:
    """Return the ids of a text file, one per line, with or without .jpg; text after # is a comment."""
    try:
        lines = regular(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: the list of pictures to leave out (data.exclude) cannot be read ({error}); "
            "set it to auto, none or a text file with one id per line"
        ) from error
    ids = set()
    for number, line in enumerate(lines, start=1):
        name = line.partition("#")[0].strip().removesuffix(".jpg")
        if name and name not in pictures:
            raise UserError(f"{path}, line {number}: there is no picture {name}; remove the line or correct it")
        ids.add(name)
    return frozenset(ids - {""})
