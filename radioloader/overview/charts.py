"""Charts as inline SVG, in the page's own colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from radioloader.overview.outliers import FAR, robust_z
from radioloader.overview.wording import figure

__all__ = ["histogram", "histogram_svg", "share_svg"]

_BINS = 64
_WIDTH, _HEIGHT = 640, 150
_TAIL = 0.1
"""Percent of the values at each end that the axis may leave out: one bright voxel would else be all that is seen."""


def histogram(
    samples: Sequence[npt.NDArray[np.float32]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int]:
    """Shares (64,) of the values of several volumes, each of the same weight, the edges (65,) of their bins, and how many volumes the
    edges are not made for, because their values lie far from all others'.

    Values beyond the edges, 0.1 percent at each end at most of the volumes that the edges are made for, are counted in the outer bins.

    Args:
        samples: (n,) values of each volume.
    """
    filled = [sample.astype(np.float64) for sample in samples if sample.size]
    if not filled:
        return np.zeros(_BINS), np.linspace(0, 1, _BINS + 1), 0
    ends = np.array([np.percentile(sample, [_TAIL, 100 - _TAIL]) for sample in filled])
    floor = max(0.1 * float(np.median(ends[:, 1] - ends[:, 0])), 1e-300)
    far = np.abs(np.stack([robust_z(column, floor)[1] for column in ends.T]))
    like: npt.NDArray[np.bool_] = np.all(far <= FAR, axis=0)
    pooled = np.concatenate([sample for sample, usual in zip(filled, like, strict=True) if usual] or filled)
    low, high = np.percentile(pooled, [_TAIL, 100 - _TAIL])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    shares = np.zeros(_BINS)
    for sample in filled:
        counts, _ = np.histogram(np.clip(sample, low, high), edges)
        shares += counts / sample.size
    return shares / len(filled), edges, int((~like).sum())


def histogram_svg(shares: npt.NDArray[np.float64], edges: npt.NDArray[np.float64], what: str) -> Markup:
    """A histogram. Heights are square roots of shares: a background of half the voxels would else flatten all others.

    Args:
        shares: (bins,) share of each bin.
        edges: (bins + 1,) values.
        what: Whose it is, for screen readers.
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
    ticks = Markup("").join(
        Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
            f"{share * _WIDTH:.0f}", _HEIGHT + 18, anchor, figure(float(edges[0] + share * (edges[-1] - edges[0])))
        )
        for share, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end"))
    )
    mode = int(np.argmax(shares))
    said = (
        f"Histogram of {what}, from {figure(float(edges[0]))} to {figure(float(edges[-1]))}; most frequent "
        f"{figure(float(edges[mode]))} to {figure(float(edges[mode + 1]))}, {shares[mode]:.1%} of the voxels"
    )
    return Markup(
        '<svg class="histogram" viewBox="0 0 {} {}" role="img" aria-label="{}">{}<path d="M0 {}H{}"></path>{}</svg>'
    ).format(_WIDTH, _HEIGHT + 24, said, bars, f"{_HEIGHT + 0.5}", _WIDTH, ticks)


def share_svg(share: float, colour: str) -> Markup:
    """A bar of 0 to 1. The figure stands beside it, so that screen readers need none."""
    return Markup(
        '<svg class="share" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect width="100" height="10" '
        'class="rest"></rect><rect width="{}" height="10" fill="{}"></rect></svg>'
    ).format(f"{100 * min(max(share, 0), 1):.2f}", colour)
