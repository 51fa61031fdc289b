"""rl.scan: what folders of DICOM hold, from the headers alone."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import ConfigError, MissingDependencyError
from radioloader.formats.dicom.frames import Ignored
from radioloader.ingestion import scan as scan_module
from tests.formats.dicom.make import tilt, uid, write_enhanced, write_garbage, write_report
from tests.formats.dicom.structures import on_slice, write_rtstruct
from tests.ingestion.dicom_files import AFFINE, grid_of, series, voxels


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scanned")
    series(root / "a" / "ct", 0, description="Thorax, 5 mm")
    series(root / "a" / "tilted", 1, affine=tilt(AFFINE, 8.0), description="Neck")
    series(root / "b" / "gap", 2, who="P2", drop=(3, 4))
    for echo in (1, 2):
        series(root / "b" / "mr", 3, who="P2", voxels=voxels(echo, (10, 12, 3)), modality="MR", echo=echo)
    write_enhanced(root / "b" / "dyn", voxels(5, (24, 20, 8, 4)), AFFINE, modality="MR", patient={"PatientID": "P2"})
    grid = grid_of(root / "a" / "ct")
    box = [(3.5, 2.5), (11.5, 2.5), (11.5, 9.5), (3.5, 9.5)]
    write_rtstruct(root / "a" / "rs", grid, {"GTV": [on_slice(grid, 2, box)], "Lung, left": [on_slice(grid, 3, box)]})
    write_report(root / "a" / "sr")
    write_garbage(root / "b" / "garbage")
    (root / "readme").write_text("hello " * 50)
    return root


@pytest.fixture(scope="module")
def found(root: Path) -> rl.Scan:
    return rl.scan(root, workers=1)


def of(found: rl.Scan, folder: str) -> list[rl.ScanItem]:
    return [item for item in found.items if item.folder.endswith(folder)]


def test_a_regular_series(found: rl.Scan) -> None:
    (item,) = of(found, "a/ct")
    assert (item.what, item.modality, item.number, item.description) == ("image", "CT", 1, "Thorax, 5 mm")
    assert (item.name, item.files, item.shape, item.axcodes, item.verdict) == ("", 8, (24, 20, 8), "LPS", "regular")
    assert item.spacing == pytest.approx((0.8, 0.9, 2.5))
    assert (item.study, item.series) == (uid("study", "study of P1"), uid("series", "study of P1", "series 0"))
    assert (item.problem, item.structures, item.patient_id) == ("", (), "P1")


def test_what_is_not_regular(found: rl.Scan) -> None:
    (tilted,) = of(found, "a/tilted")
    assert (tilted.verdict, tilted.problem) == ("tilted: 8.00 degrees", "")
    (gap,) = of(found, "b/gap")
    assert (gap.shape, gap.files) == ((24, 20, 6), 6)
    assert gap.verdict == "irregular: 1 gap (7.5 mm after slice 3, expected 2.5 mm)"
    assert "choose on_irregular=" in gap.problem
    assert not found.ok


def test_volumes_of_one_series(found: rl.Scan) -> None:
    echoes = of(found, "b/mr")
    assert [(item.name, item.files, item.shape) for item in echoes] == [
        ("echo1", 3, (10, 12, 3)),
        ("echo2", 3, (10, 12, 3)),
    ]
    assert [item.tags["EchoTime"] for item in echoes] == [5.0, 10.0]
    (dynamic,) = of(found, "b/dyn")
    assert (dynamic.shape, dynamic.files) == ((24, 20, 8, 4), 1)


def test_labels_and_files_that_are_neither(found: rl.Scan, root: Path) -> None:
    (label,) = [item for item in found.items if item.what != "image"]
    assert (label.what, label.modality, label.structures) == ("rtstruct", "RTSTRUCT", ("GTV", "Lung, left"))
    assert found.files == 8 + 8 + 6 + 6 + 1 + 1 + 1 + 1 + 1
    assert [file.path for file in found.broken] == [f"{root}/b/garbage"]
    assert found.left_out() == [
        f"{root}/b/garbage: {found.broken[0].reason}",
        f"1 file left out: no volume (Basic Text SR Storage) (such as {root}/a/sr)",
        f"1 file left out: not DICOM (such as {root}/readme)",
    ]


def test_policies_are_those_of_an_ingest(root: Path) -> None:
    split = rl.scan(root / "b" / "gap", on_irregular="split", workers=1)
    assert [(item.name, item.shape) for item in split.items] == [("part1", (24, 20, 3)), ("part2", (24, 20, 3))]
    assert split.ok
    (resampled,) = rl.scan(root / "b" / "gap", on_irregular="resample", workers=1).items
    assert resampled.shape == (24, 20, 8)
    assert "resampled" in resampled.verdict
    (refused,) = rl.scan(root / "a" / "tilted", on_tilt="error", workers=1).items
    assert "on_tilt='error' refuses" in refused.problem


def test_as_csv(found: rl.Scan, tmp_path: Path) -> None:
    found.to_csv(tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(found.items) == 7
    first = next(row for row in rows if row["folder"].endswith("a/ct"))
    assert (first["description"], first["shape"], first["spacing"]) == ("Thorax, 5 mm", "24x20x8", "0.8x0.9x2.5")
    assert first["verdict"] == "regular"
    assert next(row for row in rows if row["what"] == "rtstruct")["structures"] == "GTV, Lung, left"
    assert not {"patient_id", "tags"} & set(first)
    text = (tmp_path / "x.csv").read_text()
    assert "P1" not in text.replace(str(found.roots[0]), "")
    assert "Quillfeather" not in text


def test_as_json(found: rl.Scan, tmp_path: Path, root: Path) -> None:
    found.to_json(tmp_path / "x.json")
    result = json.loads((tmp_path / "x.json").read_text())
    first = next(item for item in result["items"] if item["folder"].endswith("a/ct"))
    assert first["shape"] == [24, 20, 8]
    assert first["spacing"] == pytest.approx([0.8, 0.9, 2.5])
    assert first["number"] == 1
    label = next(item for item in result["items"] if item["what"] == "rtstruct")
    assert label["structures"] == ["GTV", "Lung, left"]
    assert {"path": f"{root}/readme", "reason": "not DICOM", "broken": False} in result["left_out"]
    assert [file["path"] for file in result["left_out"] if file["broken"]] == [f"{root}/b/garbage"]


def test_several_roots_and_files(root: Path) -> None:
    both = rl.scan(root / "a" / "ct", root / "b" / "mr", root / "a", workers=1)
    assert both.files == 16 + 2 + 6  # each file once
    assert len(of(both, "a/ct")) == 1
    one = rl.scan(root / "b" / "dyn", workers=1)
    assert (one.files, one.ok) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "scan needs a folder or a file"),
        (["/no/such/folder"], "/no/such/folder does not exist"),
        ([".", {"on_tilt": "x"}], "on_tilt='x' is not one of 'keep', 'resample', 'error'"),
        ([".", {"on_irregular": "x"}], "on_irregular='x' is not one of"),
        ([".", {"slice_tolerance_mm": -1}], "slice_tolerance_mm=-1 is not a distance in mm"),
        ([".", {"slice_tolerance_mm": float("nan")}], "slice_tolerance_mm=nan is not a distance in mm"),
    ],
)
def test_wrong_arguments(arguments: list[Any], message: str) -> None:
    options = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
    with pytest.raises(ConfigError, match=message):
        rl.scan(*arguments, **options)


def test_an_empty_folder(tmp_path: Path) -> None:
    found = rl.scan(tmp_path)
    assert (found.files, found.items, found.ok, found.left_out()) == (0, [], True, [])


def test_links_and_hidden_files(tmp_path: Path) -> None:
    series(tmp_path / "real", 0)
    (tmp_path / "dicom").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "dicom" / "link")
    os.symlink(tmp_path / "dicom", tmp_path / "dicom" / "loop")
    os.symlink(tmp_path / "nowhere", tmp_path / "dicom" / "dangling")
    (tmp_path / "dicom" / ".hidden").write_bytes(b"\0" * 128 + b"DICM")
    os.mkfifo(tmp_path / "dicom" / "pipe")
    found = rl.scan(tmp_path / "dicom", workers=1)
    assert [item.shape for item in found.items] == [(24, 20, 8)]
    reasons = {os.path.basename(file.path): file.reason for file in found.ignored}
    assert reasons == {"dangling": "cannot be read: No such file or directory", "pipe": "no regular file"}


def test_pixels_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 MB of pixels in each file, of which next to nothing is read."""
    series(tmp_path / "dicom", 0, voxels=np.zeros((1448, 1448, 3), np.int16))
    read = 0
    real = open

    class Counting:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *what: Any) -> None:
            self.stream.close()

        def read(self, *size: int) -> bytes:
            nonlocal read
            data = self.stream.read(*size)
            read += len(data)
            return data

    monkeypatch.setattr(
        "radioloader.formats.dicom.headers.open", lambda *args, **kw: Counting(real(*args, **kw)), raising=False
    )
    found = rl.scan(tmp_path / "dicom", workers=1)
    assert found.items[0].shape == (1448, 1448, 3)
    assert 0 < read < 3 * 20_000


