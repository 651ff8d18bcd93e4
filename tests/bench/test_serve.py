"""The load on a server: what is sent, and what is counted."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from anomaly_lab.bench import serve

ANSWERS = b"""anomaly_lab_server_memory_bytes 1048576
anomaly_lab_scoring_memory_bytes 2097152
anomaly_lab_scoring_restarts 0
"""


def test_every_fifth_request_is_bad_in_every_way() -> None:
    sent = serve.requests(70, seed=0)
    kinds = Counter(one.kind for one in sent)
    assert kinds.pop("picture") == 56
    assert len(kinds) == 7
    assert set(kinds.values()) == {2}
    assert all((one.right == {200}) == (one.kind == "picture") for one in sent)
    assert all(len(one.body) < 200_000 for one in sent)


def test_answers_are_counted_and_those_that_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers by the first byte: P(ng) 200, empty 400, and hangs up on the rest."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.rpartition(b"content-length: ")[2])
        body = await reader.readexactly(length)
        if body.startswith(b"\x89PNG") or not body:
            content = json.dumps({"score": 1.0}).encode()
            writer.write(b"HTTP/1.1 %d x\r\n\r\n" % (200 if body else 400) + content)
        writer.close()

    flood = serve._flood

    async def with_server(url: str, sent: list[serve.Sent]) -> list[serve.Answered]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await flood(f"http://127.0.0.1:{port}", sent)

    monkeypatch.setattr(serve, "_flood", with_server)
    lines = (line.split() for line in ANSWERS.decode().splitlines())
    gauges = {name: float(value) for name, value in lines}
    monkeypatch.setattr(serve, "gauges", lambda url: gauges)
    found = serve.measure("http://127.0.0.1:1", serve.requests(35, seed=0))
    # 28 pictures are scored; of 7 bad ones so are two PNGs (wrong), the empty one is refused (right), 4 are hung up on
    assert (found["scored"], found["lost"], found["wrong status"]) == (30, 4, 6)
    assert found["scoring, MB after"] == 2


@pytest.mark.slow
def test_a_server_loses_nothing(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from anomaly_lab.bench import serve
serve.REQUESTS, serve.ROUNDS = 150, 1
serve.main(Path({str(tmp_path / "bench.json")!r}))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    (found,) = json.loads((tmp_path / "bench.json").read_text())["rounds"]
    assert (found["lost"], found["wrong status"], found["scored"], found["restarts"]) == (0, 0, 120, 0)
