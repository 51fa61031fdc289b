"""Planted outliers are found, each with its reason; a cohort that is alike has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.overview.outliers import find_outliers, robust_z
from radioloader.overview.survey import survey
from radioloader.storage.snapshot import Snapshot
from tests.overview.conftest import Made, voxels


def reasons(made: Made) -> dict[tuple[str, str], list[str]]:
    known = survey(Snapshot.open(made.uri))
    return {
        (name, str(known.cohort[name].index.subject_ids[place])): found
        for (name, place), found in known.outliers.items()
    }


def test_a_clean_cohort_has_none(clean: Made) -> None:
    assert reasons(clean) == {}


def test_planted_ones_are_found_and_no_others(planted: Made) -> None:
    found = reasons(planted)
    assert set(found) == {
        ("T1w", "spaced"),
        ("seg", "spaced"),
        ("T1w", "turned"),
        ("T1w", "holes"),
        ("T1w", "bright"),
        ("T1w", "constant"),
        ("T1w", "series"),
        ("seg", "empty"),
        ("seg", "lacking"),
        ("seg", "tiny"),
    }
    assert found["T1w", "spaced"] == [
        "spacing foot-head 6 mm, median 2 mm",
        "extent foot-head 96 mm, median 32 mm",
    ]
    # Its label lies on the same grid, and is only judged on what is its own.
    assert [reason.partition(" ml")[0] for reason in found["seg", "spaced"]] == ["class 1 2.178", "class 2 0.9"]
    assert found["T1w", "turned"] == ["orientation LAS, 23 of 24 are RAS"]
    assert found["T1w", "holes"] == ["3 voxels NaN or infinite", "dtype float32, 23 of 24 are int16"]
    assert found["T1w", "series"] == ["4D, 23 of 24 are 3D"]
    assert found["T1w", "constant"][0] == "constant image: every voxel is 7"
    assert found["T1w", "bright"][0].startswith("mean ")
    assert found["seg", "empty"] == ["empty label, 22 of 23 are not"]
    assert found["seg", "lacking"][0] == "class 2 is missing, 21 of 23 have it"
    assert found["seg", "tiny"][0].startswith("class 1 0.01 ml, median ")


def test_labels_of_ct_and_of_pet_are_not_compared(write_image: Any, tmp_path: Path) -> None:
    image, label = voxels(1)
    files: dict[str, dict[str, Path]] = {"CT": {}, "PT": {}, "GTV": {}}
    for number in range(8):
        for name, step in (("CT", 1), ("PT", 4)) if number < 2 else (("CT", 1),):
            affine = np.diag([step, step, 2.0, 1.0])
            files[name][f"s{number}"] = write_image(
                tmp_path / name / f"{number}.nii.gz", image[::step, ::step] + number, affine
            )
        # On the grid of PET where there is one, and else on that of CT.
        place = tmp_path / "GTV" / f"{number}.nii.gz"
        files["GTV"][f"s{number}"] = write_image(place, label[::step, ::step], affine)
    uri = tmp_path / "store"
    assert rl.ingest(uri, {"CT": files["CT"], "PT": files["PT"]}, workers=1, allow_missing=True).ok
    assert rl.ingest(uri, {"GTV": files["GTV"]}, labels=["GTV"], workers=1).ok
    known = survey(Snapshot.open(uri))
    facts = known.cohort["GTV"]
    assert sorted(set(facts.spacings[:, 0].tolist())) == [1, 4]
    assert known.outliers == {}
    alone = find_outliers(facts)
    assert alone[0] == ["spacing left-right 4 mm, median 1 mm", "spacing back-front 4 mm, median 1 mm"]
    assert find_outliers(facts, {0, 1}) == find_outliers(facts, range(8)) == {}
    # Those on no image's grid are judged among themselves.
    assert list(find_outliers(facts, {1})) == [0]


def test_few_volumes_are_not_compared(make_store: object) -> None:
    image = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    volumes = {
        f"s{number}": (image.astype(np.float32) * 10**number, None, np.diag([1, 1, number + 1, 1]))
        for number in range(4)
    }
    assert reasons(make_store(volumes)) == {}  # type: ignore[operator]


def test_two_kinds_of_about_equal_number_are_not_odd(make_store: object) -> None:
    image = np.random.default_rng(0).integers(0, 100, (4, 5, 6))
    volumes = {f"s{n}": (image.astype(np.int16 if n % 2 else np.float32) + n, None, np.eye(4)) for n in range(10)}
    assert reasons(make_store(volumes)) == {}  # type: ignore[operator]


def test_many_empty_labels_are_not_odd(make_store: object) -> None:
    label = np.zeros((4, 5, 6), np.uint8)
    filled = label.copy()
    filled[1:3, 1:3, 1:3] = 1
    volumes = {f"s{n}": (None, filled if n % 2 else label, np.eye(4)) for n in range(10)}
    assert reasons(make_store(volumes)) == {}  # type: ignore[operator]


def test_robust_z_is_the_distance_in_robust_standard_deviations() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.nan])
    median, z = robust_z(values, 0.01)
    assert median == 3
    assert z[:5] == pytest.approx(np.array([-2, -1, 0, 1, 2]) / 1.4826)
    assert np.isnan(z[5])
    median, z = robust_z(np.array([7.0, 7.0, 7.0, 7.5]), 0.5)
    assert z.tolist() == [0, 0, 0, 1]
    median, z = robust_z(np.array([np.nan]), 1.0)
    assert np.isnan(median)
    assert np.isnan(z).all()


def test_a_few_voxels_more_or_less_are_not_odd(make_store: Any) -> None:
    label = np.zeros((8, 9, 10), np.uint8)
    label[1:5, 1:6, 1:6] = 1  # 100 voxels
    label[7, 0, 0] = 2
    larger, smaller = label.copy(), label.copy()
    larger[7, 0, :3] = 2  # 3 instead of 1
    smaller[label == 1] = 0
    smaller[1:5, 1:6, 1] = 1  # 20 instead of 100
    volumes = {f"s{n}": (None, label, np.eye(4)) for n in range(8)}
    made = make_store({**volumes, "larger": (None, larger, np.eye(4)), "smaller": (None, smaller, np.eye(4))})
    z = np.log(5) / np.hypot(0.15, 0.1)
    assert reasons(made) == {("seg", "smaller"): [f"class 1 0.02 ml, median 0.1 ml (robust z -{z:.1f})"]}
