"""The sheet of judged normals beside the training pictures that are most like them, for report and data sheet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomaly_lab.callbacks.samples import grid, png
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.experiment import record, run_folder

FILE = "most_alike.png"


def sheet(data: PatchDataModule, audit: Mapping[str, Any]) -> bytes:
    """Return the sheet as a PNG file, judged normals above training pictures; empty where no pair was found.

    Args:
        data: the data set, set up.
        audit: what `splitting.audit.audit` found in it.

    Examples:
        >>> sheet(data, {"likeness": None})  # doctest: +SKIP
        b''
    """
    pairs = (audit.get("likeness") or {}).get("worst")
    if not pairs:
        return b""
    row_of = {id: row for row, id in enumerate(data.store.index.columns["id"])}
    rows = np.array([row_of[pair["ids"][place]] for place in (0, 1) for pair in pairs])
    images = torch.stack([data.store.batch(rows[[i]])["image"][0] for i in range(len(rows))])
    if images.ndim == 5:  # the middle slice of a volume
        images = images[:, :, images.shape[2] // 2]
    return png(grid(images, len(pairs)))


def note_likeness(run: Path, data: PatchDataModule) -> None:
    """Write the sheet into a run folder; audit the data of a run of older code, which knew nothing of likeness.

    Args:
        run: the run folder.
        data: its data set, set up.

    Examples:
        >>> note_likeness(Path("runs/fanogan_headct/20260101-120000-smoke-1a2b"), data)  # doctest: +SKIP
    """
    facts = record.read_provenance(run).get("data") or {}
    if "likeness" not in (audit := facts.get("audit") or {}):
        now = data.facts()
        audit = now["audit"]
        remarks = dict.fromkeys([*record.remarks_of(facts), *now["remarks"]])  # older ones named their cases
        found = {"audit": audit, "remarks": list(remarks), "concerned": facts.get("concerned", {}) | now["concerned"]}
        run_folder.update_provenance(run, data=facts | found)
    if picture := sheet(data, audit):
        (run / "samples").mkdir(exist_ok=True)
        run_folder.write_atomic(run / "samples" / FILE, picture)
