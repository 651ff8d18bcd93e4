"""`make bench SECTION=dashboard`: the page over thousands of generated runs, how long it takes to make, open and sort.

The runs are made up, with the files and sizes of real ones at the laptop budget. A browser is driven where playwright
(extra `dev`) and Chromium are installed; without it only the index and the page are timed.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_lab.dashboard import compare, page
from anomaly_lab.dashboard.index import Index
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment import run_folder
from anomaly_lab.types import UserError

RUNS = 10_000
DETECTORS = ("FAnoGAN", "GANomaly", "VAE", "ADGAN", "DeepSVDD", "PCA")
DATA = ("headct", "mias", "folder", "abmnist")
SEEDS = 5
CASES = 60  # of the test split, half of them anomalous
SORTS = """() => [...document.querySelectorAll('#head button')].map((button) => {
  const begun = performance.now();
  button.click();
  document.body.getBoundingClientRect();  // the layout is part of it
  return (performance.now() - begun) / 1000;
})"""
SEARCH = """(words) => new Promise((done) => {
  const field = document.getElementById('search'), begun = performance.now();
  new MutationObserver((_, watcher) => {
    watcher.disconnect();
    document.body.getBoundingClientRect();
    done((performance.now() - begun) / 1000);
  }).observe(document.getElementById('body'), {childList: true});
  field.value = words;
  field.dispatchEvent(new Event('input'));
})"""
GROUP = """() => {
  const begun = performance.now();
  document.getElementById('grouped').click();
  document.body.getBoundingClientRect();
  return (performance.now() - begun) / 1000;
}"""


def main(out: Path, words: Sequence[str]) -> None:
    """Time the page over generated runs, print and write the figures.

    Args:
        out: file for them (JSON).
        words: `runs=N` for another number than RUNS.

    Raises:
        UserError: there is another word.
    """
    count = RUNS
    for word in words:
        key, _, value = word.partition("=")
        if key != "runs" or not value.isdecimal():
            raise UserError(f"{word}: takes runs=N, the number of runs to generate")
        count = int(value)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "runs")
        found: dict[str, Any] = {"runs": count, "generating": _timed(lambda: generate(place, count))}
        found |= measure(place)
    out.parent.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(out, run_folder.provenance() | found)
    for name, value in found.items():
        print(f"{name}: {value:.3g} s" if isinstance(value, float) else f"{name}: {value}")
    print(out)


def measure(place: Path) -> dict[str, Any]:
    """Time index, page and browser over the runs of a place; seconds, and bytes.

    Args:
        place: the folder of the runs.

    Examples:
        >>> measure(Path("runs"))  # doctest: +SKIP
        {'index, first time': 61.2, ...}
    """
    index = Index(place)
    found: dict[str, Any] = {"index, first time": _timed(index.update)}
    found["repeats, first time"] = _timed(lambda: compare.groups(index))
    found["page, first time"] = _timed(lambda: page.write(index))
    found["index, nothing new"] = _timed(index.update)
    found["page, nothing new"] = _timed(lambda: page.write(index))
    found["page, bytes"] = (place / page.FILE).stat().st_size
    return found | browsed(place / page.FILE)


def browsed(path: Path) -> dict[str, Any]:
    """Open, sort, search and group a page in headless Chromium; empty without a browser.

    Args:
        path: of the page.

    Examples:
        >>> browsed(Path("runs/dashboard.html"))  # doctest: +SKIP
        {'open': 0.9, 'sort, median': 0.06, ...}
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        return {"browser": "none: needs Chromium and playwright"}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        begun = time.perf_counter()
        tab.goto(path.absolute().as_uri(), wait_until="commit")
        tab.wait_for_selector("#body tr")
        opened = time.perf_counter() - begun
        sorts = [seconds for _ in range(2) for seconds in tab.evaluate(SORTS)]
        found = {
            "open": opened,
            "sort, median": float(np.median(sorts)),
            "sort, slowest": max(sorts),
            "search": tab.evaluate(SEARCH, "ganomaly laptop"),
            "group": tab.evaluate(GROUP),
        }
        browser.close()
    return found


