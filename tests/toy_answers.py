"""What answers uploads in tests of the server, without torch: the first byte of a file says what becomes of it."""

import os
import time
from typing import Any

from anomaly_lab.serving.jobs import REFUSED, SCORED, Answer, Job
from anomaly_lab.types import UserError

CAVEAT = "Synthetic twin: generated <b>images</b>"


class ToyAnswers:
    """The score is the number of bytes; files that begin with D, H, E, M, N kill, hang, fail, inflate, are refused."""

    facts = {  # noqa: RUF012
        "run": {"name": "toys/1", "id": "1f"},
        "detector": "Toy",
        "data": "toys",
        "source": "twin",
        "threshold": 10.0,
        "validation_normals": 9,
        "reference": "9 validation normals",
        "caveats": [CAVEAT],
    }

    def answer(self, job: Job) -> Answer:
        files = sorted(job.folder.iterdir())
        first = files[0].read_bytes()
        match first[:1]:
            case b"D":
                os._exit(9)
            case b"H":
                time.sleep(60)
            case b"E":
                raise ValueError(first.decode())
            case b"M":
                bytearray(2**32)
            case b"N":
                return Answer(REFUSED, {"detail": "it is no picture"})
        score = float(sum(path.stat().st_size for path in files))
        content: dict[str, Any] = {"score": score, "p_value": 0.1, "pred_label": int(score > 10), "threshold": 10.0}
        content |= {"remarks": ["anyway"] if job.anyway else [], "has_map": True, "caveats": [CAVEAT]}
        content |= {"source": "twin", "run": self.facts["run"], "files": [path.name for path in files]}
        if job.wanted == "score":
            return Answer(SCORED, content)
        path = job.folder.with_name("map")
        path.write_bytes(first * 2)
        return Answer(SCORED, content, path)


def opened() -> ToyAnswers:
    return ToyAnswers()


def refusing() -> ToyAnswers:
    raise UserError("runs/a is not a run folder")


def failing() -> ToyAnswers:
    raise ValueError("a fault of ours")
