"""Images and labels whose grids do not fit, and subjects that lack or break a part."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import IngestError
from tests.ingestion.test_inputs import VOXELS, Write, empty, wrong_checksum


def shifted(mm: float) -> Any:
    affine = np.eye(4)
    affine[1, 3] = mm
    return affine


def turned(radians: float) -> Any:
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]]
    return affine


ADVICE = (
    "allowed are 0.05 mm; resample it, repair its affine, or raise the tolerance (grid_tolerance_mm, --grid-tolerance)"
)


@pytest.mark.parametrize(
    ("voxels", "affine", "says"),
    [
        (VOXELS[:, :, :6], None, "its shape is (9, 8, 6), expected (9, 8, 7)"),
        (VOXELS.transpose(1, 0, 2), None, "its shape is (8, 9, 7), expected (9, 8, 7)"),
        (VOXELS, shifted(1.25), f"the same voxel lies up to 1.25 mm apart, {ADVICE}"),
        (VOXELS, shifted(0.051), f"the same voxel lies up to 0.051 mm apart, {ADVICE}"),
        (VOXELS, np.diag([-1.0, 1.0, 1.0, 1.0]), f"the same voxel lies up to 16 mm apart, {ADVICE}"),
        # farthest at the corner (8, 7): 2 sin(angle / 2) times its distance from the origin
        (VOXELS, turned(0.1), f"the same voxel lies up to {2 * np.sin(0.05) * np.hypot(8, 7):.4g} mm apart, {ADVICE}"),
    ],
)
def test_a_label_off_its_images_grid_fails_with_the_difference(
    write_image: Write, tmp_path: Path, voxels: Any, affine: Any, says: str
) -> None:
    for name in ("a", "bad"):
        write_image(tmp_path / "i" / f"{name}.nii.gz", VOXELS)
    write_image(tmp_path / "l" / "a.nii.gz", VOXELS % 3)
    write_image(tmp_path / "l" / "bad.nii.gz", voxels % 3, affine)
    report = rl.ingest(tmp_path / "store", {"CT": tmp_path / "i", "seg": tmp_path / "l"}, workers=1)
    assert [(item.subject, item.reason) for item in report.failed] == [
        ("bad", f"{tmp_path}/l/bad.nii.gz (seg) is not on the grid of {tmp_path}/i/bad.nii.gz (CT): {says}")
    ]
    assert rl.open(tmp_path / "store").CT.obs_subject_ids == ["a"]


def test_a_label_that_only_lacks_the_stored_orientation_is_told_so(write_image: Write, tmp_path: Path) -> None:
    lps = np.diag([-1.0, -1.0, 2.0, 1.0])
    write_image(tmp_path / "i" / "a.nii.gz", VOXELS, lps)
    write_image(tmp_path / "l" / "a.nii.gz", VOXELS % 3, lps)
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "i"}, orientation="RAS", workers=1).ok
    report = rl.ingest(tmp_path / "store", {"seg": tmp_path / "l"}, workers=1)
    assert [item.reason for item in report.failed] == [
        f"{tmp_path}/l/a.nii.gz (seg) lies on the grid of the stored volume 'a_CT' (CT), but that one is stored as RAS, and this one would "
        "be as LPS: give orientation='RAS' (--orientation RAS), as it was when that one was ingested"
    ]
    assert rl.ingest(tmp_path / "store", {"seg": tmp_path / "l"}, orientation="RAS", workers=1).ok
    store = rl.open(tmp_path / "store")
    np.testing.assert_array_equal(store.seg.iloc[0].affine, store.CT.iloc[0].affine)
    np.testing.assert_array_equal(store.seg.iloc[0].to_numpy(), store.CT.iloc[0].to_numpy() % 3)
    # a label that is really elsewhere gets the old answer
    write_image(tmp_path / "m" / "a.nii.gz", VOXELS % 3, lps + shifted(9.0) - np.eye(4))
    report = rl.ingest(tmp_path / "store", {"mask": tmp_path / "m"}, workers=1)
    assert report.failed[0].reason.endswith(ADVICE)


def test_a_label_is_not_turned_away_from_a_stored_image(write_image: Write, tmp_path: Path) -> None:
    """A mistyped collection and another orientation: the label fits the new image, but would no longer fit the stored one."""
    lps = np.diag([-1.0, -1.0, 2.0, 1.0])
    write_image(tmp_path / "i" / "a.nii.gz", VOXELS, lps)
    write_image(tmp_path / "l" / "a.nii.gz", VOXELS % 3, lps)
    label = {"seg": tmp_path / "l"}
    assert rl.ingest(tmp_path / "store", {"T1w": tmp_path / "i", **label}, workers=1).ok
    report = rl.ingest(tmp_path / "store", {"T1": tmp_path / "i", **label}, orientation="RAS", workers=1)
    (failure,) = report.failed
    assert "(seg) lies on the grid of the stored volume 'a_T1w' (T1w), but that one is stored as LPS" in failure.reason
    store = rl.open(tmp_path / "store")
    assert store.collection_names == ["T1w", "seg"]
    np.testing.assert_array_equal(store.seg.iloc[0].affine, store.T1w.iloc[0].affine)


def test_an_image_that_only_lacks_the_stored_labels_orientation_is_told_so(write_image: Write, tmp_path: Path) -> None:
    lps = np.diag([-1.0, -1.0, 2.0, 1.0])
    write_image(tmp_path / "i" / "a.nii.gz", VOXELS, lps)
    write_image(tmp_path / "l" / "a.nii.gz", VOXELS % 3, lps)
    assert rl.ingest(tmp_path / "store", {"seg": tmp_path / "l"}, workers=1).ok
    report = rl.ingest(tmp_path / "store", {"CT": tmp_path / "i"}, orientation="RAS", workers=1)
    assert [item.reason for item in report.failed] == [
        f"{tmp_path}/i/a.nii.gz (CT) lies on the grid of the stored volume 'a_seg' (seg), but that one is stored as LPS, and this one "
        "would be as RAS: leave orientation='RAS' (--orientation) out, or give orientation='LPS' (--orientation LPS), as it was when that "
        "one was ingested"
    ]
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "i"}, workers=1).ok


def test_a_label_within_the_tolerance_is_taken(write_image: Write, tmp_path: Path) -> None:
    write_image(tmp_path / "i" / "a.nii.gz", VOXELS)
    write_image(tmp_path / "l" / "a.nii.gz", VOXELS % 3, shifted(0.04))
    write_image(tmp_path / "i" / "b.nii.gz", VOXELS)
    write_image(tmp_path / "l" / "b.nii.gz", VOXELS % 3, shifted(3.0))
    sources = {"CT": tmp_path / "i", "seg": tmp_path / "l"}
    report = rl.ingest(tmp_path / "store", sources, workers=1)
    assert [item.subject for item in report.failed] == ["b"]
    assert rl.ingest(tmp_path / "store", sources, grid_tolerance_mm=3.5, workers=1).ok
    assert rl.open(tmp_path / "store").seg.loc["b"].affine[1, 3] == 3.0


def test_a_label_may_lie_on_the_grid_of_any_image_and_images_may_differ(write_image: Write, tmp_path: Path) -> None:
    write_image(tmp_path / "ct" / "a.nii.gz", VOXELS)
    write_image(tmp_path / "pet" / "a.nii.gz", VOXELS[:4, :4, :4])
    write_image(tmp_path / "l" / "a.nii.gz", VOXELS[:4, :4, :4] % 3)
    report = rl.ingest(
        tmp_path / "store", {"CT": tmp_path / "ct", "PET": tmp_path / "pet", "seg": tmp_path / "l"}, workers=1
    )
    assert report.ok
    assert report.items[0].notes == (
        f"{tmp_path}/pet/a.nii.gz (PET) is not on the grid of {tmp_path}/ct/a.nii.gz (CT): its shape is (4, 4, 4), expected (9, 8, 7)",
    )


def test_a_series_and_a_label_share_the_spatial_grid(write_image: Write, tmp_path: Path) -> None:
    write_image(tmp_path / "i" / "a.nii.gz", VOXELS[..., None].repeat(2, 3))
    write_image(tmp_path / "l" / "a.nii.gz", VOXELS % 3)
    assert rl.ingest(tmp_path / "store", {"bold": tmp_path / "i", "seg": tmp_path / "l"}, workers=1).ok


def test_a_broken_label_costs_its_image_too(
    write_image: Write, tmp_path: Path, arrays: Callable[[Any], set[str]]
) -> None:
    for name in ("a", "bad"):
        write_image(tmp_path / "i" / f"{name}.nii.gz", VOXELS)
        write_image(tmp_path / "l" / f"{name}.nii.gz", VOXELS % 3)
    wrong_checksum(tmp_path / "l" / "bad.nii.gz", write_image)  # found only when the image has been written
    report = rl.ingest(tmp_path / "store", {"CT": tmp_path / "i", "seg": tmp_path / "l"}, workers=1)
    assert report.failed[0].reason.startswith(f"{tmp_path}/l/bad.nii.gz: corrupt gzip data (CRC check failed")
    store = rl.open(tmp_path / "store")
    assert store.CT.obs_subject_ids == store.seg.obs_subject_ids == store.obs_subject_ids == ["a"]
    assert len(arrays(tmp_path / "store")) == 2  # nothing is left of it


def test_a_subject_that_breaks_later_keeps_its_old_volumes(
    write_image: Write, tmp_path: Path, content: Callable[..., Any]
) -> None:
    write_image(tmp_path / "i" / "a.nii.gz", VOXELS)
    write_image(tmp_path / "l" / "a.nii.gz", VOXELS % 3)
    sources = {"CT": tmp_path / "i", "seg": tmp_path / "l"}
    rl.ingest(tmp_path / "store", sources, workers=1)
    before = content(tmp_path / "store")
    write_image(tmp_path / "i" / "a.nii.gz", VOXELS[:5])  # the label no longer fits
    report = rl.ingest(tmp_path / "store", sources, workers=1)
    assert report.failed[0].reason.endswith("its shape is (9, 8, 7), expected (5, 8, 7)")
    assert content(tmp_path / "store") == before


def test_missing_files_and_duplicates_are_listed_and_can_be_allowed(
    make_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_cohort(tmp_path / "cohort", subjects=4, shape=(12, 16, 10))
    (root / "labels" / "sub-02_seg.nii.gz").unlink()
    (root / "images" / "again").mkdir()
    shutil.copy(root / "images" / "sub-03_T1w.nii.gz", root / "images" / "again")
    sources = {"T1w": f"{root}/images/**", "seg": root / "labels"}
    report = rl.ingest(tmp_path / "store", sources, workers=1)
    assert {item.subject: item.reason for item in report.failed} == {
        "sub-02": f"missing 'seg': no file of subject 'sub-02' in collection 'seg' (it has {root}/images/sub-02_T1w.nii.gz); add it, or "
        "allow it with allow_missing (--allow-missing)",
        "sub-03": f"duplicate subject id 'sub-03' in collection 'T1w': {root}/images/again/sub-03_T1w.nii.gz, "
        f"{root}/images/sub-03_T1w.nii.gz; rename one, or give a mapping from subject id to path",
    }
    assert rl.open(tmp_path / "store").obs_subject_ids == ["sub-01", "sub-04"]
    report = rl.ingest(tmp_path / "store", sources, allow_missing=True, workers=1)
    assert [item.subject for item in report.failed] == ["sub-03"]
    store = rl.open(tmp_path / "store")
    assert store.T1w.obs_subject_ids == ["sub-01", "sub-02", "sub-04"]
    assert store.seg.obs_subject_ids == ["sub-01", "sub-04"]


@pytest.mark.parametrize("first", ["a file", "a name"])
def test_strict_stops_at_the_first_failure_and_keeps_what_was_done(
    write_image: Write, tmp_path: Path, first: str
) -> None:
    for name in ("a", "b", "c", "d"):
        write_image(tmp_path / "i" / f"{name}.nii.gz", VOXELS)
        write_image(tmp_path / "l" / f"{name}.nii.gz", VOXELS % 3)
    if first == "a file":
        empty(tmp_path / "i" / "c.nii.gz", write_image)
        reason = f"{tmp_path}/i/c.nii.gz: the file is empty (0 bytes)"
    else:
        (tmp_path / "l" / "c.nii.gz").unlink()
        reason = f"missing 'seg': no file of subject 'c' in collection 'seg' (it has {tmp_path}/i/c.nii.gz); add it, or allow it with "
    with pytest.raises(IngestError) as caught:
        rl.ingest(tmp_path / "store", {"CT": tmp_path / "i", "seg": tmp_path / "l"}, strict=True, workers=1)
    assert str(caught.value).startswith(f"stopped at the first failure (strict): subject 'c': {reason}")
    report = caught.value.report
    done = ["a", "b"] if first == "a file" else []
    assert [item.subject for item in report.ingested] == done
    assert [item.subject for item in report.failed] == ["c"]
    assert (report.version, report.seconds > 0) == (len(done) and 1, True)
    assert rl.open(tmp_path / "store").obs_subject_ids == done


def test_a_cohort_of_nothing_but_broken_files_leaves_an_empty_store(write_image: Write, tmp_path: Path) -> None:
    for name in ("a", "b"):
        empty(write_image(tmp_path / "i" / f"{name}.nii.gz", VOXELS), write_image)
    report = rl.ingest(tmp_path / "store", {"CT": tmp_path / "i"}, workers=1)
    assert len(report.failed) == 2
    store = rl.open(tmp_path / "store")
    assert (len(store), store.collection_names) == (0, [])
    assert [(p.status, p.subject, p.reason) for p in store.problems()] == [
        ("failed", item.subject, item.reason) for item in report.failed
    ]
