"""Histograms: whole numbers fall into bins of equal chances."""

from __future__ import annotations

import numpy as np
import pytest

from radioloader.overview.charts import histogram, histogram_svg


@pytest.mark.parametrize(("values", "width"), [(200, 4), (64, 1), (65, 2), (10, 1)])
def test_whole_numbers_have_bins_of_as_many_each(values: int, width: int) -> None:
    every = np.repeat(np.arange(-3, values - 3), 10).astype(np.float32)  # each as often
    shares, edges, beyond = histogram([every])
    assert edges[0] == -3.5
    assert np.diff(edges).tolist() == [width] * len(shares)
    assert beyond == 0
    assert len(shares) <= 64
    assert shares[:-1] == pytest.approx(np.full(len(shares) - 1, width / values))  # no comb
    assert shares.sum() == pytest.approx(1)


def test_one_whole_number() -> None:
    shares, edges, _ = histogram([np.full(7, 5, np.float32)])
    assert (shares.tolist(), edges.tolist()) == ([1.0], [4.5, 5.5])
    assert "from 5 to 5; most frequent 5, 100.0% of the voxels" in histogram_svg(shares, edges, "x")


def test_other_numbers_have_64_bins() -> None:
    values = np.linspace(0, 2, 4096, dtype=np.float32)
    shares, edges, _ = histogram([values, np.arange(3, dtype=np.float32)])
    assert len(shares) == 64
    assert edges[[0, -1]] == pytest.approx([0, 2], abs=0.01)


def test_figures_of_whole_numbers_are_whole() -> None:
    text = str(histogram_svg(*histogram([np.arange(10, dtype=np.float32)])[:2], "x"))
    assert [part.split("<")[0] for part in text.split('">') if part[0].isdigit()] == ["0", "2", "4", "7", "9"]
