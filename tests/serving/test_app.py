"""The endpoints, in one process: what comes in goes out with its answer, and nothing of it stays or is logged."""

import asyncio
import base64
import hashlib
import logging
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from browser import Opener, everywhere, overflows
from fastapi.testclient import TestClient
from PIL import Image
from toy_answers import CAVEAT, ToyAnswers

from anomaly_lab.serving.app import create
from anomaly_lab.serving.jobs import Answer, Job
from anomaly_lab.serving.settings import Settings
from anomaly_lab.serving.workspace import Workspace
from anomaly_lab.types import UserError


class Inline:
    """A worker that answers in this process."""

    facts: dict[str, Any] = ToyAnswers.facts
    restarts, fault = 0, ""

    def ask(self, job: Job) -> Answer:
        return ToyAnswers().answer(job)

    def memory(self) -> int:
        return 1

    def close(self) -> None:
        pass


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with TestClient(create(Inline(), Settings(max_mb=0.001))) as client:  # type: ignore[arg-type]
        yield client
    assert list(tmp_path.iterdir()) == []


def left(client: TestClient) -> list[Path]:
    folder = client.app.state.desk.workspace.folder  # type: ignore[attr-defined]
    return [path for path in folder.rglob("*") if path.name != "lock"]


def test_a_score_comes_with_everything_one_should_know(client: TestClient) -> None:
    for answer in (
        client.post("/score", content=b"1234567890ab"),
        client.post("/score", files={"file": ("../../x.png", b"1234567890ab")}),
    ):
        assert answer.status_code == 200
        said = answer.json()
        assert (said["score"], said["pred_label"], said["p_value"], said["threshold"]) == (12, 1, 0.1, 10)
        assert said["caveats"] == [CAVEAT]
        assert said["files"] == ["0000"]
        assert said["run"]["id"] == "1f"
    assert left(client) == []


def test_a_series_is_several_parts(client: TestClient) -> None:
    said = client.post("/score", files=[("file", (f"{n}.dcm", b"123")) for n in range(3)]).json()
    assert (said["score"], said["files"]) == (9, ["0000", "0001", "0002"])


@pytest.mark.parametrize(("form", "kind"), [
    ("png", "image/png"), ("nifti", "application/gzip"), ("dicom", "application/dicom"),
])  # fmt: skip
def test_a_map_is_sent_and_its_score_stands_in_the_headers(client: TestClient, form: str, kind: str) -> None:
    answer = client.post(f"/map?format={form}", content=b"1234567890ab")
    assert answer.content == b"1234567890ab" * 2
    assert answer.headers["content-type"] == kind
    assert (answer.headers["x-score"], answer.headers["x-pred-label"], answer.headers["x-source"]) == (
        "12.0",
        "1",
        "twin",
    )
    assert left(client) == []


