import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from anomaly_lab.dashboard import command
from anomaly_lab.dashboard.command import Asked
from anomaly_lab.types import UserError


def test_runs_writes_the_page_beside_the_runs(place: Path, capsys: pytest.CaptureFixture[str]):
    command.write([f"runs={place}"])
    assert capsys.readouterr().out.startswith(f"{place}/dashboard.html: 7 runs, 1 of them unreadable, in ")
    assert (place / "dashboard.html").is_file()
    assert (place / ".index.sqlite").is_file()


def test_runs_lie_in_runs_unless_told_otherwise(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place.parent)
    command.write([])
    assert (place / "dashboard.html").is_file()


def test_runs_may_lie_below_the_home_folder(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(place.parent))  # a shell leaves a `~` behind a `=` alone
    command.write([f"runs=~/{place.name}"])
    assert (place / "dashboard.html").is_file()


@pytest.mark.parametrize(("words", "message"), [
    (["rusn=x"], "rusn=x: there is no such setting here. Did you mean: 'runs'"), (["runs="], "runs=: there is no such"),
    (["port=0x1"], "port=0x1: takes a number below 65536"), (["port=65536"], "takes a number below"),
])  # fmt: skip
def test_a_wrong_word_is_one_line(words: list[str], message: str):
    with pytest.raises(UserError, match=message):
        Asked.of(words, ["runs", "port"])
    with pytest.raises(UserError, match="there is no such setting here"):
        Asked.of(["port=1"], ["runs"])


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path):
    for verb in (command.write, command.serve):
        with pytest.raises(UserError, match="is no folder; name the folder of your runs"):
            verb([f"runs={tmp_path}/none"])


@pytest.mark.slow
def test_dashboard_serves_until_it_is_interrupted(place: Path):
    words = [sys.executable, "-m", "anomaly_lab", "dashboard", f"runs={place}", "port=0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert "shows 7 runs to this machine; Ctrl-C ends it" in line
        with urllib.request.urlopen(line.split()[0], timeout=60) as answer:
            assert b"<h1>My runs</h1>" in answer.read()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert process.stderr
        assert process.stderr.read() == ""
