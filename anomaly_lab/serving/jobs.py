"""What the process that talks to the network and the process that scores say to each other; it imports neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

Wanted = Literal["score", "png", "nifti", "dicom"]
MAPS = {  # by the format that is asked for: name of the file and media type
    "png": ("map.png", "image/png"),
    "nifti": ("map.nii.gz", "application/gzip"),
    "dicom": ("map.dcm", "application/dicom"),
}
SCORED, REFUSED = 200, 422  # statuses of HTTP


class Job(NamedTuple):
    """An upload that waits for its answer.

    Attributes:
        folder: holds the files of one scan and nothing else; the map is written beside it.
        wanted: the score, or a format of the map.
        anyway: score a scan of another nature than those of the training.
    """

    folder: Path
    wanted: Wanted = "score"
    anyway: bool = False


class Answer(NamedTuple):
    """What is answered.

    Attributes:
        status: of HTTP, 200 or 422.
        content: the score and what to know of it; of a scan without a score, `detail` says why in one sentence.
        file: the map, if it was asked for.
    """

    status: int
    content: dict[str, Any]
    file: Path | None = None


class Answering(Protocol):
    """Whatever can answer: a run, or something that was exported from one."""

    @property
    def facts(self) -> dict[str, Any]:
        """What it is, serialisable as JSON: run, threshold, caveats and the like."""

    def answer(self, job: Job) -> Answer:
        """Answer one upload; whatever is wrong with its files is part of the answer."""
