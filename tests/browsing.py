"""Fixtures that show the built book to a real browser: the pages, a server on localhost, Chromium, watched visits."""

from __future__ import annotations

import functools
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fmlib.core.errors import FmlibError
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.publishing import build, pdf

HERE = re.compile(r"(http://127\.0\.0\.1:\d+/|file:|data:|blob:|about:)")


class Silent(SimpleHTTPRequestHandler):
    """A handler of requests that does not log them."""

    def log_message(self, *_: object) -> None: ...


@dataclass
class Visit:
    """A page in the browser, what it asked of other machines (refused), and the errors in its console."""

    page: Any
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def refuse(self, route: Any) -> None:
        self.outside.append(route.request.url)
        route.abort()


@pytest.fixture(scope="session")
def site(shared) -> Path:
    """The folder of the pages of the committed book, built as a reader builds them; once for all test processes."""
    place = shared / "site"
    with FileLock(place.with_suffix(".lock")):
        if not (place / "built").exists():
            shutil.rmtree(place, ignore_errors=True)
            build.lay_out(place, Results.open(PUBLISHED / build.SHOWN))
            build.render(place)
            (place / "built").touch()
    return place / "_build" / "html"


@pytest.fixture(scope="session")
def address(site) -> Iterator[str]:
    """Where a server on this machine shows the pages: `http://127.0.0.1:<free port>`."""
    handler = functools.partial(Silent, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium under Playwright; the test is skipped, with the reason, where either is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    try:
        program = pdf.chromium()
    except FmlibError as error:
        pytest.skip(str(error))
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=pdf.as_root())
        yield opened
        opened.close()


@pytest.fixture
def visit(browser) -> Iterator[Any]:
    """A factory of visits: address, width of the window and "light" or "dark" -> `Visit`, once the page has loaded.

    Equations are drawn by then, and requests to other machines refused. Further words go to `new_context`.
    """
    contexts = []

    def open_page(url: str, width: int = 1280, scheme: str = "light", **options: Any) -> Visit:
        height = 844 if width < 600 else 900
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        contexts.append(context)
        made = Visit(context.new_page())
        context.route(lambda address: not HERE.match(address), made.refuse)
        made.page.on("console", lambda line: made.errors.append(line.text) if line.type == "error" else None)
        made.page.on("pageerror", lambda error: made.errors.append(str(error)))
        made.page.goto(url)
        made.page.evaluate("window.MathJax?.startup?.promise.then(() => null)")
        return made

    yield open_page
    for context in contexts:
        context.close()
