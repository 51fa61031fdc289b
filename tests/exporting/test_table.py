"""The subjects' columns, as a file that reads as the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import radioloader as rl

SUBJECTS = list("abcd")


def written(make_store: Any, image: Any, tmp_path: Path, columns: dict[str, Any]) -> tuple[str, rl.ExportReport, str]:
    table = pd.DataFrame({"subject_id": SUBJECTS, **columns})
    uri = make_store({"T1w": {subject: image(0, (3, 3, 3)) for subject in SUBJECTS}}, obs_meta=table)
    report = rl.export(uri, tmp_path / "out")
    return uri, report, (tmp_path / "out" / "participants.tsv").read_text()


def test_every_kind_reads_as_it_was(make_store: Any, image: Any, tmp_path: Path, back: Any) -> None:
    uri, report, text = written(
        make_store,
        image,
        tmp_path,
        {
            "whole": pd.array([1, None, -3, 2**60], dtype="Int64"),
            "number": [1.0, np.nan, 0.1, 1e300],
            "truth": pd.array([True, False, None, True], dtype="boolean"),
            "day": pd.to_datetime(["2024-05-01", None, "1999-12-31", "2024-02-29"]),
            "moment": pd.to_datetime(
                ["2024-05-01T10:30", "2024-05-01", None, "2024-05-01T23:59:59.25"], format="ISO8601"
            ),
            "text": ["a", None, 'tab\tquote"line\nend', "ünï"],
            "code": ["0012", "7", None, "0"],
        },
    )
    lines = text.splitlines()
    assert lines[0] == "obs_subject_id\twhole\tnumber\ttruth\tday\tmoment\ttext\tcode"
    assert lines[1] == "a\t1\t1.0\ttrue\t2024-05-01\t2024-05-01T10:30:00\ta\t0012"
    assert lines[2] == "b\tn/a\tn/a\tfalse\tn/a\t2024-05-01\tn/a\t7"
    assert lines[-1] == f"d\t{2**60}\t1e+300\ttrue\t2024-02-29\t2024-05-01T23:59:59.25\tünï\t0"
    assert report.notes == []
    before, after = rl.open(uri).obs_meta.read(), rl.open(back(report)).obs_meta.read()
    pd.testing.assert_frame_equal(after, before)


def test_what_a_file_cannot_say_is_told(make_store: Any, image: Any, tmp_path: Path) -> None:
    _, report, _ = written(
        make_store,
        image,
        tmp_path,
        {"digits": ["1", "2", "3", "4"], "gone": ["n/a", "x", "y", "z"], "fine": ["1", "b", "c", "d"]},
    )
    assert report.ok
    assert report.notes == [
        "participants.tsv: the column 'digits' holds text that read as whole numbers in a file",
        "participants.tsv: 1 values of the column 'gone', such as 'n/a' of 'a', read as another one in a file",
    ]


def test_a_column_of_the_name_of_ours(make_store: Any, image: Any, tmp_path: Path) -> None:
    table = pd.DataFrame({"subject_id": ["a/b"], "source_id": ["theirs"]})
    uri = make_store({"T1w": {"a/b": image(0, (3, 3, 3))}}, obs_meta=table)
    rl.export(uri, tmp_path / "out")
    assert (tmp_path / "out" / "participants.tsv").read_text() == (
        "obs_subject_id\tsource_id_2\tsource_id\na_b\ta/b\ttheirs\n"
    )


def test_without_columns_there_is_no_table(make_store: Any, image: Any, tmp_path: Path) -> None:
    uri = make_store({"T1w": {"a": image(0, (3, 3, 3))}})
    for layout, there in (("nifti", False), ("bids", True)):
        report = rl.export(uri, tmp_path / layout, layout=layout)
        assert (tmp_path / layout / "participants.tsv").exists() == there
        assert "--obs-meta" not in report.command


def test_several_volumes_of_a_subject(tmp_path: Path) -> None:
    from tests.ingestion.dicom_files import series

    series(tmp_path / "dicom", 0)
    series(tmp_path / "dicom", 1)
    rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, workers=1)
    volumes = rl.open(tmp_path / "store").CT
    report = rl.export(tmp_path / "store", tmp_path / "out")
    (subject,) = set(volumes.obs_subject_ids)
    assert (tmp_path / "out" / "volumes.tsv").read_text() == "file\tobs_subject_id\tobs_id\n" + "".join(
        f"CT/{obs_id}.nii.gz\t{subject}\t{obs_id}\n" for obs_id in volumes.obs_ids
    )
    assert all((tmp_path / "out" / "CT" / f"{obs_id}.nii.gz").is_file() for obs_id in volumes.obs_ids)
    assert report.volumes == 2
    assert report.subjects == 1