@pytest.mark.parametrize(("path", "request_of", "status"), [
    ("/score", {"content": b"N"}, 422),
    ("/score", {"content": b"Error of Mustermann"}, 500),
    ("/score", {"content": b""}, 400),
    ("/score", {"content": b"a" * 2000}, 413),
    ("/score", {"content": iter([b"a" * 800, b"a" * 800])}, 413),  # no length declared
    ("/score", {"content": b"a", "headers": {"content-encoding": "gzip"}}, 415),
    ("/score", {"content": b"a", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400),
    ("/score?anyway=perhaps", {"content": b"a"}, 422),
    ("/map?format=bmp", {"content": b"a"}, 422),
    ("/nowhere", {"content": b"a"}, 404),
    ("/health", {"content": b"a"}, 405),
])  # fmt: skip
def test_whatever_is_wrong_is_one_sentence_and_the_server_lives_on(
    client: TestClient, caplog: pytest.LogCaptureFixture, path: str, request_of: dict[str, Any], status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = client.post(path, **request_of)
    assert answer.status_code == status
    assert set(answer.json()) == {"detail"}
    assert answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]
    assert "Mustermann" not in answer.text + caplog.text
    assert left(client) == []
    assert client.post("/score?anyway=1", content=b"123").json()["remarks"] == ["anyway"]


def test_metrics_count_by_path_and_status_alone(client: TestClient) -> None:
    client.post("/score?x=Mustermann", content=b"123")
    client.post("/score", content=b"N")
    client.post("/Mustermann", content=b"N")
    text = client.get("/metrics").text
    assert 'anomaly_lab_requests_total{path="/score",status="200"} 1' in text
    assert 'anomaly_lab_requests_total{path="/score",status="422"} 1' in text
    assert "anomaly_lab_waiting_requests 0" in text
    assert "Mustermann" not in text


def test_health_names_the_run_and_its_caveats(client: TestClient) -> None:
    said = client.get("/health").json()
    assert (said["status"], said["run"]["name"], said["caveats"]) == ("ok", "toys/1", [CAVEAT])


def test_a_run_that_was_taken_away_is_ill_health(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: Inline, job: Job) -> Answer:
        raise UserError("runs/a is not a run folder")

    monkeypatch.setattr(Inline, "ask", gone)
    answer = client.post("/score", content=b"123")
    assert (answer.status_code, answer.json()["detail"]) == (503, "runs/a is not a run folder")
    assert left(client) == []
    monkeypatch.setattr(Inline, "fault", "runs/a is not a run folder")
    assert client.get("/health").status_code == 503


def test_the_page_runs_its_own_script_and_style_and_asks_nobody_else(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        assert f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}" in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"(?:src|href)=.(?!data:)", answer.text)
    assert "generated &lt;b&gt;images" in answer.text
    for path in ("/docs", "/redoc"):  # FastAPI's pages load scripts of others
        assert client.get(path).status_code == 404


def test_of_many_at_once_none_is_lost_and_few_lie_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0

    class Watching(Inline):
        def ask(self, job: Job) -> Answer:
            nonlocal most
            most = max(most, len(list(job.folder.parents[1].iterdir())) - 1)
            return super().ask(job)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    app = create(Watching(), Settings(queue=150))  # type: ignore[arg-type]

    async def flood() -> list[httpx.Response]:
        app.state.desk.workspace = Workspace(tmp_path)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://toys", timeout=60) as client:
            bodies = [(b"N" if n % 5 == 0 else b"x") * (n + 1) for n in range(160)]
            return await asyncio.gather(*(client.post("/score", content=body) for body in bodies))

    answers = asyncio.run(flood())
    busy = [answer for answer in answers if answer.status_code == 503]
    assert len(busy) == 10
    assert all(answer.headers["retry-after"] for answer in busy)
    for number, answer in enumerate(answers):
        if answer.status_code != 503:
            assert answer.status_code == (422 if number % 5 == 0 else 200)
            assert number % 5 == 0 or answer.json()["score"] == number + 1
    assert 1 <= most <= 16
    app.state.desk.workspace.close()


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on a free port, in a thread of this process."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = create(Inline(), Settings())  # type: ignore[arg-type]
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@everywhere
def test_a_file_that_is_chosen_on_the_page_gets_its_score_and_its_map(
    open_page: Opener, address: str, tmp_path: Path, width: int, scheme: str
) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "scan.png")
    page = open_page(address, width, scheme)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "file"
    page.set_input_files("input[type=file]", tmp_path / "scan.png")
    page.wait_for_selector("#map:not([hidden])")
    assert page.evaluate("document.querySelector('#map').decode().then(() => true)")
    rows = dict(row.split("\t") for row in page.inner_text("#answer").splitlines())
    assert rows["Score"] == str((tmp_path / "scan.png").stat().st_size)
    assert rows["Called"] == "anomalous"
    assert not overflows(page)
    assert "generated <b>images</b>" in page.inner_text(".caveat")


@everywhere
def test_a_word_for_scans_of_another_nature_goes_with_the_file(
    open_page: Opener, address: str, tmp_path: Path, width: int, scheme: str
) -> None:
    (tmp_path / "scan.png").write_bytes(b"a")
    page = open_page(address, width, scheme)
    page.check("#anyway")
    page.set_input_files("input[type=file]", tmp_path / "scan.png")
    page.wait_for_selector("#answer td:text-is('anyway')")
    assert not overflows(page)
