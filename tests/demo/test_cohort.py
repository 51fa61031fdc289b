"""The simulated cohort: same seed, same bytes; files whose geometry puts the brain where a brain is."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from radioloader.demo.cohort import Cohort, make_cohort
from radioloader.demo.simulate import write_subject

pytest.importorskip("nilearn")
pytest.importorskip("scipy")

RESOLUTION = 4.0
ORIENTATIONS = ("RAS", "LAS", "LPS", "PIR", "RSA", "LIP", "ASL", "RPI")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("cohort"), n_subjects=8, resolution=RESOLUTION, workers=1)


@pytest.fixture(scope="module")
def brain() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Where the template has tissue, and its mm -> voxel matrix."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

    grey, white = load_mni152_gm_template(resolution=1), load_mni152_wm_template(resolution=1)
    return grey.get_fdata() + white.get_fdata() > 0.3, np.linalg.inv(grey.affine)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_seed_same_bytes_whatever_the_number_of_processes(cohort: Cohort, tmp_path: Path) -> None:
    make_cohort(tmp_path, n_subjects=8, resolution=RESOLUTION, workers=2)
    assert _bytes(tmp_path) == _bytes(cohort.folder)


def test_another_seed_gives_another_subject(cohort: Cohort, tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    write_subject(tmp_path, number=1, resolution=RESOLUTION, seed=1)
    assert (tmp_path / "images/sub-01_T1w.nii.gz").read_bytes() != cohort.image("sub-01").read_bytes()


def test_gzip_headers_hold_neither_time_nor_name(cohort: Cohort) -> None:
    for path in cohort.folder.glob("*/*.nii.gz"):
        header = path.read_bytes()[:8]
        assert header[3] == 0
        assert header[4:8] == b"\0\0\0\0"
        gzip.decompress(path.read_bytes())


@pytest.mark.parametrize("number", range(1, 9))
def test_geometry(cohort: Cohort, brain: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], number: int) -> None:
    subject = cohort.subject_ids[number - 1]
    image, label = nib.load(cohort.image(subject)), nib.load(cohort.label(subject))
    assert "".join(nib.aff2axcodes(image.affine)) == ORIENTATIONS[number - 1]
    assert image.shape == label.shape
    np.testing.assert_array_equal(image.affine, label.affine)
    for file in (image, label):
        sform, sform_code = file.get_sform(coded=True)
        qform, qform_code = file.get_qform(coded=True)
        assert sform_code == qform_code == 1
        np.testing.assert_allclose(qform, sform, atol=1e-3)
        np.testing.assert_allclose(file.header.get_zooms(), nib.affines.voxel_sizes(file.affine), rtol=1e-5)
        assert file.header.get_xyzt_units()[0] == "mm"
        assert b"simulated" in file.header["descrip"].item()
    # The world position of tissue is tissue in the template too, but for the deformation of a few mm and the head pose.
    tissue, to_voxel = brain
    indices = np.argwhere(np.asanyarray(label.dataobj) > 0)
    voxels = np.rint(nib.affines.apply_affine(to_voxel @ label.affine, indices)).astype(int)
    inside = np.all((voxels >= 0) & (voxels < tissue.shape), axis=1)
    hits = tissue[tuple(voxels[inside].T)].sum() / len(voxels)
    assert hits > 0.85
    # A mix-up of left and right, front and back or up and down would be worse (the brain is least symmetric up-down).
    flipped = voxels.copy()
    flipped[:, 2] = tissue.shape[2] - 1 - flipped[:, 2]
    flipped = flipped[np.all((flipped >= 0) & (flipped < tissue.shape), axis=1)]
    assert tissue[tuple(flipped.T)].sum() / len(voxels) < hits - 0.1


def test_content(cohort: Cohort) -> None:
    shapes = set()
    for subject in cohort.subject_ids:
        image, label = nib.load(cohort.image(subject)), nib.load(cohort.label(subject))
        shapes.add(image.shape)
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        voxels, classes = np.asanyarray(image.dataobj), np.asanyarray(label.dataobj)
        assert set(np.unique(classes)) == {0, 1, 2}
        assert voxels.min() >= 0
        # T1w: white matter is brighter than grey matter, which is brighter than air.
        assert voxels[classes == 2].mean() > voxels[classes == 1].mean() > voxels[classes == 0].mean()
    assert len(shapes) == len(cohort.subject_ids)
    rows = cohort.participants.read_text().splitlines()
    assert rows[0].split("\t")[:3] == ["participant_id", "age", "sex"]
    assert all("simulated" in row for row in rows[1:])


def test_reuse_makes_again_only_what_is_missing_or_changed(tmp_path: Path) -> None:
    first = make_cohort(tmp_path, n_subjects=3, resolution=RESOLUTION, workers=1)
    assert first.made == first.subject_ids
    before = _bytes(tmp_path)
    seen: list[tuple[str, bool]] = []
    again = make_cohort(
        tmp_path,
        n_subjects=3,
        resolution=RESOLUTION,
        workers=1,
        on_subject=lambda subject, made: seen.append((subject, made)),
    )
    assert again.made == ()
    assert seen == [("sub-01", False), ("sub-02", False), ("sub-03", False)]
    first.label("sub-02").write_bytes(b"damaged")
    first.image("sub-03").unlink()
    (tmp_path / "images" / "mine.txt").write_text("not made by the demo")
    assert make_cohort(tmp_path, n_subjects=3, resolution=RESOLUTION, workers=1).made == ("sub-02", "sub-03")
    assert _bytes(tmp_path) == {**before, "images/mine.txt": b"not made by the demo"}
