"""The demo's pictures. Drawn on figures of their own: no pyplot, no global state, no display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radioloader._optional import require
from radioloader.demo.predict import Prediction
from radioloader.demo.speed import Speed

__all__ = ["draw_cohort", "draw_prediction", "draw_speeds", "draw_training"]

_DARK, _LIGHT, _MUTED = "#10141a", "#e8ecf1", "#8b95a3"
_GREY_MATTER, _WHITE_MATTER, _WRONG = "#ffb454", "#59c2ff", "#ff4d5e"
# Plane -> axes drawn to the right and upwards, and the letters at their far ends. Arrays are RAS.
_PLANES = {"axial": (0, 1, "R", "A"), "coronal": (0, 2, "R", "S"), "sagittal": (1, 2, "A", "S")}


def draw_prediction(prediction: Prediction, *, path: Path) -> None:
    """Three planes of one subject: image, true labels, predicted labels, and where the two differ."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    truth = prediction.truth
    inside = np.argwhere(truth > 0)
    low = np.maximum(inside.min(axis=0) - 12, 0)
    high = np.minimum(inside.max(axis=0) + 13, truth.shape)
    centre = np.median(inside, axis=0).astype(int)
    centre[0] += round(14 / prediction.spacing[0])  # beside the midline, where a sagittal slice shows both tissues
    size_mm = (high - low) * np.array(prediction.spacing)
    rows_mm = [size_mm[up] for _, up, *_ in _PLANES.values()]
    width_mm = max(size_mm[0], size_mm[1])
    width = 13.0
    figure = _figure(width, width / 4 / width_mm * sum(rows_mm) + 1.0, _DARK)
    axes = figure.subplots(3, 4, gridspec_kw={"height_ratios": rows_mm})
    colours = ListedColormap([_GREY_MATTER, _WHITE_MATTER])
    peak = np.percentile(prediction.image[truth > 0], 99.5)
    wrong = np.where(prediction.labels != truth, 1, 0)
    layers: list[tuple[str, NDArray[Any] | None, Any, int]] = [
        ("image", None, None, 1),
        ("truth", truth, colours, 2),
        ("prediction", prediction.labels, colours, 2),
        ("where they differ", wrong, ListedColormap([_WRONG]), 1),
    ]
    for row, (plane, (right, up, letter, top)) in enumerate(_PLANES.items()):
        third = 3 - right - up
        cut = [slice(lo, hi) for lo, hi in zip(low, high, strict=True)]
        where: list[Any] = list(cut)
        where[third] = int(centre[third])
        aspect = prediction.spacing[up] / prediction.spacing[right]
        for column, (title, overlay, colormap, top_class) in enumerate(layers):
            ax = axes[row, column]
            view: dict[str, Any] = {"origin": "lower", "aspect": aspect, "interpolation": "nearest"}
            ax.imshow(prediction.image[tuple(where)].T, cmap="gray", vmin=0, vmax=peak, **view)
            if overlay is not None:
                shown = np.ma.masked_equal(overlay[tuple(where)].T, 0)
                ax.imshow(shown, cmap=colormap, vmin=1, vmax=max(top_class, 1) + 1e-6, alpha=0.62, **view)
            ax.set_axis_off()
            if row == 0:
                ax.set_title(title, color=_LIGHT, fontsize=13)
            if column == 0:
                style: dict[str, Any] = {"transform": ax.transAxes, "fontsize": 10, "color": _LIGHT}
                ax.text(0.985, 0.5, letter, ha="right", va="center", **style)
                ax.text(0.5, 0.985, top, ha="center", va="top", **style)
                ax.text(0.02, 0.03, plane, **style)
    scores = "     ".join(f"Dice {name} {value:.3f}" for name, value in prediction.dice.items())
    figure.suptitle(f"{prediction.subject} (simulated, held out)     {scores}", color=_LIGHT, fontsize=14)
    patches = [
        Patch(color=colour, label=name)
        for colour, name in ((_GREY_MATTER, "grey matter"), (_WHITE_MATTER, "white matter"), (_WRONG, "differs"))
    ]
    figure.legend(handles=patches, loc="lower center", ncols=3, frameon=False, labelcolor=_LIGHT, fontsize=11)
    figure.get_layout_engine().set(rect=(0, 0.045, 1, 0.955))
    figure.savefig(path, dpi=100)


