"""Studies without trainings: stand-ins for data, detector and Trainer, and a program that writes a run in no time."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from anomaly_lab.evaluation.protocol import evaluate_scores
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment.run_folder import write_json
from anomaly_lab.studies.plan import DataSet, Key, Planned, Row, Study

STUB = """
import json, os, pathlib, sys, time
from anomaly_lab.experiment.fingerprint import of_code
verb, what, *words = sys.argv[1:]
into = words[words.index("--into") + 1] if "--into" in words else None
given = dict(word.split("=", 1) for word in words if "=" in word)
log = pathlib.Path(os.environ["STUB_LOG"])
with log.open("a") as file:
    file.write(" ".join([verb, what, *(words[:2] if "--data-root" in words else [])]) + "\\n")
begins = verb == "train" and not pathlib.Path(into).exists()
if begins:
    config = json.loads(given["config"]) | ({"start_from": given["start_from"]} if "start_from" in given else {})
    run = pathlib.Path(into)
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(json.dumps(config))
    facts = {"code": of_code(config), "data": {"fingerprint": "data"}, "started": "2026", "source": "twin"}
    facts |= {"budget": "smoke", "seconds": {"gan": 2.0}, "peak_gb": {"ram": 0.5, "gpu": None}}
    (run / "provenance.json").write_text(json.dumps(facts))
else:
    run = pathlib.Path(into or what)
    config, facts = (json.loads((run / name).read_text()) for name in ("config.yaml", "provenance.json"))
if config.get("die_once") and begins:
    os.kill(os.getpid(), 9)
if config.get("fail"):
    sys.exit("error: it is broken")
score = [(i * 7 + config["seed"]) % 11 for i in range(24)]
rows = [f"{i},p{i},{'val' if i < 4 else 'test'},{int(i % 2 and i > 3)},{score[i]}" for i in range(24)]
(run / "scores.csv").write_text("\\n".join(["id,patient,split,label,score", *rows]) + "\\n")
code = {"training": facts["code"]["training"], "evaluation": of_code(config)["evaluation"]}
(run / "provenance.json").write_text(json.dumps(facts | {"finished": "2027", "code": code}))
"""


class Data:
    """What a `data` section may name."""

    def __init__(self, root: str = "", seed: int = 0, limit: int = 0) -> None:
        pass


class Detector:
    """What a `detector` section may name."""

    def __init__(self, width: int = 1, rate: float = 1e-5) -> None:
        pass


class Trainer:
    """Instead of Lightning's, which takes seconds to import."""

    def __init__(self, precision: str = "32-true") -> None:
        pass


def planned(row: str, seed: int = 0, start: str | None = None, **config) -> Planned:
    """A run of the stub."""
    whole = {"name": row, "seed": seed, "row": row, "data": {"root": "here"}, "detector": None, **config}
    key = Key(row, "set", seed)
    return Planned(key, row, (f"config={json.dumps(whole)}",), whole, start and Key(start, "set", seed))


def write_run(folder: Path, auroc_shift: float, seed: int = 0, n: int = 60, **facts) -> Path:
    """A finished run's scores and provenance."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    label = np.arange(n) % 2
    score, floor = random.normal(size=n) + auroc_shift * label, random.normal(size=n)
    lines = ["id,patient,split,label,score,mean_image", "v,p,val,0,0.5,0.5"]
    lines += [f"{i:03},p{i},test,{label[i]},{score[i]!r},{floor[i]!r}" for i in range(n)]
    (folder / "scores.csv").write_text("\n".join(lines).replace("np.float64(", "").replace(")", "") + "\n")
    known = {"budget": "smoke", "source": "twin", "code": "c0de", "seconds": {"gan": 60.0, "encoder": 30.0}}
    known |= {"detector": {"phases": {"gan": 10, "encoder": 5}}, "scoring_seconds": 2.0, "peak_gb": {"ram": 0.5}}
    write_json(folder / "provenance.json", known | facts)
    return folder


def judged(run: Path) -> Path:
    """A run of `write_run` with its metrics.json."""
    write_json(run / "metrics.json", evaluate_scores(Scores.read(run / "scores.csv"), replicates=20))
    return run


def keep_pictures(run: Path, cases: tuple[str, ...] = ("001", "002"), size: int = 8, **arrays: np.ndarray) -> Path:
    """What a GAN's run keeps in samples/: a grid, and gallery.npz of these cases."""
    (run / "samples").mkdir()
    Image.new("L", (8 * size, 8 * size)).save(run / "samples" / "00000010.png")
    image = np.stack([np.full((1, size, size), int(case) / 100, np.float32) for case in cases])
    parts = {"image": image, "reconstruction": -image, "anomaly_map": abs(image)} | arrays
    np.savez(run / "samples" / "gallery.npz", id=np.array(cases), kind=np.array(["tp"] * len(cases)), **parts)
    return run


def small_study() -> Study:
    """Three rows and a hidden one on one data set."""
    rows = {
        "good": Row("Good", "x", paper={"set": 0.9}, notes=["n"]),
        "fair": Row("Fair", "x", paper={"set": 0.8}),
        "poor": Row("Poor", "x", paper={"set": 0.7}),
        "base": Row("Base", "x", hidden=True),
    }
    sets = {"set": DataSet("Set")}
    return Study(name="s", title="S", datasets=sets, rows=rows, footnotes={"n": "We chose this."})
