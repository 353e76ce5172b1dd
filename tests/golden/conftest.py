"""`pytest tests/golden --rewrite` writes what comes out today into the files; review the diff."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write golden files anew instead of comparing"
    )


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    """True if golden files are to be written instead of compared."""
    return bool(request.config.getoption("--rewrite"))
