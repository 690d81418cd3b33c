"""A real browser: the system's Chromium, driven by Playwright (`pip install -e '.[browser]'`)."""

import shutil
import time
from collections.abc import Callable, Iterator

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """The browser, for all tests of a process."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright; pip install -e '.[browser]'")
    if CHROMIUM is None:
        pytest.skip("no Chromium; install the system's package")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser) -> Iterator[Callable]:
    """Opens a file; at the end there must have been no error on the console, and nothing from elsewhere."""
    complaints, pages = [], []

    def open_page(path, **options):
        page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}, **options})
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if _is_elsewhere(request.url) else None)
        start = time.perf_counter()
        page.goto(path.as_uri())
        page.seconds = time.perf_counter() - start
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


def _is_elsewhere(url: str) -> bool:
    return not url.startswith(("file:", "data:"))
