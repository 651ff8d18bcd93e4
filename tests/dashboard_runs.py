"""Run folders for the dashboard, with all that it shows."""

import json
from pathlib import Path
from typing import Any

import yaml
from study_runs import judged, write_run

from anomaly_lab.experiment.run_folder import update_provenance

CONFIG = {"name": "vae_set", "seed": 0, "detector": {"_target_": "a.b.VAE", "width": 8}, "data": {"seed": 0}}


def add_run(place: Path, path: str, shift: float = 1.0, seed: int = 0, width: int = 8, **facts: Any) -> Path:
    """A run with everything that the page shows; unfinished with finished=None."""
    experiment = path.partition("/")[0]
    known = {"experiment": experiment, "started": f"2026-01-0{seed + 1}T10:00:00+00:00",
             "finished": "2026-01-09T10:00:00+00:00", "data": {"name": "set"},
             "detector": {"class": "a.b.VAE", "phases": {"gan": 100}, "parameters": {"net": 1234}}}  # fmt: skip
    run = write_run(place / path, shift, seed, **(known | facts))
    update_provenance(run, seed=seed)
    if (known | facts)["finished"]:
        judged(run)
    else:
        (run / "scores.csv").unlink()
    settings = {**CONFIG, "name": experiment, "seed": seed, "detector": {"_target_": "a.b.VAE", "width": width},
                "data": {"seed": seed, "root": "/secret/place/scans"}}  # fmt: skip
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    lines = [{"iteration": i, "phase": "gan", "train/loss": 1 / i, "val/score": i / 7} for i in range(10, 80, 10)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return run