def draw_cohort(
    slices: Mapping[str, tuple[NDArray[Any], tuple[float, float], str]], *, test: Sequence[str], path: Path
) -> None:
    """One axial slice of each subject, all at the same scale.

    Args:
        slices: Subject -> slice (X, Y) in RAS axes, its spacing along x and y in mm, and what its file is like.
        test: Subjects that are held out; their names are coloured.
        path: The PNG to write.
    """
    columns = min(7, len(slices))
    rows = -(-len(slices) // columns)
    figure = _figure(1.75 * columns, 2.6 * rows, _DARK)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    half = max(max(s.shape[0] * dx, s.shape[1] * dy) for s, (dx, dy), _ in slices.values()) / 2
    for ax in axes:
        ax.set_axis_off()
    for ax, (subject, (pixels, (dx, dy), caption)) in zip(axes, slices.items(), strict=False):
        x, y = pixels.shape[0] * dx / 2, pixels.shape[1] * dy / 2
        peak = np.percentile(pixels, 99.7)
        ax.imshow(pixels.T, cmap="gray", origin="lower", extent=(-x, x, -y, y), vmin=0, vmax=peak)
        ax.set(xlim=(-0.85 * half, 0.85 * half), ylim=(-half, half))
        held_out = subject in test
        ax.set_title(
            subject + (" (test)" if held_out else ""), color=_WHITE_MATTER if held_out else _LIGHT, fontsize=10, pad=3
        )
        ax.text(0.5, -0.01, caption, transform=ax.transAxes, ha="center", va="top", color=_MUTED, fontsize=8)
    figure.savefig(path, dpi=110)


def draw_training(losses: Sequence[float], val_dice: Sequence[tuple[int, float]], *, path: Path) -> None:
    """Loss of each step, its running mean, and the mean Dice of the validation subjects."""
    figure = _figure(8, 3.4, "white")
    ax = figure.subplots()
    steps = np.arange(1, len(losses) + 1)
    ax.plot(steps, losses, color="#c9d3df", linewidth=1, label="loss of a batch")
    window = max(len(losses) // 15, 1)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    ax.plot(steps[window - 1 :], smooth, color="#1f6feb", linewidth=2, label=f"mean of {window} batches")
    ax.set(xlabel="training step", ylabel="Dice + cross-entropy loss", ylim=(0, None), xlim=(0, len(losses)))
    lines = ax.get_legend_handles_labels()
    if val_dice:
        right = ax.twinx()
        right.plot(*zip(*val_dice, strict=True), "o-", color="#e36209", label="validation Dice (right axis)")
        right.set(ylabel="Dice", ylim=(0, 1))
        right.spines["top"].set_visible(False)
        lines = tuple(a + b for a, b in zip(lines, right.get_legend_handles_labels(), strict=True))
    ax.spines["top"].set_visible(False)
    ax.legend(*lines, frameon=False, loc="upper center", ncols=3, bbox_to_anchor=(0.5, 1.17), fontsize=9)
    figure.savefig(path, dpi=110)


def draw_speeds(speeds: Sequence[Speed], *, path: Path) -> None:
    """Patches per second as bars on a logarithmic axis, the first one highlighted, with the repetitions as dots."""
    figure = _figure(8, 0.55 * len(speeds) + 1.1, "white")
    ax = figure.subplots()
    rows = np.arange(len(speeds))
    rates = [s.patches_per_s for s in speeds]
    low = min(1.0, 10 ** np.floor(np.log10(min(rates))))
    ax.barh(rows, rates, left=0, color=["#1f6feb"] + ["#b6c2cf"] * (len(speeds) - 1), height=0.62)
    for row, speed in zip(rows, speeds, strict=True):
        ax.plot(speed.repetitions, [row] * len(speed.repetitions), ".", color="#24292f", markersize=4, alpha=0.6)
        factor = "" if row == 0 else f"   (radioloader: {rates[0] / speed.patches_per_s:.1f} times as fast)"
        end = max(speed.repetitions) * 1.12
        ax.text(end, row, f"{speed.patches_per_s:.0f}{factor}", va="center", fontsize=10)
    ax.set_yticks(rows, [s.name for s in speeds], fontsize=10)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.set(xlabel="patches per second, image and label (log scale; dots: repetitions)", xlim=(low, max(rates) * 10))
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)


def _figure(width: float, height: float, colour: str) -> Any:
    figure = require("matplotlib.figure", extra="demo")
    return figure.Figure(figsize=(width, height), facecolor=colour, layout="constrained")
