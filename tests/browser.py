"""Pages as people use them: in headless Chromium, with mouse and keyboard, at two widths, light and dark.

The fixtures are those of all tests, by conftest.py:

    @everywhere
    def test_sorts(open_page, tmp_path, width, scheme):
        page = open_page(tmp_path / "page.html", width, scheme)

A test fails on a console error, an exception of a script, a request that leaves the machine, a load that failed.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (1280, 390)  # of a desk and of a telephone
SCHEMES = ("light", "dark")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Opener = Callable[..., Any]


def everywhere(test: Any) -> Any:
    """Runs a slow test at both widths and in both colour schemes."""
    for argument, values in {"scheme": SCHEMES, "width": WIDTHS}.items():
        test = pytest.mark.parametrize(argument, values)(test)
    return pytest.mark.slow(test)


def until(page: Any, expression: str, seconds: float = 30) -> None:
    """Wait until an expression of JavaScript is true.

    Playwright's `wait_for_function` asks again from within the page, where the page's own policy forbids `eval`.
    """
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"{expression} is not true after {seconds} s"
        page.wait_for_timeout(20)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser of all browser tests; they are skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if (program := shutil.which("chromium")) is None:
        pytest.skip("no program `chromium` on the PATH: install the system package chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Opener]:
    """Opens a page, a file or an address of this machine, at a width and in a colour scheme."""
    troubles: list[str] = []
    contexts = []

    def opened(address: Path | str, width: int = 1280, scheme: str = "light", scripts: bool = True) -> Any:
        url = address.absolute().as_uri() if isinstance(address, Path) else address
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
        )
        contexts.append(context)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("console", lambda said: said.type == "error" and troubles.append(f"console: {said.text}"))
        page.on("pageerror", lambda error: troubles.append(f"script: {error}"))
        page.on("requestfailed", lambda request: troubles.append(f"not loaded: {request.url[:200]}"))
        page.on("request", lambda request: is_external(request.url) and troubles.append(f"external: {request.url}"))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not troubles, troubles


def is_external(url: str) -> bool:
    """Whether a request leaves this machine."""
    local = ("file:", "data:", "blob:", "about:", "http://127.0.0.1:", "http://127.0.0.1/", "ws://127.0.0.1:")
    return not url.startswith(local)


def overflows(page: Any) -> bool:
    """Whether the page is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth + 1"))
