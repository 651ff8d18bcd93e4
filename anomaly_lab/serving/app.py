"""The endpoints: scores and maps of uploads, health, metrics, and a page to drop a file on.

Answers to a wrong request are JSON with `detail`, one sentence. Nothing of an upload is logged, and its folder is gone
when it is answered.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any, BinaryIO, Literal

import psutil
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from anomaly_lab import __version__
from anomaly_lab.reports import html
from anomaly_lab.serving.jobs import MAPS, SCORED, Answer, Job, Wanted
from anomaly_lab.serving.meter import Meter
from anomaly_lab.serving.settings import Settings
from anomaly_lab.serving.uploads import Limits, UploadError, receive
from anomaly_lab.serving.worker import Worker
from anomaly_lab.serving.workspace import Workspace
from anomaly_lab.types import UserError

PLACES = 16  # uploads on the disk at a time; the bodies of all others wait in their connections
GONE = 499  # status of a client that went before its answer
_CHUNK = 2**16
_UPLOAD = {
    "requestBody": {
        "required": True,
        "description": "A picture, a NIfTI or a DICOM file, or as several parts the DICOM files of one series.",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    }
}

logger = logging.getLogger(__name__)


class Desk:
    """Takes uploads in and gives their answers out.

    Args:
        worker: that scores; started and closed with the server.
        settings: of the server.
    """

    def __init__(self, worker: Worker, settings: Settings) -> None:
        self.worker, self.settings, self.meter = worker, settings, Meter()
        self.workspace: Workspace | None = None
        self.waiting = 0
        self._places = asyncio.Semaphore(PLACES)

    async def serve(self, request: Request, wanted: Wanted, anyway: bool) -> Response:
        """Answer a request, and note it."""
        start = time.perf_counter()
        try:
            response = await self._answered(request, wanted, anyway)
            status = response.status_code
        except ClientDisconnect:
            response, status = Response(status_code=400), GONE
        except Exception as error:  # the text of an error could quote a header
            logger.error("a request failed: %s at %s", type(error).__name__, _place(error))
            response = _refusal(500, f"the server failed ({type(error).__name__}); the file was not scored")
            status = 500
        self.meter.note(request.url.path, status, time.perf_counter() - start)
        return response

    async def _answered(self, request: Request, wanted: Wanted, anyway: bool) -> Response:
        if self.waiting >= self.settings.queue:
            return _refusal(503, f"{self.waiting} uploads are waiting; try again later", {"retry-after": "30"})
        if request.headers.get("content-encoding", "identity") != "identity":
            return _refusal(415, "the body is compressed (Content-Encoding); send the file as it is")
        assert self.workspace is not None
        self.waiting += 1
        try:
            async with self._places:
                with self.workspace.upload() as folder:
                    job = Job(folder / "files", wanted, anyway)
                    job.folder.mkdir()
                    await self._receive(request, job)
                    return _response(await run_in_threadpool(self.worker.ask, job), wanted)
        except UploadError as error:
            return _refusal(error.status, str(error))
        except UserError as error:  # the run has been taken away
            return _refusal(503, str(error), {"retry-after": "30"})
        finally:
            self.waiting -= 1

    async def _receive(self, request: Request, job: Job) -> None:
        limits = Limits(int(self.settings.max_mb * 2**20))
        headers = request.headers
        try:
            async with asyncio.timeout(self.settings.upload_timeout):
                await receive(
                    request.stream(),
                    headers.get("content-type", ""),
                    headers.get("content-length"),
                    job.folder,
                    limits,
                )
        except TimeoutError as error:
            seconds = self.settings.upload_timeout
            raise UploadError(
                408, f"the upload took longer than the {seconds:g} s that it may (upload_timeout)"
            ) from error

    def gauges(self) -> dict[str, tuple[str, float]]:
        """Return the present state, for the metrics."""
        own = psutil.Process().memory_info().rss
        return {
            "waiting_requests": ("Uploads that wait or are being scored.", self.waiting),
            "server_memory_bytes": ("Resident memory of the process that talks to the network.", own),
            "scoring_memory_bytes": ("Resident memory of the process that scores.", self.worker.memory()),
            "scoring_restarts": ("How often the process that scores was lost.", self.worker.restarts),
        }


def create(worker: Worker, settings: Settings) -> FastAPI:
    """Return the application.

    Args:
        worker: that scores, started.
        settings: of the server.
    """
    desk = Desk(worker, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        desk.workspace = Workspace()
        try:
            yield
        finally:
            worker.close()
            desk.workspace.close()

    app = FastAPI(title="anomaly_lab", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.desk = desk

    @app.exception_handler(RequestValidationError)
    async def _(_: Request, error: RequestValidationError) -> JSONResponse:
        fault = error.errors()[0]
        return _refusal(422, f"{fault['loc'][-1]}: {fault['msg'][:1].lower()}{fault['msg'][1:]}")

    @app.exception_handler(HTTPException)
    async def _(_: Request, error: HTTPException) -> JSONResponse:
        known = "the paths are /score and /map (POST), /, /health and /metrics (GET)"
        return _refusal(error.status_code, f"{str(error.detail).lower()}: {known}", dict(error.headers or {}))

    @app.post("/score", openapi_extra=_UPLOAD)
    async def score(request: Request, anyway: bool = False) -> Response:
        """Score one scan."""
        return await desk.serve(request, "score", anyway)

    @app.post("/map", openapi_extra=_UPLOAD)
    async def anomaly_map(
        request: Request,
        form: Annotated[Literal["png", "nifti", "dicom"], Query(alias="format")] = "png",
        anyway: bool = False,
    ) -> Response:
        """Return the anomaly map of one scan; its score is in the headers."""
        return await desk.serve(request, form, anyway)

    @app.get("/health")
    async def health() -> JSONResponse:
        """Say that the server is at work, and what it scores with."""
        status = {"status": worker.fault or "ok", "version": __version__, "waiting": desk.waiting}
        return JSONResponse(status | worker.facts, 503 if worker.fault else 200)

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        """Return counts, latencies and memory for Prometheus."""
        return PlainTextResponse(desk.meter.text(desk.gauges()), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        page, policy = _page(worker.facts)  # a process that scores in place of a lost one may have opened another state
        return HTMLResponse(page, headers={"content-security-policy": policy})

    return app


def _response(answer: Answer, wanted: Wanted) -> Response:
    """Return the answer of the worker; a map is opened before its folder is removed, and read while it is sent."""
    if answer.file is None:
        return JSONResponse(answer.content, answer.status)
    said = answer.content
    headers = {"x-score": repr(said["score"]), "x-source": str(said["source"])}
    headers |= {
        f"x-{key.replace('_', '-')}": str(said[key]) for key in ("p_value", "pred_label") if said[key] is not None
    }
    headers["content-length"] = str(answer.file.stat().st_size)
    return StreamingResponse(_chunks(answer.file.open("rb")), SCORED, headers, MAPS[wanted][1])


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": " ".join(reason.split())}, status, headers)


def _place(error: BaseException) -> str:
    """Return where an error was raised, without its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _page(facts: dict[str, Any]) -> tuple[str, str]:
    """Return the page to drop a file on, and the policy that allows its script and style and nothing else."""
    parts = {
        name: files("anomaly_lab.serving").joinpath(name).read_text(encoding="utf-8")
        for name in ("drop.js", "drop.css.j2")
    }
    script, style = parts["drop.js"], parts["drop.css.j2"]
    page = (
        html.environment("serving")
        .get_template("drop.html.j2")
        .render(facts=facts, script=Markup(script), style=Markup(style))
    )
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; connect-src 'self'; "
        "img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
