"""The Python and console blocks of the pages on DICOM run, in their order, on a folder named ``dicom`` in the current one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import radioloader as rl
from radioloader.cli.main import app
from radioloader.ingestion.identity import IdentityWarning

pytest.importorskip("highdicom")

from tests.formats.dicom.make import real_volume, write_localizer, write_series
from tests.formats.dicom.structures import on_slice, write_rtstruct

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two patients with a CT, its structure set and a T1w MR each; one has a localizer, too."""
    voxels, affine = real_volume()
    voxels = np.tile(voxels, (3, 3, 3))
    affine[:3, :3] /= 2
    square = np.array([[40, 40], [60, 40], [60, 60], [40, 60]])
    for number in (1, 2):
        who: dict[str, Any] = {"patient": {"PatientID": f"P{number}"}, "study": f"study {number}"}
        folder = tmp_path / "dicom" / f"P{number}"
        write_series(folder / "A", voxels + number, affine, series="ct", description="THORAX", **who)
        grid = rl.scan(folder / "A").volumes[0].grid
        assert grid is not None
        planes = {"GTV-1": range(20, 30), "Lung_L": range(40, 50)}
        drawn = {name: [on_slice(grid, z, square) for z in places] for name, places in planes.items()}
        whose = {"PatientID": f"P{number}"}
        write_rtstruct(folder / "RS.dcm", grid, drawn, edit=lambda dataset, whose=whose: dataset.update(whose))
        write_series(folder / "B", voxels + number, affine, modality="MR", series="mr", description="T1 MPRAGE", **who)
    write_localizer(tmp_path / "dicom" / "P1" / "C", who="P1", study="study 1")
    (tmp_path / "dicom" / "readme.txt").write_text("two patients")
    (tmp_path / "subjects.csv").write_text("PatientID,obs_subject_id\nP1,sub-01\nP2,sub-02\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Model(torch.nn.Module):
    """What ``model`` is in the snippets: two classes."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images, 600 - images], dim=1)


def _run(page: str) -> dict[str, Any]:
    blocks = re.findall(r"^```(python|console)\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    names: dict[str, Any] = {"rl": rl, "model": Model()}
    for number, (kind, block) in enumerate(blocks, 1):
        if kind == "python":
            exec(compile(block, f"{page}, block {number}", "exec"), names)
            continue
        for line in block.splitlines():
            words = [word.strip('"') for word in re.findall(r'"[^"]*"|[^\s"]+(?:"[^"]*")?', line)]
            assert words[0] == "radioloader"
            result = CliRunner().invoke(app, words[1:])
            assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception}"
    return names


def test_dicom_page(clinic: Path) -> None:
    import pydicom

    names = _run("docs/dicom.md")
    assert (clinic / "found.csv").read_text().count("\n") == 10  # heading, 4 series, 3 localizers, 2 structure sets
    assert names["numbers"] == {1: 1}
    assert next(iter(names["loader"]))["image"].shape == (2, 1, 96, 96, 48)
    written = pydicom.dcmread(clinic / "pred.dcm")
    assert written.PatientID in ("P1", "P2")
    assert written.SegmentSequence[0].SegmentLabel == "tumour"
    assert rl.open("named").obs_subject_ids == ["sub-01", "sub-02"]
    assert set(rl.open("chosen").collection_names) == {"T1", "thin", "GTV"}


def test_privacy_page(clinic: Path) -> None:
    with pytest.warns(IdentityWarning, match="PatientAge, PatientSex"):
        names = _run("docs/privacy.md")
    listed = re.findall(r"^\| [\w ]+ \| ([A-Z]\w+(?:, [A-Z]\w+)*) \|$", (ROOT / "docs/privacy.md").read_text(), re.M)
    assert sorted(", ".join(listed).split(", ")) == sorted(names["TECHNICAL"])
    assert re.fullmatch(r"[0-9a-f]{16}", names["volume"].obs_subject_id)


def test_what_the_pages_say_of_exit_statuses(clinic: Path) -> None:
    runner = CliRunner()
    voxels, affine = real_volume((20, 18, 12))
    write_series(clinic / "gap", voxels, affine, drop=[5])
    assert runner.invoke(app, ["scan", "gap"]).exit_code == 1
    assert runner.invoke(app, ["scan", "gap", "--on-irregular", "resample"]).exit_code == 0
    assert runner.invoke(app, ["ingest", "s", "--image", "CT=gap"]).exit_code == 1
    nothing = runner.invoke(app, ["ingest", "t", "--image", "PT=gap"])
    assert isinstance(nothing.exception, rl.errors.ConfigError)  # main() makes 2 of it
    assert "holds no volume of modality PT; it holds CT (1)" in str(nothing.exception)
