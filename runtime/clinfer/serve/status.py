"""The status page: one document, made here; no script, nothing from elsewhere."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from clinfer import __version__
from clinfer.errors import ClinferError
from clinfer.serve.loading import source_of
from clinfer.serve.models import Models, Version

_STYLE = files("clinfer.serve").joinpath("status.css").read_text("utf-8")
_PAGE = files("clinfer.serve").joinpath("status.html").read_text("utf-8")
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@lru_cache(maxsize=1)
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)


async def page(models: Models) -> str:
    """The page as it is now."""
    versions = models.versions()
    for version in versions:
        if version.coverage is None:
            version.coverage = await asyncio.to_thread(_coverage, models, version)
    return str(
        _template().render(
            style=_STYLE,
            release=__version__,
            ready=models.is_ready,
            index=models.index(),
            versions=[_row(version) for version in versions],
            devices=_devices(versions),
            caches=models.core.cache_statistics(),
            failures=list(models.failures),
        )
    )


def _coverage(models: Models, version: Version) -> str:
    """Whether another start would compile nothing, device by device."""
    found = []
    for model in version.loaded.compiled:
        name = model.device.info.name
        try:
            source = source_of(models.core, version.loaded.path, version.config)
            proof = models.core.coverage(source, name, version.config.properties)
        except ClinferError as error:
            return f"not known: {error}"
        there = proof.needed - len(proof.gaps)
        found.append(f"{name}: {proof.verdict}, {there} of {proof.needed} entries")
    return "; ".join(found)


def _row(version: Version) -> dict[str, Any]:
    counts = version.counts.stages["total"].parts()
    most = max((number for _, number in counts), default=0)
    rules = version.config
    return {
        "name": version.name,
        "number": version.number,
        "instances": ", ".join(
            f"{count} on {model.device.info.name}"
            for model, count in zip(version.loaded.compiled, version.loaded.counts, strict=True)
        ),
        "batching": f"up to {rules.max_batch}" if rules.gathers else "off",
        "waiting": version.scheduler.waiting,
        "coverage": version.coverage,
        "built": sum(model.programs_built for model in version.loaded.compiled),
        "seconds": version.loaded.seconds,
        "requests": sum(number for _, number in counts),
        "bars": [
            {"below": below, "number": number, "height": round(60 * number / most) if most else 0}
            for below, number in counts
        ],
    }


def _devices(versions: list[Version]) -> list[dict[str, Any]]:
    found = {}
    for version in versions:
        for model in version.loaded.compiled:
            info = model.device.info
            found[info.name] = {
                "name": info.name,
                "full": info.full_name,
                "platform": info.platform,
                "driver": info.driver_version,
                "memory": info.global_mem / 2**30,
            }
    return [found[name] for name in sorted(found)]