def test_what_would_take_long_is_read_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series(tmp_path / "dicom", 0, voxels=voxels(0, (4, 4, 40)))
    seen: list[tuple[int, int]] = []
    run = scan_module.run

    def watched(function: Any, tasks: Any, **more: Any) -> Any:
        tasks = list(tasks)
        seen.append((len(tasks), more["workers"]))
        return run(function, tasks, **more)

    monkeypatch.setattr(scan_module, "run", watched)
    monkeypatch.setattr(scan_module, "_CHUNK", 8)
    quick = rl.scan(tmp_path / "dicom", workers=2)
    assert seen == []
    monkeypatch.setattr(scan_module, "_TRIED_S", 0.0)
    monkeypatch.setattr(scan_module, "_WORTH_S", 0.0)
    alone = rl.scan(tmp_path / "dicom", workers=1)
    assert seen == []
    found = rl.scan(tmp_path / "dicom", workers=2)
    assert seen == [(4, 2)]  # the first of five chunks told how long the others would take
    assert found.items == alone.items == quick.items
    assert found.volumes[0].slices == alone.volumes[0].slices


def test_files_of_a_process_that_died_are_named(tmp_path: Path) -> None:
    lost = scan_module._lost((("/a", "/b"), ()))
    assert [(file.path, file.broken) for file in lost if isinstance(file, Ignored)] == [("/a", True), ("/b", True)]
    assert all("died" in file.reason for file in lost if isinstance(file, Ignored))


def test_without_pydicom_the_command_that_installs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series(tmp_path / "dicom", 0)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pydicom"]:
        monkeypatch.setitem(sys.modules, name, None)
    for use in (
        lambda: rl.scan(tmp_path / "dicom"),
        lambda: rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, workers=1),
    ):
        with pytest.raises(MissingDependencyError, match=r"pip install 'radioloader\[dicom\]'"):
            use()
    assert not (tmp_path / "store").exists()
