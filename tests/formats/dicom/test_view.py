"""The quick view of a dataset gives what the dataset itself gives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from radioloader.formats.dicom.view import HeaderView

pydicom = pytest.importorskip("pydicom")
KEYWORDS = (
    "PatientID",
    "Rows",
    "ImagePositionPatient",
    "EchoTime",
    "SeriesDescription",
    "RadiopharmaceuticalInformationSequence",
)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "liver_1frame.dcm"])
def test_of_real_files(name: str) -> None:
    path = Path(os.path.dirname(pydicom.__file__)) / "data" / "test_files" / name
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    view = HeaderView(dataset)
    for keyword in KEYWORDS:
        assert view.get(keyword) == dataset.get(keyword)
        assert (keyword in view) == (keyword in dataset)
    assert view.file_meta is dataset.file_meta
    assert view.SOPInstanceUID == dataset.SOPInstanceUID


def test_of_private_elements() -> None:
    dataset = pydicom.Dataset()
    dataset.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", 800)
    view = HeaderView(dataset)
    assert view.private_block(0x0043, "GEMS_PARM_01")[0x39].value == 800
    for group, creator in ((0x0043, "SIEMENS"), (0x0019, "GEMS_PARM_01")):
        with pytest.raises(KeyError):
            view.private_block(group, creator)
    assert view.get("EchoTime") is None
