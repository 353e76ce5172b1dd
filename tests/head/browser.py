"""A real browser without a screen: Debian's chromium and its driver."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SIZE = (1380, 1000)


def reason_for_none() -> str:
    """What is missing; "" if a browser can be had."""
    try:
        import selenium  # noqa: F401  # only whether it is there
    except ModuleNotFoundError:
        return "selenium is not installed"
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(missing)} on this machine" if missing else ""


@contextmanager
def browser(*, dark: bool = False) -> Iterator[Any]:  # Any: selenium is optional
    """A window of its own, with a profile of its own; skips the test where there is none."""
    if reason := reason_for_none():
        pytest.skip(reason)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(prefix="dt-chromium-") as home:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in (
            "--headless=new",
            "--no-sandbox",  # we may be root
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--hide-scrollbars",
            f"--user-data-dir={home}/profile",
            f"--window-size={SIZE[0]},{SIZE[1]}",
            *(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []),
        ):
            options.add_argument(argument)
        options.add_experimental_option("prefs", {"download.default_directory": home})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(
            options=options,
            service=Service(shutil.which("chromedriver"), env={**os.environ, "HOME": home}),
        )
        try:
            driver.set_page_load_timeout(30)
            driver.downloads = Path(home)
            yield driver
        finally:
            driver.quit()
