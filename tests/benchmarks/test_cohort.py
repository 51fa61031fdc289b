"""The cohort is the same each time, and made once."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.cohort import load_base, make_cohort, make_subject

SHAPE = (80, 72, 66)


def test_from_the_template(tmp_path: Path) -> None:
    cohort, facts = make_cohort(tmp_path / "a", 2, SHAPE, source=None)
    assert cohort.names == ["sub-00", "sub-01"]
    assert facts["source"] == "nilearn template"
    for number in range(2):
        image, label = cohort.load(number)
        plain = np.asarray(nib.load(cohort.images(".nii")[number]).dataobj)
        np.testing.assert_array_equal(image, plain)
        assert (image.shape, image.dtype, label.shape, label.dtype) == (SHAPE, np.int16, SHAPE, np.uint8)
        assert set(np.unique(label)) == {0, 1, 2, 3}
        assert 0.01 < (label > 0).mean() < 0.04
    first, second = (cohort.load(number)[0] for number in range(2))
    assert (first != second).mean() > 0.5
    assert facts["bytes"][".nii"] == sum(f.stat().st_size for f in cohort.images(".nii") + cohort.labels(".nii"))

    again, _ = make_cohort(tmp_path / "b", 2, SHAPE, source=None)
    other, _ = make_cohort(tmp_path / "b", 2, SHAPE, source=None, seed=1)
    for number in range(2):
        for mine, theirs in zip(cohort.load(number), again.load(number), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert (cohort.load(number)[0] != other.load(number)[0]).any()


def test_is_made_once(tmp_path: Path) -> None:
    said: list[str] = []
    cohort, facts = make_cohort(tmp_path, 1, SHAPE, source=None, say=said.append)
    before = cohort.images()[0].stat().st_mtime_ns
    (cohort.folder / "npy").mkdir()
    found, same = make_cohort(tmp_path, 1, SHAPE, source=None, say=said.append)
    assert (found, same, len(said)) == (cohort, facts, 1)
    assert cohort.images()[0].stat().st_mtime_ns == before
    assert (cohort.folder / "npy").is_dir()


def test_another_source_is_another_cohort(tmp_path: Path) -> None:
    cohort, _ = make_cohort(tmp_path, 1, SHAPE, source=None)
    (cohort.folder / "npy").mkdir()
    source = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(load_base(None, (40, 36, 20)), np.eye(4)), source)
    again, facts = make_cohort(tmp_path, 1, SHAPE, source=source)
    assert again == cohort
    assert facts["source"] == "ct.nii.gz"
    assert not (cohort.folder / "npy").exists()  # what was made of the other one


def test_a_short_source_is_mirrored(tmp_path: Path) -> None:
    data = np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3)
    source = tmp_path / "ct.nii"
    nib.save(nib.Nifti1Image(data, np.eye(4)), source)
    base = load_base(source, (4, 5, 6))
    np.testing.assert_array_equal(base, np.concatenate([data, data[:, :, ::-1]], axis=2))
    assert load_base(source, (2, 5, 4)).shape == (2, 5, 4)
    image, label = make_subject(base, 3)
    again, same = make_subject(base, 3)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label, same)
