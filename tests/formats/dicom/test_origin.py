"""What the catalog keeps of the instances of a volume survives packing, and hides what it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from radioloader.formats.dicom.frames import Instance
from radioloader.formats.dicom.headers import read_instances
from radioloader.formats.dicom.origin import DicomOrigin
from radioloader.formats.dicom.volumes import DicomVolume, Policy, volumes_of
from tests.formats.dicom.make import real_volume, write_series

pytest.importorskip("pydicom")


def volume(folder: Path, policy: Policy | None = None, **options: Any) -> DicomVolume:
    voxels, affine = real_volume((16, 14, 8))
    paths = write_series(folder, options.pop("voxels", voxels), affine, **options)
    instances = [one for one in read_instances([str(path) for path in paths]) if isinstance(one, Instance)]
    (found,) = volumes_of(instances, policy or Policy())
    return found


def same(a: DicomOrigin, b: DicomOrigin) -> None:
    for name in ("shape", "frame_of_reference", "study", "series", "sop_class", "slices"):
        assert getattr(a.grid, name) == getattr(b.grid, name)
    np.testing.assert_allclose(a.grid.affine, b.grid.affine, atol=0)
    np.testing.assert_allclose(a.grid.origins, b.grid.origins, atol=1e-9)
    assert [getattr(a, n) for n in ("pseudonymized", "dimension", "values", "label", "classes")] == [
        getattr(b, n) for n in ("pseudonymized", "dimension", "values", "label", "classes")
    ]


def test_a_regular_stack(tmp_path: Path) -> None:
    import pydicom

    origin = DicomOrigin.of(volume(tmp_path), str, pseudonymized=False, label="1.2.3", classes=(1, 4))
    same(DicomOrigin.unpack(origin.pack()), origin)
    placed = sorted(
        (float(d.ImagePositionPatient[2]), str(d.SOPInstanceUID)) for d in map(pydicom.dcmread, tmp_path.iterdir())
    )
    assert list(origin.slices) == [((sop, 0),) for _, sop in placed]


def test_an_irregular_stack_keeps_where_its_slices_are(tmp_path: Path) -> None:
    found = volume(tmp_path, Policy(on_irregular="keep"), drop=(3,))
    origin = DicomOrigin.unpack(DicomOrigin.of(found, str, pseudonymized=False).pack())
    assert found.grid is not None
    np.testing.assert_allclose(origin.grid.origins, found.grid.origins)
    steps = np.diff(origin.grid.origins[:, 2])
    assert np.argmax(steps) == 2
    assert steps[2] == pytest.approx(2 * steps[0])


def test_time_points(tmp_path: Path) -> None:
    voxels, _ = real_volume((16, 14, 8))
    found = volume(tmp_path, voxels=np.stack([voxels, voxels // 2, voxels // 3], axis=3))
    origin = DicomOrigin.unpack(DicomOrigin.of(found, str, pseudonymized=False).pack())
    assert (origin.dimension, len(origin.values)) == ("time", 3)
    assert {len(frames) for frames in origin.slices} == {3}
    assert len({sop for frames in origin.slices for sop, _ in frames}) == 24


def test_every_uid_is_hidden(tmp_path: Path) -> None:
    found = volume(tmp_path)
    origin = DicomOrigin.of(found, lambda uid: f"hidden {uid[::-1]}", pseudonymized=True)
    plain = DicomOrigin.of(found, str, pseudonymized=False)
    uids = {sop for frames in plain.slices for sop, _ in frames} | {plain.grid.study, plain.grid.series}
    text = repr(DicomOrigin.unpack(origin.pack()))
    assert origin.pseudonymized
    assert not [uid for uid in uids | {plain.grid.frame_of_reference} if uid in text]


def test_every_packed_value_ends_in_something_that_a_table_keeps(tmp_path: Path) -> None:
    """zlib ends in a checksum, of which one in 256 ends in a NUL; a nullable column loses that."""
    found = volume(tmp_path)
    ends = set()
    for number in range(600):
        origin = DicomOrigin.of(found, str, pseudonymized=False, label=f"1.2.{number}")
        data = origin.pack()
        ends.add(data[-2])
        assert data[-1:] not in (b"\0", b"")
        assert DicomOrigin.unpack(data).label == f"1.2.{number}"
    assert 0 in ends
