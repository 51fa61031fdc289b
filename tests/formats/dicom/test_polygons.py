"""Polygons to pixels, against the same rule applied to each pixel on its own, and against areas that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader.formats.dicom.polygons import even_odd
from tests.formats.dicom.structures import brute_force

SHAPE = (9, 7)
# Eighths: every product and quotient that decides is exact or far from a tie, and many vertices lie on centres.
places = st.integers(-24, 96).map(lambda n: n / 8)
polygons = st.lists(st.tuples(places, places), min_size=1, max_size=9)


def mask_of(polygon: Any, shape: tuple[int, int] = SHAPE) -> Any:
    x, y, inside = even_odd(np.asarray(polygon, np.float64), shape)
    mask = np.zeros(shape, np.bool_)
    mask[x, y] = inside
    return mask


@given(polygon=polygons)
def test_equals_the_rule_applied_to_each_pixel(polygon: list[tuple[float, float]]) -> None:
    assert np.array_equal(mask_of(polygon), brute_force([polygon], SHAPE))


@given(polygon=polygons, start=st.integers(0, 8))
def test_where_it_begins_and_which_way_it_runs_change_nothing(polygon: list[tuple[float, float]], start: int) -> None:
    turned = np.roll(np.asarray(polygon), start, axis=0)
    assert np.array_equal(mask_of(turned), mask_of(polygon))
    assert np.array_equal(mask_of(turned[::-1]), mask_of(polygon))


@given(data=st.data(), angle=st.floats(0, 6.28), scale=st.floats(0.5, 3))
@settings(max_examples=50)
def test_triangles_of_a_mesh_share_no_pixel_and_leave_none_out(data: st.DataObject, angle: float, scale: float) -> None:
    # A fan around a point, turned by any angle; the whole is the outline of all.
    count = data.draw(st.integers(3, 9))
    turns = np.linspace(0, 2 * np.pi, count, endpoint=False) + angle
    rim = np.column_stack([np.cos(turns), np.sin(turns)]) * scale + (4, 3)
    centre = np.array([4.0, 3.0])  # a pixel's own centre
    parts = [mask_of([centre, rim[i], rim[(i + 1) % count]]) for i in range(count)]
    assert np.array_equal(np.sum(parts, axis=0), mask_of(rim).astype(int))
    assert sum(part[4, 3] for part in parts) == 1


def test_squares_through_centres_partition_the_plane() -> None:
    whole = np.zeros(SHAPE, int)
    for x in range(-1, 9):
        for y in range(-1, 7):
            whole += mask_of([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)])
    assert (whole == 1).all()


def test_the_side_of_larger_coordinates_owns_an_edge() -> None:
    square = mask_of([(2, 1), (5, 1), (5, 4), (2, 4)])
    expected = np.zeros(SHAPE, np.bool_)
    expected[2:5, 1:4] = True
    assert np.array_equal(square, expected)


def test_vertices_that_rounding_moved_off_a_centre_are_on_it() -> None:
    square = np.array([(2, 1), (5, 1), (5, 4), (2, 4)], np.float64)
    for change in (-1e-9, 1e-9):
        assert np.array_equal(mask_of(square + change), mask_of(square))
    # An edge through centres, whose ends lie elsewhere
    slope = np.array([(0.5, 0.5), (6.5, 6.5), (0.5, 6.5)])
    for change in (-1e-9, 1e-9):
        assert np.array_equal(mask_of(slope + np.array([change, 0.0])), mask_of(slope))


def test_bow_tie_and_star_are_even_odd() -> None:
    turns = np.pi / 2 + np.arange(5) * 4 * np.pi / 5
    star = np.column_stack([np.cos(turns), np.sin(turns)]) * 30 + 32.03
    mask = mask_of(star, (64, 64))
    assert not mask[32, 32]  # its middle is enclosed twice
    assert mask[32, 55]
    assert np.array_equal(mask, brute_force([star], (64, 64)))


def test_area_of_a_circle() -> None:
    turns = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    mask = mask_of(np.column_stack([np.cos(turns), np.sin(turns)]) * 80.3 + 100.17, (200, 200))
    x, y = np.mgrid[:200, :200]
    distance = np.hypot(x - 100.17, y - 100.17)
    assert mask[distance < 80.2].all()
    assert not mask[distance > 80.31].any()
    assert mask.sum() == pytest.approx(np.pi * 80.3**2, rel=2e-3)


@pytest.mark.parametrize(
    "polygon", [[(3, 3)], [(1, 1), (5, 5)], [(1, 2), (4, 2), (7, 2)], [(40, 40), (50, 40), (50, 50)]]
)
def test_what_encloses_nothing_gives_nothing(polygon: Any) -> None:
    assert not mask_of(polygon).any()


def test_what_reaches_beyond_the_image_is_cut_off() -> None:
    assert mask_of([(-1e6, -1e6), (1e6, -1e6), (1e6, 1e6), (-1e6, 1e6)]).all()
    left = mask_of([(-50, -50), (3.5, -50), (3.5, 50), (-50, 50)])
    assert left[:4].all()
    assert not left[4:].any()
