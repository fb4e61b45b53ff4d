"""The status page: what it says, that nothing is taken for HTML, and that a browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import httpx
import numpy as np
import pytest

from api.made import dense_model
from serve.conftest import LIMIT, place

ODD = "<script>alert(1)<|script>&'\""
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--enable-logging=stderr",
]


@pytest.fixture
def running(serve, tmp_path):
    """A server with a model of an odd name, one that does not load, and some requests."""
    root = tmp_path / "models"
    place(root, ODD, dense_model(), config={"max_batch_size": 8, "dynamic_batching": {}})
    place(root, "dense", dense_model(), version=3)
    place(root, "broken", dense_model()).write_bytes(b"nothing")
    running = serve(root, keep_going=True)
    item = {"name": "x", "shape": [2, 24], "datatype": "FP32", "data": [0.5] * 48}
    for _ in range(5):
        answer = httpx.post(f"{running.url}/v2/models/dense/infer", json={"inputs": [item]})
        assert answer.status_code == 200
    return running


class Table(HTMLParser):
    """The texts of a page's cells, by the id of their table, row by row; every tag that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: set[str] = set()
        self._rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "table":
            self._rows = self.tables.setdefault(dict(attrs)["id"], [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        if tag == "table":
            self._rows = []

    def handle_data(self, data):
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] += data.strip()


def check(text: str) -> None:
    page = Table(text)
    assert "script" not in page.tags
    rows = {(row[0], row[1]): row for row in page.tables["repository"][1:]}
    assert rows["dense", "3"][2] == "READY"
    assert rows[ODD, "1"][2] == "READY"
    assert rows["broken", ""][2] == "UNAVAILABLE"
    served = {row[0]: row for row in page.tables["served"][1:]}
    assert served["dense"][2:4] == ["1 on CPU", "off"]
    assert served[ODD][3] == "up to 8"
    assert served["dense"][7] == "5"
    assert re.fullmatch(r"CPU: complete, (\d+) of \1 entries", served["dense"][8])
    assert page.tables["devices"][1][0] == "CPU"
    assert page.tables["caches"][1][1].isdecimal()
    assert page.tables["errors"][1][1] == "loading broken"


def test_the_page_says_what_is_there_and_escapes_it(running):
    answer = httpx.get(running.url)
    check(answer.text)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["cache-control"] == "no-store"
    assert len(re.findall("<rect ", answer.text)) == 2 * 18
    assert re.search("up to [0-9.]+ s: [1-5]<", answer.text)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_shows_it_and_refuses_nothing_of_it(running, tmp_path):
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'user'}"]
    shown = subprocess.run(
        [*command, "--dump-dom", running.url], capture_output=True, text=True, timeout=LIMIT
    )
    check(shown.stdout)
    assert "Content Security Policy" not in shown.stderr
    picture = tmp_path / "page.png"
    subprocess.run(
        [*command, f"--screenshot={picture}", "--window-size=1200,900", running.url],
        capture_output=True,
        check=True,
        timeout=LIMIT,
    )
    from PIL import Image

    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 20  # the style has been taken
