"""The pictures of the benchmarks, from their JSON. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLOURS = {
    "clinfer-cpu": "#1b6ca8",
    "clinfer-pocl": "#1b6ca8",
    "clinfer-intel": "#123f66",
    "clinfer-gpu": "#6aaed6",
    "onnxruntime": "#b0b0b0",
    "openvino": "#7b61a8",
    "tinygrad": "#d08c4a",
}


def startup_pictures(document: dict[str, Any], folder: Path) -> None:
    """Load time without and with cache; read_model + compile_model against compile_model(path)."""
    folder.mkdir(parents=True, exist_ok=True)
    models = document["models"]
    _bars(
        models,
        (("load_cold", "no cache"), ("load_warm_path", "cache")),
        "Load time: without cache, with cache",
        folder / "load_time.png",
    )
    _bars(
        models,
        (
            ("load_warm_model", "read_model + compile_model"),
            ("load_warm_path", "compile_model(path)"),
        ),
        "Load time with a warm cache: through read_model, through the path",
        folder / "model_or_path.png",
    )


def _bars(
    models: dict[str, Any], measures: tuple[tuple[str, str], ...], title: str, file: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(models), figsize=(3.4 * len(models) + 0.8, 3.6), squeeze=False
    )
    for axis, (name, results) in zip(axes[0], models.items(), strict=True):
        position = 0.0
        ticks: list[tuple[float, str]] = []
        for runtime, found in results.items():
            shown = [(label, found[key]) for key, label in measures if key in found]
            if not shown:
                continue
            for number, (_label, seconds) in enumerate(shown):
                last = number == len(shown) - 1 and len(shown) > 1
                axis.barh(
                    position,
                    seconds * 1e3,
                    0.8,
                    color=COLOURS[runtime],
                    alpha=1.0 if last else 0.45,
                )
                axis.text(seconds * 1e3, position, f" {seconds * 1e3:.0f}", va="center", fontsize=8)
                ticks.append((position, f"{runtime}\n{_label}" if len(shown) > 1 else runtime))
                position += 0.9
            position += 0.5
        axis.set_yticks([p for p, _ in ticks], [t for _, t in ticks], fontsize=7)
        axis.invert_yaxis()
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter("")
        axis.set_xlim(right=axis.get_xlim()[1] * 3)
        axis.set_xlabel("ms (log scale)", fontsize=8)
        axis.set_title(name, fontsize=10)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def peers_picture(document: dict[str, Any], file: Path) -> None:
    """Run time of every model relative to the faster of the two peers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = document["models"]
    runtimes = [r for r in COLOURS if any(r in found for found in models.values())]
    figure, axis = pyplot.subplots(figsize=(9, 4))
    width = 0.8 / len(runtimes)
    for number, runtime in enumerate(runtimes):
        places, heights = [], []
        for place, found in enumerate(models.values()):
            best = min(found[r]["median"] for r in ("onnxruntime", "openvino") if r in found)
            if runtime in found:
                places.append(place + (number - (len(runtimes) - 1) / 2) * width)
                heights.append(found[runtime]["median"] / best)
        axis.bar(places, heights, width, color=COLOURS[runtime], label=runtime)
    axis.axhline(1, color="black", linewidth=0.8)
    axis.set_xticks(range(len(models)), list(models), rotation=30, ha="right", fontsize=8)
    axis.set_ylabel("time / the faster peer's")
    axis.legend(fontsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    pyplot.close(figure)
