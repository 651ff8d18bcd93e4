"""A hospital's DICOM export with broken files in it, and how it is scored by `predict` and by `serve`.

`python tests/e2e/hospital.py RUN FOLDER --files 2000` does by hand what `test_hospital.py` does with a few files.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from dicom_files import chest, save

TREE = Path(__file__).parents[2]
EVERY = 12  # so many files have a broken one among them
KINDS = ("torn", "empty", "text", "no pixels", "too short", "frames", "report", "header only")
Row = tuple[str, str, str]  # score, p-value, label; empty for a file without a score


def write_export(folder: Path, count: int, side: int = 48) -> dict[str, str]:
    """Write `count` files in folders of studies; returns what is broken, by path below the folder, and how."""
    broken = {}
    for number in range(count):
        name = f"study{number // 50:03d}/IM{number:05d}"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        y, x = np.mgrid[:side, :side] / side - 0.5
        shade = 3000 * np.exp(-4 * (x**2 + y**2)) + rng.normal(0, 120, (side, side))
        pixels = shade.clip(0, 4095).astype(np.uint16)
        series = {"SeriesInstanceUID": f"1.2.826.0.1.77777.{number + 10}", "PatientID": f"P{number // 3}"}
        dataset = chest(pixels, BitsStored=12, HighBit=11, **series)
        if number % EVERY:
            save(dataset, path)
            continue
        broken[name] = kind = KINDS[number // EVERY % len(KINDS)]
        if kind == "no pixels":
            del dataset.PixelData
        elif kind == "too short":
            dataset.PixelData = dataset.PixelData[: side * 7]
        elif kind == "frames":
            dataset.NumberOfFrames = 10**6
        elif kind == "report":
            del dataset.PixelData, dataset.Rows, dataset.Columns
            dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
        save(dataset, path)
        whole = path.read_bytes()
        if kind == "torn":
            path.write_bytes(whole[: len(whole) // 2])
        elif kind in ("empty", "text", "header only"):
            path.write_bytes({"empty": b"", "text": b"Dear colleague, ", "header only": whole[:132]}[kind])
    return broken


def environment(folder: Path) -> dict[str, str]:
    """Of a command; its temporary files lie in the folder, so that one can look at what is left."""
    (folder / "tmp").mkdir(exist_ok=True)
    own = {"PYTHONPATH": f"{TREE}", "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
    return {**os.environ, **own}


def command(folder: Path, *words: str | Path) -> subprocess.Popen[str]:
    said = (folder / "said.txt").open("a")
    line = [sys.executable, "-m", "anomaly_lab", *map(str, words)]
    return subprocess.Popen(line, env=environment(folder), stdout=said, stderr=said, text=True)


def predict(folder: Path, run: Path, export: Path, out: Path, *words: str, kill_at: int | None = None) -> int:
    """Run `predict`, killed when its table has `kill_at` rows; returns the exit status."""
    process = command(folder, "predict", run, export, "--out", out, *words)
    while kill_at is not None and process.poll() is None:
        table = out / "scores.csv"
        if table.exists() and table.read_bytes().count(b"\n") > kill_at:
            process.kill()
        time.sleep(0.005)
    return process.wait()


def table_of(out: Path) -> dict[str, Row]:
    """The rows of a prediction that have a score."""
    with (out / "scores.csv").open() as file:
        rows = csv.DictReader(file)
        return {row["id"]: (row["score"], row["p_value"], row["pred_label"]) for row in rows if row["score"]}


class Client:
    """Sends every file of an export to a server, and goes on after the server was killed.

    Args:
        folder: of the scenario.
        run: the run folder.
        export: the files.
    """

    def __init__(self, folder: Path, run: Path, export: Path) -> None:
        self.folder, self.run, self.export = folder, run, export
        self.rows: dict[str, Row] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.server: subprocess.Popen[str]
        self.memory: dict[str, float] = {}

    def start(self) -> None:
        port = self.url.rpartition(":")[2]
        self.server = command(self.folder, "serve", self.run, f"port={port}", "data.store.scoring_batch_size=1")
        until = time.monotonic() + 300
        while time.monotonic() < until and self.server.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError((self.folder / "said.txt").read_text()[-2000:])

    def kill(self) -> None:
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()

    def stop(self) -> int:
        self.server.terminate()
        return self.server.wait(60)

    def left(self) -> list[Path]:
        """What servers have left on the disk."""
        return list((self.folder / "tmp").glob("anomaly-lab-serve-*"))

    def send(self, most: int | None = None) -> None:
        """Send the files that have no answer yet, at most so many."""
        names = sorted(path.relative_to(self.export).as_posix() for path in self.export.rglob("*") if path.is_file())
        for name in [name for name in names if name not in self.rows and name not in self.refused][:most]:
            request = urllib.request.Request(f"{self.url}/score", data=(self.export / name).read_bytes(), method="POST")
            request.add_header("content-type", "application/dicom")
            try:
                with urllib.request.urlopen(request, timeout=300) as answer:
                    said = json.load(answer)
                self.rows[name] = (repr(said["score"]), repr(said["p_value"]), str(said["pred_label"]))
            except urllib.error.HTTPError as error:
                self.refused[name] = (error.code, json.load(error)["detail"])

    def measure(self) -> dict[str, float]:
        """The gauges of the server, by name."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.split(" ") for line in lines if not line.startswith("#") and "{" not in line)
        return {name: float(value) for name, value in pairs}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path, help="new: for the export and all results")
    parser.add_argument("--files", type=int, default=2000)
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True)
    export = folder / "export"
    broken = write_export(export, options.files)
    single = "data.store.scoring_batch_size=1"
    marks = [time.perf_counter()]
    for out, words in (("whole", ()), ("one", (single,))):
        print(out, "status", predict(folder, options.run, export, folder / out, *words))
        marks.append(time.perf_counter())
    killed = predict(folder, options.run, export, folder / "killed", kill_at=options.files // 2)
    rows = (folder / "killed" / "scores.csv").read_bytes().count(b"\n")
    again = predict(folder, options.run, export, folder / "killed")
    same = (folder / "killed" / "scores.csv").read_bytes() == (folder / "whole" / "scores.csv").read_bytes()
    print(f"predict: killed ({killed}) after {rows} lines, continued ({again}), same table: {same}")
    client = Client(folder, options.run, export)
    client.start()
    begun = time.perf_counter()
    client.send(options.files // 2)
    before = client.measure()
    client.kill()
    left = len(client.left())
    client.start()
    print(f"serve: killed half-way, left {left} folders, of these {left - len(client.left()) + 1} removed")
    first = client.measure()
    client.send()
    served = time.perf_counter() - begun
    print("memory, MB:", {name: [round(part[name] / 2**20) for part in (before, first, client.measure())]
                          for name in before if "memory" in name})  # fmt: skip
    client.stop()
    whole, one = table_of(folder / "whole"), table_of(folder / "one")
    apart = max(abs(float(whole[name][0]) / float(one[name][0]) - 1) for name in one)
    print(f"{options.files} files, {len(broken)} broken: predict scored {len(one)}, serve {len(client.rows)}")
    print(f"serve's table is predict's, batches of one: {client.rows == one}; batches of many: {client.rows == whole}")
    print(f"largest relative difference of a score by batch: {apart:.2g}")
    took = (marks[1] - marks[0], marks[2] - marks[1], served)
    print("seconds of predict, predict by ones, serve with a restart:", [round(seconds, 1) for seconds in took])
    print("left behind:", client.left(), "; statuses:", sorted({status for status, _ in client.refused.values()}))


if __name__ == "__main__":
    main()
