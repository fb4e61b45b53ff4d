"""Pages of the site that lie beside docs/: README, CHANGELOG and the like; a hook of mkdocs.

Their links are relative to the repository's root: into docs/ they become links of the site, to each
other too, and what the site does not have (`examples/`, `tests/`) is named instead of linked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?!\w+:|#)(?P<target>[^)#]+)(?P<anchor>#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages; called by mkdocs with the files of docs/."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_LINK.sub(_of_the_site, text)))
    return files


def on_page_markdown(markdown: str, **_page: Any) -> str:
    """A page of docs/ names files of the repository instead of linking to them."""
    return _LINK.sub(_without_outside, markdown)


def _of_the_site(match: re.Match[str]) -> str:
    target = match["target"]
    page = PAGES.get(target) or (target[5:] if target.startswith("docs/") else None)
    if page is None:
        return match["text"]
    return f"[{match['text']}]({page}{match['anchor'] or ''})"


def _without_outside(match: re.Match[str]) -> str:
    return match["text"] if match["target"].startswith("../") else match[0]
