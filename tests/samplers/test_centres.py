"""Patches around chosen voxels: how often which class is in the middle, and what they may read."""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader.errors import ConfigError
from radioloader.samplers.centres import ForegroundPositions, WeightedPositions
from radioloader.samplers.positions import Site, uniform_start
from radioloader.samplers.random import generator
from radioloader.types import Box

Array = np.ndarray[Any, Any]
Triple = tuple[int, int, int]
PATCH = (5, 4, 3)


def stream_of(draw: int, volume: str = "a") -> Callable[..., np.random.Generator]:
    return lambda name, number=None: generator(name, 0, 0, volume, draw if number is None else number)


@pytest.fixture(scope="module")
def label() -> Array:
    """Class 1 has 300 voxels, 2 has 30, 4 has one in a corner; the rest is background."""
    result = np.zeros((16, 14, 12), np.uint8)
    result[3:13, 2:8, 4:9] = 1
    result[5:8, 9:11, 2:7] = 2
    result[15, 13, 11] = 4
    return result


def index_of(label: Array) -> dict[int, tuple[int, Array]]:
    return {int(c): (int((label == c).sum()), np.argwhere(label == c).astype(np.uint16)) for c in np.unique(label)}


def site_of(label: Array) -> Site:
    index = index_of(label)
    return Site(label.shape, (4, 4, 4), "a", foreground=lambda: index)  # type: ignore[arg-type]


def centres(positions: Any, site: Site, draws: int, patch: Triple = PATCH) -> list[Triple]:
    """The middle voxel of each patch."""
    result = []
    for draw in range(draws):
        x, y, z = positions.start(site, patch, draw=draw, stream=stream_of(draw))
        result.append((x + patch[0] // 2, y + patch[1] // 2, z + patch[2] // 2))
    return result


def classes(positions: Any, label: Array, draws: int) -> Counter[int]:
    # Patches of one voxel: none is moved at the border.
    return Counter(int(label[c]) for c in centres(positions, site_of(label), draws, (1, 1, 1)))


def near(found: Counter[int], expected: dict[int, float]) -> None:
    """Each count within 4 standard deviations of its expectation."""
    total = sum(found.values())
    assert set(found) <= {value for value, share in expected.items() if share}
    for value, share in expected.items():
        assert abs(found[value] - share * total) <= 4 * np.sqrt(total * share * (1 - share)) + 1e-9, (value, found)


# Voxels by class: 2688 in all, of which 2357 are background.
BACKGROUND = 2357 / 2688


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        (ForegroundPositions(1.0), {1: 1 / 3, 2: 1 / 3, 4: 1 / 3}),
        (ForegroundPositions(1.0, by="voxel"), {1: 300 / 331, 2: 30 / 331, 4: 1 / 331}),
        (ForegroundPositions(0.0), {0: BACKGROUND, 1: 300 / 2688, 2: 30 / 2688, 4: 1 / 2688}),
        (ForegroundPositions(0.0, otherwise="background"), {0: 1.0}),
        (
            ForegroundPositions(),  # nnU-Net: a third on foreground, the others anywhere
            {
                0: 2 / 3 * BACKGROUND,
                1: 1 / 9 + 2 / 3 * 300 / 2688,
                2: 1 / 9 + 2 / 3 * 30 / 2688,
                4: 1 / 9 + 2 / 3 * 1 / 2688,
            },
        ),
        (  # MONAI's RandCropByPosNegLabel(pos=3, neg=1)
            ForegroundPositions(3 / 4, by="voxel", otherwise="background"),
            {0: 1 / 4, 1: 3 / 4 * 300 / 331, 2: 3 / 4 * 30 / 331, 4: 3 / 4 / 331},
        ),
        (ForegroundPositions(1.0, classes=(2, 4)), {2: 1 / 2, 4: 1 / 2}),
        (ForegroundPositions(1.0, classes=(0, 2)), {0: 1 / 2, 2: 1 / 2}),
        (ForegroundPositions(1.0, by="voxel", classes=(2, 4, 77)), {2: 30 / 31, 4: 1 / 31}),
        # MONAI's RandCropByLabelClasses: class 3 is not there, its share goes to the others.
        (ForegroundPositions(ratios={0: 1, 1: 3, 2: 2}), {0: 1 / 6, 1: 3 / 6, 2: 2 / 6}),
        (ForegroundPositions(ratios={0: 1, 3: 5, 4: 3}), {0: 1 / 4, 4: 3 / 4}),
        (ForegroundPositions(ratios={0: 0, 2: 0.5}), {2: 1.0}),
        # Nothing of what is asked for: anywhere.
        (ForegroundPositions(1.0, classes=(9,)), {0: BACKGROUND, 1: 300 / 2688, 2: 30 / 2688, 4: 1 / 2688}),
        (ForegroundPositions(ratios={3: 1}), {0: BACKGROUND, 1: 300 / 2688, 2: 30 / 2688, 4: 1 / 2688}),
    ],
    ids=repr,
)
def test_how_often_each_class_is_in_the_middle(
    label: Array, positions: ForegroundPositions, expected: dict[int, float], counts: Callable[[int, int], int]
) -> None:
    near(classes(positions, label, counts(1500, 20000)), expected)