def generate(place: Path, count: int) -> None:
    """Write made-up run folders: SEEDS of each setting, most finished, some stopped, one in a thousand damaged.

    Args:
        place: folder, which is made.
        count: their number.

    Examples:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     generate(Path(folder), 2)
        ...     len([*Path(folder).glob("*/*/config.yaml")])
        2
    """
    shown = configuration.show(configuration.load("ganomaly_headct", ["budget=laptop", "data.source=twin"]))
    lines = [
        json.dumps({"iteration": i, "images": 16 * i, "phase": "gan", "train/critic": 1 / i, "train/generator": 0.5,
                    "train/grad_critic": 3.0, **({"val/anomaly_score": 0.1 + 1 / i} if i % 100 == 0 else {})})
        for i in range(10, 810, 10)
    ]  # fmt: skip
    log = "\n".join(lines) + "\n"
    for number in range(count):
        random = np.random.default_rng(number)
        kind = number // SEEDS
        detector, data = DETECTORS[kind % len(DETECTORS)], DATA[kind // len(DETECTORS) % len(DATA)]
        name = f"{detector.lower()}_{data}"
        run = place / name / f"2026{number % 12 + 1:02}{number % 28 + 1:02}-{number % 24:02}0000-laptop-{number:06x}"
        run.mkdir(parents=True)
        facts = _facts(number, detector, data, name)
        settings = shown.replace("width: 32", f"width: {2 ** (kind // 24 % 6 + 2)}", 1)
        settings = settings.replace("lr: 0.0002", f"lr: {0.0001 * (kind // 144 + 1):.4g}", 1)
        (run / "config.yaml").write_text(settings.replace("seed: 0", f"seed: {number % SEEDS}"))
        (run / "metrics.jsonl").write_text(log)
        if number % 20:
            facts["finished"] = facts["started"]
            (run / "metrics.json").write_text(json.dumps(_evaluated(run, random)))
        text = json.dumps(facts)
        (run / "provenance.json").write_text(text[: len(text) // (2 if number % 1000 == 999 else 1)])


def _facts(number: int, detector: str, data: str, name: str) -> dict[str, Any]:
    place = f"anomaly_lab.detectors.{detector.lower()}.{detector}"
    return {
        "started": f"2026-{number % 12 + 1:02}-{number % 28 + 1:02}T{number % 24:02}:{number % 60:02}:00+00:00",
        "command": f"train {name} seed={number % SEEDS}",
        "experiment": name,
        "seed": number % SEEDS,
        "budget": ("laptop", "paper", "smoke")[number // SEEDS % 3],
        "source": "real" if number // SEEDS % 2 else "twin",
        "code": {"training": "0", "evaluation": "0"},
        "detector": {"class": place, "parameters": {"g": 1000 * number}, "phases": {"gan": 800}, "caveats": []},
        "data": {"name": data, "source": "real", "fingerprint": "0", "counts": {"test": {"normal": 30}}},
        "seconds": {"gan": 60.0 + number % 977},
        "machine": {"cpu": "a", "cores": 2},
    }


def _evaluated(run: Path, random: np.random.Generator) -> dict[str, Any]:
    """Write scores.csv and return what metrics.json says of them, but for the intervals, which are made up."""
    label = np.arange(CASES) % 2
    shift = random.uniform(0, 2)
    score, baseline = random.normal(size=CASES) + shift * label, random.normal(size=CASES) + label
    rows = [f"{i:03},p{i},test,{label[i]},{float(score[i])!r},,,{float(baseline[i])!r}" for i in range(CASES)]
    head = "id,patient,split,label,score,p_value,pred_label,pca_32"
    (run / "scores.csv").write_text("\n".join([head, *rows]) + "\n")
    auroc, other = (float((of[label == 1][:, None] > of[label == 0]).mean()) for of in (score, baseline))
    figure = {"value": auroc, "low": max(0.0, auroc - 0.1), "high": min(1.0, auroc + 0.1)}
    difference = {"value": auroc - other, "low": auroc - other - 0.1, "high": auroc - other + 0.1}
    return {
        "counts": {"test": {"normal": CASES // 2, "anomalous": CASES // 2}},
        "threshold": {"rule": "quantile of validation normals", "uses_test": False, "value": 1.0},
        "detector": {"auroc": figure, "average_precision": figure, "balanced_accuracy": figure},
        "baselines": {"pca_32": {"auroc": {"value": other, "low": None, "high": None}}},
        "versus_baselines": {"best": "pca_32", "difference": difference, "beaten": auroc > other, "sentence": "."},
        "unit": {"scored": "patch", "rule": "none", "top_k": 10},
    }


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
