"""The wheel holds both packages, whole, and nothing else."""

from __future__ import annotations

import tomllib
import zipfile
from pathlib import Path

import pytest

import detray
from tests.house.source import PACKAGES, ROOT, modules

wheel_builder = pytest.importorskip("hatchling.builders.wheel")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from this tree."""
    builder = wheel_builder.WheelBuilder(str(ROOT))
    built = list(builder.build(directory=str(tmp_path_factory.mktemp("wheel"))))
    return zipfile.ZipFile(built[0])


def test_it_installs_two_packages(wheel: zipfile.ZipFile) -> None:
    """detray and detray_sim, and no package called sim or tests."""
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"detray", "detray_sim"}


def test_it_holds_every_module(wheel: zipfile.ZipFile) -> None:
    """What is in the tree is in the wheel, type marker included."""
    want = {
        path.relative_to(package.parent).as_posix()
        for package in PACKAGES
        for path in [
            *modules(package),
            *package.rglob("*.pyi"),
            *package.rglob("*.html"),
            *package.rglob("*.css"),
            *package.rglob("*.js"),
            package / "py.typed",
        ]
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == want


def test_it_brings_the_command(wheel: zipfile.ZipFile) -> None:
    """The entry point `detray`."""
    entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "detray = detray.cli:main" in wheel.read(entry).decode()


def test_every_dependency_has_a_page() -> None:
    """docs/decisions says why each one was taken."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {line.split(">")[0].split("=")[0] for line in project["dependencies"]}
    pages = " ".join(path.read_text().lower() for path in (ROOT / "docs/decisions").glob("*.md"))
    assert [name for name in sorted(required) if name not in pages] == []


def test_the_version_is_said_once() -> None:
    """`detray.__version__` is the one of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert detray.__version__ == project["version"]
    changelog = Path(ROOT / "CHANGELOG.md").read_text()
    assert f"## {project['version']}" in changelog
