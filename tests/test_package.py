"""What is shipped: files of wheel and sdist, their metadata, links, the reference."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import clinfer
import clinfer.cache
import clinfer.ort

ROOT = Path(__file__).resolve().parent.parent
HOOKS = ".pre-commit-hooks.yaml"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\((?!\w+:)([^)#\s]*)(#[^)\s]*)?\)")
CODE = re.compile(r"^```.*?^```|^ {4}.*?$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    pytest.importorskip("hatch_fancy_pypi_readme")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Iterator[zipfile.ZipFile]:
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return message_from_bytes(wheel.read(_only(wheel.namelist(), "/METADATA")))


def test_wheel_has_the_licence_and_only_the_packages(wheel: zipfile.ZipFile) -> None:
    text = wheel.read(_only(wheel.namelist(), ".dist-info/licenses/LICENSE"))
    assert text == (ROOT / "LICENSE").read_bytes()
    tops = {name.partition("/")[0].partition("-")[0] for name in wheel.namelist()}
    assert tops == {"clinfer", "clinfer_kernels"}


def test_metadata_names_licence_and_version(metadata: Message) -> None:
    assert metadata["Version"] == clinfer.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Requires-Python"] == ">=3.10"
    assert not metadata.get_all("Project-URL")


def test_description_has_no_link_that_leads_nowhere(metadata: Message) -> None:
    description = metadata.get_payload()
    assert isinstance(description, str)
    assert "docs/porting.md" in description
    assert not LINK.findall(description)


def test_source_distribution_has_what_its_readme_links_to(built: Path) -> None:
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in (
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "mkdocs.yml",
        HOOKS,
    ):
        assert wanted in names
    linked = {target for target, _ in _links(ROOT / "README.md")}
    assert linked and linked <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    gone = [target for target, _ in _links(page) if target and not (page.parent / target).exists()]
    assert not gone


def test_reference_has_every_public_name() -> None:
    lines = "".join(page.read_text() for page in ROOT.glob("docs/reference/*.md"))
    documented = {
        dotted.rpartition(".")[2] for dotted in re.findall(r"^::: ([\w.]+)$", lines, re.MULTILINE)
    }
    public = {*clinfer.__all__, *clinfer.cache.__all__, *clinfer.ort.__all__} - {"__version__"}
    assert public <= documented, sorted(public - documented)


def _links(page: Path) -> list[tuple[str, str]]:
    return LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))


def _only(names: list[str], ending: str) -> str:
    (name,) = [name for name in names if name.endswith(ending)]
    return name