def test_every_voxel_of_a_class_is_equally_likely(label: Array, counts: Callable[[int, int], int]) -> None:
    found = Counter(centres(ForegroundPositions(1.0, classes=(2,)), site_of(label), counts(1500, 15000), (1, 1, 1)))
    assert set(found) == {tuple(voxel) for voxel in np.argwhere(label == 2).tolist()}
    expected = sum(found.values()) / 30
    assert sum((n - expected) ** 2 / expected for n in found.values()) < 58.3  # 29 degrees of freedom, 99.9 %


def test_a_volume_without_the_classes_gets_patches_as_uniform_ones_do() -> None:
    empty = np.zeros((16, 14, 12), np.uint8)
    starts = [
        ForegroundPositions(1.0).start(site_of(empty), PATCH, draw=draw, stream=stream_of(draw)) for draw in range(300)
    ]
    assert {(min(axis), max(axis)) for axis in zip(*starts, strict=True)} == {(0, 11), (0, 10), (0, 9)}
    everything = site_of(np.ones((16, 14, 12), np.uint8))
    positions = ForegroundPositions(0.0, otherwise="background")  # there is no background
    assert len({positions.start(everything, PATCH, draw=d, stream=stream_of(d)) for d in range(300)}) > 250
    assert ForegroundPositions(1.0).start(Site((16, 14, 12)), PATCH, draw=0, stream=stream_of(0))  # no index at all


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 15), st.integers(1, 15), st.integers(1, 15)),
    st.integers(0, 10**6),
)
@settings(deadline=None, derandomize=True, max_examples=80)
def test_patches_hold_their_centre_and_lie_inside(shape: Triple, patch: Triple, number: int) -> None:
    voxel = tuple(int(v) for v in np.unravel_index(number % int(np.prod(shape)), shape))
    label = np.zeros(shape, np.uint8)
    label[voxel] = 1
    start = ForegroundPositions(1.0).start(site_of(label), patch, draw=number, stream=stream_of(number))
    for first, c, n, size in zip(start, voxel, shape, patch, strict=True):
        if size > n:
            assert first == (n - size) // 2
        else:  # as near to the middle as the border allows
            assert first == min(max(c - size // 2, 0), n - size)
            assert first <= c < first + size


def test_it_is_pure_and_draws_differ(label: Array) -> None:
    positions, site = ForegroundPositions(0.5), site_of(label)
    first = [positions.start(site, PATCH, draw=d, stream=stream_of(d)) for d in range(40)]
    assert [positions.start(site, PATCH, draw=d, stream=stream_of(d)) for d in range(40)] == first
    assert len(set(first)) > 30
    assert [positions.start(site, PATCH, draw=d, stream=stream_of(d, "b")) for d in range(40)] != first


def test_literal_positions(label: Array) -> None:
    # Written down: they may not change with a release, a platform or numpy's version.
    site = site_of(label)
    assert [ForegroundPositions(0.5).start(site, PATCH, draw=d, stream=stream_of(d)) for d in range(6)] == [
        (7, 2, 1),
        (5, 4, 6),
        (11, 2, 4),
        (5, 5, 6),
        (11, 10, 9),
        (5, 7, 2),
    ]


def test_coordinates_of_large_volumes_do_not_wrap() -> None:
    # uint16 near its end, minus half a patch at its beginning.
    index = {1: (1, np.array([[2, 65535, 3]], np.uint16))}
    site = Site((70000, 65536, 10), foreground=lambda: index)
    assert ForegroundPositions(1.0).start(site, (8, 8, 8), draw=0, stream=stream_of(0)) == (0, 65528, 0)


@pytest.mark.parametrize(
    ("positions", "text"),
    [
        (
            ForegroundPositions(),
            "ForegroundPositions(share=0.3333333333333333, by='class', otherwise='anywhere', classes=None, ratios=None)",
        ),
        (
            ForegroundPositions(0.5, by="voxel", otherwise="background", classes=[3, 1, 1]),  # type: ignore[arg-type]
            "ForegroundPositions(share=0.5, by='voxel', otherwise='background', classes=(1, 3), ratios=None)",
        ),
        (
            ForegroundPositions(ratios={2: 1, 0: 3}),
            "ForegroundPositions(share=0.3333333333333333, by='class', otherwise='anywhere', classes=None, ratios={0: 3.0, 2: 1.0})",
        ),
        (WeightedPositions("heat"), "WeightedPositions(collection='heat')"),
    ],
)
def test_they_pickle_and_say_what_they_are(positions: Any, text: str) -> None:
    again = pickle.loads(pickle.dumps(positions))
    assert again == positions
    assert hash(again) == hash(positions)
    assert repr(positions) == repr(again) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"share": -0.1}, "share=-0.1 must be a probability, from 0 to 1"),
        ({"share": "a"}, "share='a' must be a probability"),
        ({"classes": 3}, r"classes=3 must be several whole numbers, such as \(1, 2\)"),
        ({"ratios": [1, 3]}, r"ratios=\[1, 3\] must be a mapping from class to weight"),
        ({"share": 33}, "share=33 must be a probability"),
        ({"share": float("nan")}, "share=nan must be a probability"),
        ({"by": "volume"}, "by='volume' is not one of 'class', 'voxel'"),
        ({"otherwise": "nowhere"}, "otherwise='nowhere' is not one of 'anywhere', 'background'"),
        ({"classes": ()}, "classes is empty"),
        ({"ratios": {}}, "ratios={} must give weights of at least 0, and not only 0"),
        ({"ratios": {0: 0, 1: 0}}, "must give weights of at least 0, and not only 0"),
        ({"ratios": {1: -1, 2: 3}}, "must give weights of at least 0"),
        ({"ratios": {1: float("nan")}}, "must give weights of at least 0"),
        ({"ratios": {1: float("inf")}}, "must give weights of at least 0"),
        ({"ratios": {1: 1}, "share": 0.5}, "leave share, by, otherwise and classes out"),
        ({"ratios": {1: 1}, "classes": (1,)}, "leave share, by, otherwise and classes out"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        ForegroundPositions(**arguments)


# ---- probability maps ----------------------------------------------------------------------------------------------------


class Maps:
    """Probability maps by name, which count what is read of them."""

    def __init__(self, maps: dict[str, Array], tile: Triple = (4, 4, 4)) -> None:
        self.maps, self.tile = maps, tile
        self.boxes: list[Box] = []

    def site(self, name: str) -> Site:
        def read(collection: str, box: Box) -> Array:
            assert collection == "heat"
            self.boxes.append(box)
            return self.maps[name][box.slices()]

        shape = self.maps[name].shape
        return Site(shape, self.tile, name, read=read)  # type: ignore[arg-type]


def test_frequencies_are_those_of_the_map(counts: Callable[[int, int], int]) -> None:
    heat = np.random.default_rng(0).random((5, 4, 3)) ** 3
    heat[0, :, :] = 0
    heat[4, 3, 2] = -5
    heat[4, 3, 1] = np.nan
    maps = Maps({"a": heat}, tile=(2, 3, 2))
    rounds = counts(4000, 40000)
    found = Counter(centres(WeightedPositions("heat"), maps.site("a"), rounds, (1, 1, 1)))
    weights = np.maximum(np.nan_to_num(heat), 0)
    for voxel, share in np.ndenumerate(weights / weights.sum()):
        expected = share * rounds
        assert abs(found[voxel] - expected) <= 4.5 * np.sqrt(expected * (1 - share)), voxel  # type: ignore[index]
        assert share or not found[voxel]  # type: ignore[index]
    # Summed once, then one tile for each patch.
    assert len(maps.boxes) == 3 * 2 * 2 + rounds


@pytest.mark.parametrize("fill", [0.0, -1.0, np.nan])
def test_a_map_without_a_positive_value_gives_patches_anywhere(fill: float) -> None:
    site = Maps({"a": np.full((9, 8, 7), fill)}).site("a")
    for draw in range(20):
        expected = uniform_start((9, 8, 7), PATCH, stream_of(draw)("position"))
        assert WeightedPositions("heat").start(site, PATCH, draw=draw, stream=stream_of(draw)) == expected


@pytest.mark.parametrize(
    ("voxel", "start"), [((0, 0, 0), (0, 0, 0)), ((8, 7, 6), (4, 4, 4)), ((4, 3, 2), (2, 1, 1)), ((1, 7, 3), (0, 4, 2))]
)
def test_one_positive_voxel_is_in_every_patch(voxel: Triple, start: Triple) -> None:
    for dtype in (np.float64, np.float32, np.uint8, np.bool_):
        heat = np.zeros((9, 8, 7), dtype)
        heat[voxel] = 1
        site = Maps({"a": heat}).site("a")
        assert {WeightedPositions("heat").start(site, PATCH, draw=d, stream=stream_of(d)) for d in range(8)} == {start}


def test_tiny_values_next_to_large_ones_do_not_go_wrong() -> None:
    heat = np.zeros((6, 6, 6))
    heat[0, 0, 0] = 1e300
    heat[5, 5, 5] = 1e-300
    site = Maps({"a": heat}, tile=(3, 3, 3)).site("a")
    assert set(centres(WeightedPositions("heat"), site, 50, (1, 1, 1))) == {(0, 0, 0)}


def test_sums_are_kept_by_volume_and_not_pickled() -> None:
    maps = Maps({"a": np.ones((8, 8, 8)), "b": np.zeros((8, 8, 8))})
    positions = WeightedPositions("heat")
    assert positions.reads == "heat"
    for name in ("a", "b", "a", "b"):
        positions.start(maps.site(name), PATCH, draw=0, stream=stream_of(0))
    assert len(maps.boxes) == 8 + 1 + 8 + 0 + 1 + 0
    again = pickle.loads(pickle.dumps(positions))
    maps.boxes.clear()
    for draw in range(5):
        place = positions.start(maps.site("a"), PATCH, draw=draw, stream=stream_of(draw))
        assert again.start(maps.site("a"), PATCH, draw=draw, stream=stream_of(draw)) == place
    assert len(maps.boxes) == 5 + 8 + 5


def test_sums_of_many_volumes_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radioloader.samplers.centres._KEPT_MAPS", 2)
    maps = Maps({name: np.ones((4, 4, 4)) for name in "abc"})
    positions = WeightedPositions("heat")
    for name in "abcbca":
        positions.start(maps.site(name), (1, 1, 1), draw=0, stream=stream_of(0))
    assert len(maps.boxes) == 3 * 2 + 2 * 1 + 1 * 2  # a's sum is made anew


def test_threads_may_share_them() -> None:
    maps = Maps({"a": np.random.default_rng(1).random((9, 8, 7))})
    positions, site = WeightedPositions("heat"), maps.site("a")
    expected = [positions.start(site, PATCH, draw=d, stream=stream_of(d)) for d in range(50)]
    fresh = WeightedPositions("heat")
    found: dict[int, list[Triple]] = {}

    def work(number: int) -> None:
        found[number] = [fresh.start(site, PATCH, draw=d, stream=stream_of(d)) for d in range(50)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected] * 4
