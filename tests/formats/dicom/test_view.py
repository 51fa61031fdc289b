"""The quick view of a dataset gives what the dataset itself gives."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from radioloader.formats.dicom._quiet import quiet
from radioloader.formats.dicom.view import HeaderView

pydicom = pytest.importorskip("pydicom")
from pydicom.datadict import keyword_for_tag, tag_for_keyword  # noqa: E402
from pydicom.dataelem import RawDataElement  # noqa: E402
from pydicom.tag import BaseTag  # noqa: E402


def outcome(dataset: Any, keyword: str) -> tuple[Any, str, str]:
    """A value with its type, as the code that reads headers sees it; or the error."""
    try:
        with quiet(lenient=True):
            value = dataset.get(keyword)
    except Exception as error:
        return type(error), str(error), ""
    return value, repr(value), type(value).__name__


@pytest.mark.parametrize("folder", ["test_files", "charset_files"])
def test_every_attribute_of_every_file_of_pydicom(folder: str) -> None:
    compared: Counter[str] = Counter()
    for path in sorted((Path(os.path.dirname(pydicom.__file__)) / "data" / folder).glob("*.dcm")):
        try:
            with quiet(lenient=True):
                read = [pydicom.dcmread(path, stop_before_pixels=True, force=True) for _ in range(2)]
            named = {keyword_for_tag(tag): tag for tag in list(read[0].keys())}
            # Several elements of a repeating group have one keyword, which names none of them.
            keywords = [keyword for keyword, tag in named.items() if tag_for_keyword(keyword) == tag]
        except Exception:  # some are broken on purpose
            continue
        view = HeaderView(read[0])
        for keyword in keywords:
            compared[str(read[1].get_item(keyword).VR or "implicit")] += 1
            with quiet(lenient=True):
                assert outcome(view, keyword) == outcome(read[1], keyword), (path.name, keyword)
            assert keyword in view
        assert view.file_meta is read[0].file_meta
        assert view.get("PixelDataProviderURL") is None or "PixelDataProviderURL" in keywords
    wanted = {"CS", "DA", "DS", "IS", "LO", "SH", "TM", "UI", "US", "PN", "implicit"}
    assert compared.keys() >= (wanted if folder == "test_files" else {"LO", "PN", "CS"}), compared


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("DS", b"1.5\\ -2\\3e1 "),
        ("DS", b"one"),
        ("DS", b"   "),
        ("IS", b"7.0"),
        ("IS", b"7.5"),
        ("US", b"\x01\x02"),
        ("US", b"\x01\x02\x03"),
        ("US", b"\x01\x02\x03\x04"),
        ("FD", bytes(8)),
        ("LO", "Sch\xe4del".encode("latin-1")),
        ("LO", "頭".encode("iso2022_jp")),
        ("LO", b" head \\ neck \0"),
        ("UI", b"1.2.3\0"),
        ("UI", b""),
        ("TM", b"101010 "),
        ("CS", b"\xff\xfe"),
        ("UN", b"12"),
        ("ZZ", b"12"),
    ],
)
@pytest.mark.parametrize("implicit", [False, True])
def test_values_right_and_wrong(vr: str, value: bytes, implicit: bool) -> None:
    tag = {"UI": 0x00080018, "CS": 0x00080060, "LO": 0x0008103E, "TM": 0x00080030, "US": 0x00280010}.get(vr, 0x00280030)

    def made() -> Any:
        dataset = pydicom.Dataset()
        dataset.SpecificCharacterSet = ["ISO_IR 100", "ISO 2022 IR 87"]
        kept = None if implicit else vr
        dataset[tag] = RawDataElement(BaseTag(tag), kept, len(value), value, 0, implicit, True, True, None)
        return dataset

    keyword = keyword_for_tag(tag)
    assert outcome(HeaderView(made()), keyword) == outcome(made(), keyword)


def test_of_private_elements() -> None:
    dataset = pydicom.Dataset()
    dataset.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", 800)
    view = HeaderView(dataset)
    assert view.private_block(0x0043, "GEMS_PARM_01")[0x39].value == 800
    for group, creator in ((0x0043, "SIEMENS"), (0x0019, "GEMS_PARM_01")):
        with pytest.raises(KeyError):
            view.private_block(group, creator)
    assert view.get("EchoTime") is None
