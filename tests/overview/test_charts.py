"""Histograms: whole numbers fall into bins of equal chances."""

from __future__ import annotations

import numpy as np
import pytest

from radioloader.overview.charts import histogram, histogram_svg


@pytest.mark.parametrize(("values", "width"), [(200, 4), (64, 1), (65, 2), (10, 1)])
def test_whole_numbers_have_bins_of_as_many_each(values: int, width: int) -> None:
    every = np.repeat(np.arange(-3, values - 3), 10).astype(np.float32)  # each as often
    shares, edges, beyond, outside = histogram([every])
    assert edges[0] == -3.5
    assert np.diff(edges).tolist() == [width] * len(shares)
    assert (beyond, outside) == (0, (0, 0))
    assert len(shares) <= 64
    assert shares[:-1] == pytest.approx(np.full(len(shares) - 1, width / values))  # no comb
    assert shares.sum() == pytest.approx(1)


def test_one_whole_number() -> None:
    shares, edges, *_ = histogram([np.full(7, 5, np.float32)])
    assert (shares.tolist(), edges.tolist()) == ([1.0], [4.5, 5.5])
    assert "from 5 to 5; most frequent 5, 100.0% of the voxels" in histogram_svg(shares, edges, "x")


def test_other_numbers_have_64_bins() -> None:
    values = np.linspace(0, 2, 4096, dtype=np.float32)
    shares, edges, *_ = histogram([values, np.arange(3, dtype=np.float32)])
    assert len(shares) == 64
    assert edges[[0, -1]] == pytest.approx([0, 2], abs=0.01)


def test_figures_of_whole_numbers_are_whole() -> None:
    text = str(histogram_svg(*histogram([np.arange(10, dtype=np.float32)])[:2], "x"))
    assert [part.split("<")[0] for part in text.split('">') if part[0].isdigit()] == ["0", "2", "4", "7", "9"]


def test_what_is_beyond_the_axis_is_not_told_as_the_most_frequent() -> None:
    usual = [np.repeat(np.arange(10), np.arange(10, 20)).astype(np.float32) + 0 * n for n in range(3)]  # 9 most often
    far = [np.full(50, 5000 + n, np.float32) for n in range(2)]
    shares, edges, beyond, outside = histogram([*usual, *far])
    assert (edges[0], edges[-1], beyond) == (-0.5, 9.5, 2)
    assert outside == pytest.approx((0, 0.4))
    assert shares[-1] == pytest.approx(0.4 + 0.6 * 19 / 145)
    low = histogram_svg(shares[::-1], -edges[::-1], "x", outside[::-1])
    assert "most frequent -9, 7.9% of the voxels" in low
    shares[0] = 0.1
    assert "most frequent 0, 10.0% of the voxels" in histogram_svg(shares, edges, "x", outside)


@pytest.mark.parametrize("values", [[1e307, 1e307], [-1.7e308, 1.7e308, 3.0], [2.0**60, 2.0**60 + 4096]])
def test_the_largest_numbers(values: list[float]) -> None:
    shares, edges, _, outside = histogram([np.array(values)])
    assert shares.sum() == pytest.approx(1)
    assert np.all(np.diff(edges) > 0)
    assert "nan" not in histogram_svg(shares, edges, "x", outside)
