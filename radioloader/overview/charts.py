"""Charts as inline SVG, in the page's own colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from radioloader.overview.outliers import FAR, robust_z
from radioloader.overview.wording import figure

__all__ = ["histogram", "histogram_svg", "share_svg"]

_BINS = 64
_LARGEST = 4e307
"""Of values: the distance of any two, and twice that, are numbers still."""
_WHOLE = 2.0**50
"""Up to which halves between whole numbers are exact."""
_WIDTH, _HEIGHT = 640, 150
_EDGE = 0.03
"""Share of the axis at its ends where a figure in the middle of its mark would stick out."""
_TAIL = 0.1
"""Percent of the values at each end that the axis may leave out: one bright voxel would else be all that is seen."""


def histogram(
    samples: Sequence[npt.NDArray[np.floating[Any]]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int, tuple[float, float]]:
    """Shares (bins,) of the values of several volumes, each of the same weight, the edges (bins + 1,) of their bins, how many volumes
    the edges are not made for, because their values lie far from all others', and the shares of the values below and above the edges.

    There are 64 bins; where all values are whole numbers, at most 64, each of the same whole number of them, with edges halfway between
    two: else one bin would hold one of them more than the next. Values beyond the edges, 0.1 percent at each end at most of the volumes
    that the edges are made for, are counted in the outer bins.

    Args:
        samples: (n,) values of each volume.
    """
    filled = [np.clip(sample.astype(np.float64), -_LARGEST, _LARGEST) for sample in samples if sample.size]
    if not filled:
        return np.zeros(_BINS), np.linspace(0, 1, _BINS + 1), 0, (0.0, 0.0)
    ends = np.array([np.percentile(sample, [_TAIL, 100 - _TAIL]) for sample in filled])
    floor = max(0.1 * float(np.median(ends[:, 1] - ends[:, 0])), 1e-300)
    far = np.abs(np.stack([robust_z(column, floor)[1] for column in ends.T]))
    like: npt.NDArray[np.bool_] = np.all(far <= FAR, axis=0)
    pooled = np.concatenate([sample for sample, usual in zip(filled, like, strict=True) if usual] or filled)
    low, high = np.percentile(pooled, [_TAIL, 100 - _TAIL])
    if max(abs(low), abs(high)) < _WHOLE and all((sample == np.rint(sample)).all() for sample in filled):
        low, high = np.floor(low), np.ceil(high)
        width = np.ceil((high - low + 1) / _BINS)
        edges = low - 0.5 + width * np.arange(np.ceil((high - low + 1) / width) + 1)
    else:
        if high - low <= 1e-12 * abs(low):  # no room for as many edges
            margin = max(0.5, 1e-6 * abs(low))
            low, high = low - margin, high + margin
        edges = np.linspace(low, high, _BINS + 1)
    shares, below, above = np.zeros(len(edges) - 1), 0.0, 0.0
    for sample in filled:
        counts, _ = np.histogram(np.clip(sample, edges[0], edges[-1]), edges)
        shares += counts / sample.size
        below += float(np.mean(sample < edges[0])) / len(filled)
        above += float(np.mean(sample > edges[-1])) / len(filled)
    return shares / len(filled), edges, int((~like).sum()), (below, above)


def histogram_svg(
    shares: npt.NDArray[np.float64],
    edges: npt.NDArray[np.float64],
    what: str,
    outside: tuple[float, float] = (0.0, 0.0),
) -> Markup:
    """A histogram. Heights are square roots of shares: a background of half the voxels would else flatten all others.

    Args:
        shares: (bins,) share of each bin.
        edges: (bins + 1,) values.
        what: Whose it is, for screen readers.
        outside: Shares of the values below and above the edges, which the outer bins hold: they are not told as the most frequent.
    """
    top = float(np.sqrt(shares).max()) or 1.0
    width = _WIDTH / len(shares)
    bars = Markup("").join(
        Markup('<rect x="{}" y="{}" width="{}" height="{}"></rect>').format(
            f"{place * width:.1f}", f"{_HEIGHT - height:.1f}", f"{width - 1:.1f}", f"{height:.1f}"
        )
        for place, height in enumerate((np.sqrt(shares) / top * _HEIGHT).tolist())
        if height > 0
    )
    first, last = float(edges[0]), float(edges[-1])
    whole = _is_whole(edges)
    wanted = [first + share * (last - first) for share in (0, 0.25, 0.5, 0.75, 1)]
    marks = sorted({min(max(round(mark), first + 0.5), last - 0.5) for mark in wanted}) if whole else wanted
    ticks = Markup("").join(
        Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
            f"{(mark - first) / (last - first) * _WIDTH:.0f}",
            _HEIGHT + 18,
            "start"
            if (mark - first) / (last - first) < _EDGE
            else "end"
            if (last - mark) / (last - first) < _EDGE
            else "middle",
            figure(mark),
        )
        for mark in marks
    )
    inner = shares.copy()
    inner[0] -= outside[0]
    inner[-1] -= outside[1]
    mode = int(np.argmax(inner))
    # Of whole numbers the first and the last that a bar holds.
    inset = 0.5 if whole else 0.0
    low, high = figure(float(edges[mode]) + inset), figure(float(edges[mode + 1]) - inset)
    said = (
        f"Histogram of {what}, from {figure(first + inset)} to {figure(last - inset)}; most frequent "
        f"{low if low == high else f'{low} to {high}'}, {inner[mode]:.1%} of the voxels"
    )
    return Markup(
        '<svg class="histogram" viewBox="0 0 {} {}" role="img" aria-label="{}">{}<path d="M0 {}H{}"></path>{}</svg>'
    ).format(_WIDTH, _HEIGHT + 24, said, bars, f"{_HEIGHT + 0.5}", _WIDTH, ticks)


def _is_whole(edges: npt.NDArray[np.float64]) -> bool:
    """Whether bins are those of whole numbers, with edges halfway between two."""
    return bool(np.abs(edges).max() < 2 * _WHOLE and (edges - 0.5 == np.rint(edges - 0.5)).all())


def share_svg(share: float, colour: str) -> Markup:
    """A bar of 0 to 1. The figure stands beside it, so that screen readers need none."""
    return Markup(
        '<svg class="share" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect width="100" height="10" '
        'class="rest"></rect><rect width="{}" height="10" fill="{}"></rect></svg>'
    ).format(f"{100 * min(max(share, 0), 1):.2f}", colour)
