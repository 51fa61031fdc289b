"""What is exported is what was ingested: voxels, dtype, affine, and the same content after another ingest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import radioloader as rl
from radioloader.exporting.export import LAYOUTS

Image = Callable[..., Any]
OBLIQUE = np.array([[0.0, -1.2, 0.1, 4.0], [0.9, 0.0, 0.0, -3.0], [0.0, 0.1, 2.0, 7.0], [0.0, 0.0, 0.0, 1.0]])


def same_file(written: Path, source: Path) -> None:
    """Stored values, dtype, scaling and geometry of two files are the same."""
    new, old = nib.load(written), nib.load(source)
    np.testing.assert_array_equal(new.dataobj.get_unscaled(), old.dataobj.get_unscaled())
    assert new.get_data_dtype() == old.get_data_dtype()
    assert np.array_equal(new.affine, old.affine)
    for field in ("scl_slope", "scl_inter", "qform_code", "sform_code", "pixdim", "xyzt_units"):
        np.testing.assert_array_equal(new.header[field], old.header[field])


@pytest.fixture
def kinds(write_image: Callable[..., Path], tmp_path: Path, image: Image) -> dict[str, Path]:
    """Files of every kind by subject."""
    root = tmp_path / "kinds"
    return {
        "plain": write_image(root / "plain.nii.gz", image(0), OBLIQUE),
        "pair": write_image(root / "pair.hdr", image(1, dtype="f4"), OBLIQUE),
        "two": write_image(root / "two.nii", image(2, dtype="u2"), OBLIQUE, version=2),
        "scaled": write_image(root / "scaled.nii.gz", image(3), OBLIQUE, 0.1, -3.3),
        "big": write_image(root / "big.nii.gz", image(4, dtype=">i4"), OBLIQUE, big_endian=True),
        "series": write_image(root / "series.nii.gz", image(5, (6, 5, 4, 3)), OBLIQUE),
        "one_time": write_image(root / "one_time.nii.gz", image(6, (6, 5, 4, 1), dtype="f8"), OBLIQUE),
    }


@pytest.mark.parametrize("orientation", [None, "RAS"])
def test_every_kind_of_file_comes_back(
    kinds: dict[str, Path], tmp_path: Path, orientation: str | None, hashes: Any, back: Any
) -> None:
    rl.ingest(tmp_path / "store", {"image": kinds}, orientation=orientation, workers=1)
    report = rl.export(tmp_path / "store", tmp_path / "out")
    assert report.ok
    assert (report.subjects, report.volumes, report.files, report.failed) == (7, 7, 7, [])
    for subject, source in kinds.items():
        same_file(tmp_path / "out" / "image" / f"{subject}.nii.gz", source)
    assert hashes(back(report)) == hashes(tmp_path / "store")


def test_labels_saved_as_floats_come_back_as_floats(
    write_image: Callable[..., Path],
    tmp_path: Path,
    image: Image,
    label: Image,
    make_store: Any,
    hashes: Any,
    back: Any,
) -> None:
    source = write_image(tmp_path / "label.nii.gz", label(1, 2, dtype="f4"))
    uri = make_store({"T1w": {"a": image(0)}, "seg": {"a": source}}, labels=["seg"])
    assert rl.open(uri).seg.iloc[0].dtype == np.uint8
    report = rl.export(uri, tmp_path / "out")
    same_file(tmp_path / "out" / "seg" / "a.nii.gz", source)
    assert hashes(back(report)) == hashes(uri)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_same_content(
    layout: str, store_uri: str, cohort: Path, tmp_path: Path, hashes: Any, back: Any
) -> None:
    report = rl.export(store_uri, tmp_path / "out", layout=layout, names={"seg": "dseg"} if layout == "bids" else None)
    assert report.ok
    assert (report.subjects, report.volumes) == (4, 8)
    assert report.notes == ([] if layout != "nnunet" else [report.notes[0]])
    again = back(report)
    name = {"nnunet": "label", "decathlon": "label", "bids": "dseg", "nifti": "seg"}[layout]
    found, expected = hashes(again), hashes(store_uri)
    assert found == {"T1w": expected["T1w"], name: expected["seg"]}
    assert rl.open(again)[name].kind == "label"
    before, after = (rl.open(uri).obs_meta.read() for uri in (store_uri, again))
    assert repr(after[before.columns].to_dict("list")) == repr(before.to_dict("list"))
    assert [str(kind) for kind in after[before.columns].dtypes] == [str(kind) for kind in before.dtypes]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_do_not_change_a_byte(layout: str, store_uri: str, tmp_path: Path) -> None:
    # The name of the folder is part of what is written.
    trees = []
    for workers in (1, 3):
        out = tmp_path / str(workers) / "out"
        rl.export(store_uri, out, layout=layout, workers=workers)
        trees.append({str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert trees[0] == trees[1]


def test_no_path_of_a_source_is_written(store_uri: str, cohort: Path, tmp_path: Path) -> None:
    for layout in LAYOUTS:
        rl.export(store_uri, tmp_path / layout, layout=layout)
    for path in tmp_path.rglob("*"):
        if path.suffix in (".json", ".tsv") or path.name == "README":
            assert str(cohort) not in path.read_text()
            assert os.path.dirname(store_uri) not in path.read_text()


def test_a_selection_of_subjects(store_uri: str, tmp_path: Path) -> None:
    store = rl.open(store_uri)
    report = rl.export(store.loc[["sub-03", "sub-01"]], tmp_path / "out", images=["T1w"])
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.nii.gz")) == [
        "T1w/sub-01.nii.gz",
        "T1w/sub-03.nii.gz",
    ]
    assert report.volumes == 2
    assert (tmp_path / "out" / "participants.tsv").read_text().splitlines()[1:] == [
        "sub-03\t23\tF\t0.75",
        "sub-01\t21\tF\t0.25",
    ]
    assert store.T1w.iloc[0].to_numpy().any(), "a store that was given stays open"


def test_what_was_computed_is_exported_where_it_is_named(store_uri: str, tmp_path: Path) -> None:
    import shutil

    import torch

    shutil.copytree(store_uri, tmp_path / "store")
    model = torch.nn.Conv3d(1, 2, 1)
    assert rl.predict(tmp_path / "store", model, image="T1w", patch_size=8, out="pred").ok
    assert rl.export(tmp_path / "store", tmp_path / "all").volumes == 8
    report = rl.export(tmp_path / "store", tmp_path / "pred", labels="pred")
    assert (report.volumes, report.ok) == (4, True)
    volume = rl.open(tmp_path / "store").pred.loc["sub-02"]
    written = nib.load(tmp_path / "pred" / "pred" / "sub-02.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), volume.to_numpy())


def test_dicom(tmp_path: Path, hashes: Any, back: Any) -> None:
    from tests.ingestion.dicom_files import series

    series(tmp_path / "dicom", 0)
    series(tmp_path / "dicom", 1, who="P2")
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, orientation="RAS", workers=1).ok
    report = rl.export(tmp_path / "store", tmp_path / "out")
    assert report.ok
    store = rl.open(tmp_path / "store")
    for volume in store.CT:
        written = nib.load(tmp_path / "out" / "CT" / f"{volume.obs_subject_id}.nii.gz")
        turned = nib.as_closest_canonical(written)
        np.testing.assert_array_equal(np.asanyarray(turned.dataobj), volume.to_numpy())
        np.testing.assert_allclose(turned.affine, volume.affine, atol=1e-5)
    # NIfTI has the affine in float32, DICOM in decimals: of the files, the hashes are stable.
    again = back(report)
    second = rl.export(again, tmp_path / "second")
    rl.ingest(tmp_path / "third", {"CT": tmp_path / "second" / "CT"}, workers=1)
    assert hashes(tmp_path / "third") == hashes(again)
    assert second.ok


def test_real_scans(shared_data: Path, tmp_path: Path, hashes: Any, back: Any) -> None:
    images = sorted((shared_data / "hippocampus" / "imagesTr").glob("*.nii.gz"))[:3]
    labels = [shared_data / "hippocampus" / "labelsTr" / path.name for path in images]
    rl.ingest(tmp_path / "store", {"MR": images, "seg": labels}, orientation="RAS", workers=1)
    report = rl.export(tmp_path / "store", tmp_path / "Dataset004_Hippocampus", layout="nnunet")
    assert (report.ok, report.notes) == (True, [])
    for image, label in zip(images, labels, strict=True):
        same_file(Path(report.out) / "imagesTr" / image.name.replace(".nii", "_0000.nii"), image)
        same_file(Path(report.out) / "labelsTr" / label.name, label)
    expected = hashes(tmp_path / "store")
    assert hashes(back(report)) == {"MR": expected["MR"], "label": expected["seg"]}


def test_minus_zero_in_a_label_of_floats_comes_back_as_zero(
    make_store: Any, image: Any, label: Any, tmp_path: Path, hashes: Any, back: Any
) -> None:
    plain = label(1, dtype="f4")
    minus = plain.copy()
    minus[5, 4, 3] = -0.0
    uri = make_store({"CT": {"a": image(0), "b": image(1)}, "seg": {"a": minus, "b": plain}})
    report = rl.export(uri, tmp_path / "out")
    written = nib.load(tmp_path / "out" / "seg" / "a.nii.gz")
    assert written.get_data_dtype() == np.float32
    assert np.asanyarray(written.dataobj).tobytes() == plain.tobytes()
    before, after = hashes(uri)["seg"], hashes(back(report))["seg"]
    assert before["a"] != before["b"]
    assert after == {"a": before["b"], "b": before["b"]}
