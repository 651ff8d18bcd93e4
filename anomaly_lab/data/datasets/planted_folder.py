"""A folder of normal pictures, where some of the normals that are judged have a lesion planted on them.

For whoever has no picture of a disease: which detector notices most of what is different, and when does it call alarm?
Labelled anomalies in the folder are left out. The figures say nothing of a disease, and the report says so.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from anomaly_lab.data.datasets.folder import Files, Folder
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.store.plan import StorePlan
from anomaly_lab.lesions.planting import KINDS, TUNING, plant
from anomaly_lab.types import Case, Range, Seed, UserError

_PLANTED = "planted"
CAVEAT = (
    "The anomalies are lesions planted on normal pictures. They rank detectors by what they notice; what is found of a "
    "disease is another matter."
)


class PlantedFolder(Folder):
    """Any folder of normal pictures, with planted lesions to judge by.

    They lie in the folder itself; or as those of Folder in its sub-folder `normal` or in a list; others are left out.

    Examples:
        >>> import tempfile
        >>> data = PlantedFolder(root="none", source="twin", share=0.5)
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name in "ab":
        ...         (Path(root) / f"{name}.png").touch()
        ...     [(case.id, case.label, case.split) for case in data.cases(Path(root))]
        [('a.png', 0, 'train'), ('b.png', 0, 'test'), ('b.png+planted', 1, 'test')]
    """

    name = "planted_folder"
    where_to_get = "give a folder of normal pictures, or one with the sub-folder normal or a labels.csv"
    version = 1

    def __init__(
        self,
        *,
        share: Annotated[float, Range("(0, 0.9]")] = 0.25,
        lesions_seed: Seed = 0,
        **arguments: Any,
    ) -> None:
        """Set the options of the lesions.

        Args:
            share: of the patients, whose pictures are judged, each without and with a lesion; the others train. With
                `data.split.folds` each fold judges its part instead; of a folder or list with splits of its own, those
                of `test` are judged, and there are no folds.
            lesions_seed: seed of these patients and of the lesions, separate from `seed`: every run is judged by the
                same.
            **arguments: arguments of Folder.
        """
        super().__init__(**arguments)
        self.share, self.lesions_seed = share, lesions_seed

    @property
    def caveats(self) -> tuple[str, ...]:
        """That no disease was asked."""
        return (*super().caveats, CAVEAT)

    def cases(self, root: Path) -> list[Case]:
        """List the normal pictures, and those that are judged again with a lesion.

        With `supervision=labels` those that train are there again with lesions, too, of the kinds that choose settings.
        """
        normals = [case for case in super().cases(root) if case.label == 0]
        self.folded = all(case.split is None for case in normals)
        if not self.folded and not any(case.split == "test" for case in normals):
            raise UserError(f"{root}: no normal picture is in the split test; lesions are planted on those")
        return self._with_lesions(normals)

    def _with_lesions(self, normals: Sequence[Case]) -> list[Case]:
        """Divide the patients, unless the folder or a recorded split has, and add the pictures with lesions."""
        recorded = self._recorded.entries.values() if self._recorded else ()
        before = {entry.case for entry in recorded if not self.labelling or entry.split == "test"}
        if self.folded and recorded:
            is_judged = {case.id: f"{case.id}+{_PLANTED}" in before for case in normals}
            normals = [replace(case, split="test" if is_judged[case.id] else "train") for case in normals]
        elif self.folded:
            judged = self._judged({case.patient for case in normals})
            normals = [replace(case, split="test" if case.patient in judged else "train") for case in normals]
        planted = (
            replace(case, id=f"{case.id}+{_PLANTED}", label=1, class_name=_PLANTED, mask=None)
            for case in normals
            if case.split == "test" or self.labelling
        )
        return [*normals, *planted]

    def _grouped(self, cases: Sequence[Case]) -> list[Case]:
        """Join patients by their pictures without lesions, and divide those that are left."""
        normals = super()._grouped([case for case in cases if case.class_name != _PLANTED])
        grouped = self._with_lesions(normals)
        self.listed = [case.id for case in grouped]
        self.counted = self.census(grouped)
        self.declared = {case.id: self.declared[case.id.removesuffix(f"+{_PLANTED}")] for case in grouped}
        return grouped

    def read(self, case: Case) -> Scan:
        """Read a picture, and plant its lesion."""
        scan = super().read(case)
        if case.class_name != _PLANTED:
            return scan
        white = np.iinfo(scan.pixels.dtype).max
        image = torch.from_numpy(scan.pixels.astype(np.float32) * (2 / white) - 1)[None]
        try:
            lesion = plant(image, self.lesions_seed, KINDS if case.split == "test" else TUNING)
        except UserError as error:
            raise UserError(f"{case.image}: {error}") from error
        mask = lesion.mask[0].numpy()
        if not mask.any():
            raise UserError(f"{case.image}: no lesion can be planted on it, it is flat; leave it out")
        pixels = np.rint((lesion.image[0].double().numpy() + 1) * (white / 2)).astype(scan.pixels.dtype)
        return replace(scan, pixels=np.where(mask, pixels, scan.pixels), mask=mask)

    def protocol(self) -> dict[str, Any]:
        """Return the options that change pixels and masks."""
        return {**super().protocol(), "lesions_seed": self.lesions_seed}

    def plan(self, cases: Sequence[Case]) -> StorePlan:
        """Return the plan of the store; with labels which lesions a picture has depends on whether it is judged."""
        plan = super().plan(cases)
        if not self.labelling:
            return plan
        judged = [case.id for case in cases if case.class_name == _PLANTED and case.split == "test"]
        return replace(plan, protocol={**plan.protocol, "judged": judged})

    def _by_folder(self, files: Files) -> list[Case]:
        """Return the cases; without any sub-folder that could give a label all are normal."""
        if any("/" in name for name in files.pictures):
            return super()._by_folder(files)
        return [Case(name, self._patient(name, path), path, label=0) for name, path in files.pictures.items()]

    def _judged(self, patients: set[str]) -> set[str]:
        """Return the patients whose pictures are judged: those with the smallest hashes."""
        key = {each: hashlib.sha256(f"{self.lesions_seed} {each}".encode()).digest() for each in patients}
        order = sorted(patients, key=key.__getitem__)
        if self.split_rule.folds:
            return set(order[self.split_rule.fold :: self.split_rule.folds])
        return set(order[: math.ceil(self.share * len(order))])
