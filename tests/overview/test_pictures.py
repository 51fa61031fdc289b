"""Pixels of pictures, where they are known."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from radioloader.overview.pictures import CT_WINDOW, PALETTE, class_colours, draw, encode
from radioloader.overview.planes import Plane

ORANGE, BLUE = ((0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9))


def plane(image: object, label: object = None, size: tuple[float, float] = (40.0, 40.0)) -> Plane:
    return Plane("axial", image, label, size, ("R", "L", "A", "P"))  # type: ignore[arg-type]


def pixel(picture: Image.Image, row: int, column: int) -> tuple[int, ...]:
    return picture.getpixel((column, row))  # type: ignore[return-value]


def test_grey_values_are_those_of_the_window() -> None:
    image = np.zeros((4, 4), np.float64)
    image[:, 1], image[:, 2], image[:, 3] = 50, 100, 300
    picture = draw([plane(image)], window=(0.0, 100.0), colours={}, size=200)
    assert picture.size == (200, 200)
    # Between the centres of voxels values are interpolated.
    assert [pixel(picture, 60, column)[0] for column in (10, 74, 124, 190)] == pytest.approx([0, 128, 255, 255], abs=2)


def test_classes_are_filled_and_outlined_in_their_colours() -> None:
    label = np.zeros((10, 10), np.int64)
    label[2:8, 1:5], label[2:8, 5:9] = 1, 70_000
    picture = draw(
        [plane(np.zeros((10, 10)), label)], window=(0, 1), colours={1: PALETTE[0], 70_000: PALETTE[1]}, size=200
    )
    assert pixel(picture, 40, 60) == ORANGE  # the outline
    assert pixel(picture, 90, 60) == tuple(round(0.2 * value) for value in ORANGE)
    assert pixel(picture, 90, 140) == tuple(round(0.2 * value) for value in BLUE)
    assert pixel(picture, 60, 10) == (0, 0, 0)


def test_a_label_alone_is_filled() -> None:
    label = np.ones((10, 10), np.uint8)
    picture = draw([plane(None, label)], window=(0, 1), colours={1: PALETTE[0]}, size=100)
    assert pixel(picture, 30, 30) == ORANGE


def test_letters_of_neighbouring_planes_stay_apart() -> None:
    black = plane(np.zeros((10, 10)))
    picture = np.asarray(draw([black, black], window=(0, 1), colours={}, size=400).convert("L"))
    lit = np.flatnonzero((picture > 0).any(axis=0) & (picture[190:210] > 0).any(axis=0))
    left, right = lit[lit < 400 + 8].max(), lit[lit > 400 + 8].min()  # L of the first plane, R of the second
    assert right - left >= 30  # 8 pixels where the picture is 230 wide


def test_true_proportions() -> None:
    thick = plane(np.zeros((5, 100)), size=(50.0, 100.0))
    picture = draw([thick, plane(np.zeros((10, 10)), size=(20.0, 20.0))], window=(0, 1), colours={}, size=200)
    assert picture.size == (200 + 8 + 40, 100)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_drawn(value: float) -> None:
    draw([plane(np.full((4, 4), value))], window=(0, 1), colours={}, size=64)


def test_the_size_is_kept_to() -> None:
    noise = np.random.default_rng(0).normal(size=(300, 300))
    cut = [plane(noise)] * 3
    sizes = []
    for most in (100_000, 20_000, 5_000):
        data = encode(cut, window=(-2, 2), colours={}, most=most)
        assert data is not None
        assert len(data) <= most
        sizes.append(Image.open(io.BytesIO(data)).size[0])
    assert sizes == sorted(sizes, reverse=True)
    assert encode(cut, window=(-2, 2), colours={}, most=100) is None


def test_colours_begin_anew() -> None:
    colours = class_colours([3, *range(10, 18)])
    assert colours[3] == colours[17] == PALETTE[0]
    assert len(set(PALETTE)) == len(PALETTE)
    assert CT_WINDOW == (-160, 240)
