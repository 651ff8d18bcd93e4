import http.client
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from browser import everywhere, overflows
from dashboard_runs import add_run

from anomaly_lab.dashboard import server as module
from anomaly_lab.dashboard.server import Board, Server
from anomaly_lab.experiment.locks import lock
from anomaly_lab.types import UserError


@pytest.fixture
def server(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    (place / "vae_set/0/report.html").write_text("<title>VAE</title><script>document.title = parent.length</script>")
    with Server(Board(place), 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Answer:
    """What the server said."""

    def __init__(self, server: Server, path: str, method: str = "GET", **headers: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        self.status, self.headers, self.text = answer.status, answer.headers, answer.read().decode(errors="replace")
        connection.close()

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def test_the_page_is_served_with_what_protects_it(server: Server):
    page = Answer(server, "/")
    assert page.status == 200
    assert "connect-src 'self'" in page.text
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert "Access-Control-Allow-Origin" not in page.headers
    head = Answer(server, "/", "HEAD")
    assert (head.status, head.text, head.headers["Content-Length"]) == (200, "", str(len(page.text.encode())))


def test_it_answers_this_machine_alone(server: Server):
    assert server.server_address[0] == "127.0.0.1"


HOSTS = ("evil.example", "evil.example:{}", "127.0.0.1", "127.0.0.1:1", "", "localhost.evil.example:{}")


def test_a_request_under_another_name_is_refused(server: Server):
    for host in HOSTS:
        answer = Answer(server, "/", Host=host.format(server.server_port))
        assert answer.status == 421
        assert "vae_set" not in answer.text
    assert Answer(server, "/", Host=f"localhost:{server.server_port}").status == 200


def test_nothing_can_be_changed(server: Server):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        answer = Answer(server, "/vae_set/0/report.html", method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_another_page_may_not_ask(server: Server):
    assert Answer(server, "/.api/changes?since=0", Sec_Fetch_Site="cross-site").status == 403
    assert Answer(server, "/.api/changes?since=0", Sec_Fetch_Site="same-origin").status == 200


def test_reports_are_served_in_an_origin_of_their_own_without_network(server: Server):
    report = Answer(server, "/vae_set/0/report.html")
    assert (report.status, report.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert report.text.startswith("<title>VAE</title>")
    policy = report.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none';")
    assert "allow-same-origin" not in policy
    assert Answer(server, "/vae_set/0/samples/00000010.png").headers["Content-Type"] == "image/png"


ADDRESSES = (
    "/vae_set/0/../../../secret.html", "/..%2f..%2fsecret.html", "/vae_set/0/%2e%2e/%2e%2e/%2e%2e/secret.html",
    "//etc/passwd", "/vae_set/0/config.yaml", "/vae_set/0/provenance.json", "/vae_set/0/scores.csv", "/.index.sqlite",
    "/vae_set/0/.hidden/report.html", "/vae_set/0/link.html", "/vae_set/0/outside/secret.html", "/secret.html",
    "/vae_set/0/pipe.png", "/vae_set/0/report.html%00.png", "/vae_set/0/..\\..\\secret.html", "/vae_set", "/vae_set/0/",
    "/vae_set/0/samples", "/evaluated.json", "/%ff%fe", "/no/such/report.html", "/.api/", "/.api/compare", "/page.html",
)  # fmt: skip


def test_nothing_else_is_served(server: Server, place: Path):
    for secret in (place.parent / "secret.html", place / "secret.html"):
        secret.write_text("SECRET")
    (place / "page.html").write_text("SECRET")
    run = place / "vae_set/0"
    (run / "link.html").symlink_to(place.parent / "secret.html")
    (run / "outside").symlink_to(place.parent)
    (run / ".hidden").mkdir()
    (run / ".hidden/report.html").write_text("SECRET")
    os.mkfifo(run / "pipe.png")
    for address in ADDRESSES:
        answer = Answer(server, address)
        assert answer.status in (400, 404), address
        assert "SECRET" not in answer.text, address


def test_two_runs_are_compared_as_in_the_file(server: Server):
    told = Answer(server, "/.api/compare?run=vae_set/0&run=vae_set/wide").json
    assert [test[:3] for test in told["tests"]] == [["vae_set/0", "vae_set/wide", 60]]
    assert {*told["curves"]} == {*told["configs"]} == {"vae_set/0", "vae_set/wide"}
    assert len(told["galleries"][0]["strips"]) == 2
    assert Answer(server, "/.api/compare?run=vae_set/0&run=../secret").status == 404
    assert Answer(server, "/.api/compare?" + "&".join(f"run={i}" for i in range(200))).status == 400


def test_changes_are_what_has_changed(server: Server, place: Path):
    everything = Answer(server, "/.api/changes?since=0").json
    assert (len(everything["rows"]), everything["whole"]) == (7, True)
    since = everything["version"]
    assert Answer(server, f"/.api/changes?since={since}").json == {
        "version": since,
        "whole": False,
        "rows": [],
        "gone": [],
    }
    with (place / "pca_set/stopped/metrics.jsonl").open("a") as file:
        file.write('{"iteration": 90, "train/loss": 0.1}\n')
    shutil.rmtree(place / "vae_set/2")
    with lock(place / "pca_set/stopped/.lock"):
        news = Answer(server, f"/.api/changes?since={since}").json
    assert [row[:2] for row in news["rows"]] == [["pca_set/stopped", "running"]]
    assert (news["gone"], "groups" in news) == (["vae_set/2"], False)
    add_run(place, "vae_set/new", 1.0, 4)
    assert "groups" in Answer(server, f"/.api/changes?since={news['version']}").json
    assert Answer(server, "/.api/changes?since=-1").json["whole"]
    assert Answer(server, "/.api/changes?since=" + "9" * 400).json["whole"]


def test_a_folder_that_is_gone_for_a_while_ends_nothing(server: Server, place: Path):
    place.rename(place.parent / "away")
    assert Answer(server, "/").status == 200
    (place.parent / "away").rename(place)
    assert len(Answer(server, "/.api/changes?since=0").json["rows"]) == 7


def test_what_is_no_request_ends_nothing(server: Server):
    for rubbish in (
        b"\x00\xff\n\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
            connection.sendall(rubbish)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    assert Answer(server, "/").status == 200


def test_a_port_that_is_taken_is_said_in_one_line(server: Server, place: Path):
    with pytest.raises(UserError, match=f"port {server.server_port} cannot be used: .*; choose another one: port=…"):
        Server(server.board, server.server_port)


# In the browser ------------------------------------------------------------------------------------------------------


@everywhere
def test_a_running_run_is_followed(server: Server, place: Path, open_page: Callable[..., Any], width: int, scheme: str):
    run = place / "pca_set/stopped"
    with lock(run / ".lock"):
        tab = open_page(server.address, width, scheme)
        tab.wait_for_selector("#body .state.running svg")
        assert "70 of 100" in tab.inner_text("#body")
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"iteration": 90, "train/loss": 0.1, "val/score": 2.0}\n')
        tab.wait_for_selector("#body >> text=90 of 100")
    tab.wait_for_selector("#body .state.stopped")
    assert not overflows(tab)


@pytest.mark.slow
def test_the_served_page_compares_any_runs_and_opens_reports(server: Server, open_page: Callable[..., Any]):
    tab = open_page(server.address)
    for path in ("vae_set/0", "vae_set/1"):
        tab.check(f"[data-path='{path}']")
    tab.click("#start")
    tab.wait_for_selector("#result section:nth-of-type(5)")
    assert "detector.width" not in tab.inner_text(".differs")
    assert tab.locator(".tests tbody tr").count() == 1
    tab.click("#return")
    tab.click("#body a[href='./vae_set/0/report.html']")
    tab.wait_for_url(f"{server.address}/{quote('vae_set/0/report.html')}")
    assert tab.evaluate("origin") == "null"  # of its own
