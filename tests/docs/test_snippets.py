"""The Python blocks of the README and the docs run, on a store named ``cohort`` in the current folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import radioloader as rl

ROOT = Path(__file__).resolve().parents[2]
SUBJECTS = [f"sub-{number:02d}" for number in range(1, 7)]


@pytest.fixture(scope="module")
def folder(write_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``cohort``: 6 subjects with T1w, T2w, CT, a probability map and labels of 96 x 100 x 98 voxels, smooth ones, to be quick."""
    root = tmp_path_factory.mktemp("docs")
    x, y, z = np.ogrid[:96, :100, :98]
    image = (x * 3 + y * 2 + z).astype(np.int16)
    label = ((x - 48) ** 2 + (y - 50) ** 2 + (z - 49) ** 2 < 900).astype(np.uint8)
    label[40:50, 40:50, 40:50] = 2
    rows = ["participant_id\tage\tsex\tsite"]
    files: dict[str, dict[str, Path]] = {name: {} for name in ("T1w", "T2w", "CT", "map", "seg")}
    for number, subject in enumerate(SUBJECTS):
        for name in ("T1w", "T2w", "CT"):
            files[name][subject] = write_image(root / name / f"{subject}.nii.gz", image + np.int16(number))
        files["map"][subject] = write_image(root / "map" / f"{subject}.nii.gz", (label > 0).astype(np.float32))
        files["seg"][subject] = write_image(root / "seg" / f"{subject}.nii.gz", label)
        rows.append(f"{subject}\t{30 + number}\t{'MF'[number % 2]}\t{'AB'[number // 3]}")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    report = rl.ingest(root / "cohort", files, labels=["seg"], obs_meta=root / "participants.tsv", workers=1)
    assert report.ok, str(report)
    return root


class Trainer:
    """Stands for Lightning's, which has tests of its own: takes what the snippets give it."""

    def fit(self, model: Any, data: Any, **_: Any) -> None:
        next(iter(data.train_dataloader()))


class Model(torch.nn.Module):
    """What ``model`` is in the snippets: a DDP wrapper has the bare one as ``module``."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images, 150 - images], dim=1)

    @property
    def module(self) -> Model:
        return self


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/datasets.md",
        "docs/distributed.md",
        "docs/inference.md",
        "docs/monai.md",
        "docs/radiobject.md",
        "docs/report.md",
        "docs/scaling.md",
    ],
)
def test_snippets(page: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(folder, tmp_path / "page")  # what a page writes is not there for the next one
    monkeypatch.chdir(folder)
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    assert blocks
    names: dict[str, Any] = {
        "rl": rl,
        "store": rl.open("cohort"),
        "trainer": Trainer(),
        "model": Model(),
        "evaluate": lambda model, batch: float(batch["label"].float().mean()),
        "validation": SUBJECTS[:3],
        "mask": np.zeros((96, 100, 98), np.uint8),
    }
    if page == "docs/inference.md":
        mt = pytest.importorskip("monai.transforms")
        load = [mt.LoadImaged("image"), mt.EnsureChannelFirstd("image"), mt.Spacingd("image", pixdim=(2, 2, 2))]
        names["prefix"] = mt.Compose(load)
        names["data"] = [{"image": str(folder / "CT" / "sub-02.nii.gz")}]
        names["model"] = torch.nn.Conv3d(1, 2, 3, padding=1)
        names["net"] = lambda images: (images, None)
    names["dataset"] = rl.PatchDataset("cohort", image="T1w", label="seg", patch_size=96)
    names["loader"] = rl.DataLoader(names["dataset"], batch_size=4, shuffle=True)
    for number, block in enumerate(blocks, 1):
        code = compile(block.replace("range(100)", "range(1)"), f"{page}, block {number}", "exec")
        exec(code, names)
    if page == "README.md":
        assert names["batch"]["image"].shape == (4, 1, 96, 96, 96)
        assert (folder / "sub-01_pred.nii.gz").exists()
    if page == "docs/inference.md":
        assert names["report"].ok
        assert nib.load(folder / "case0_pred.nii.gz").shape == (96, 100, 98)
        assert names["sliced"](torch.zeros(2, 1, 8, 8, 1)).shape == (2, 1, 8, 8, 1)
    if page == "docs/monai.md":
        assert names["dataset"][0]["image"].shape == (1, 96, 96, 96)
    if page == "docs/datasets.md":
        assert set(names["batch"]) >= {"image", "mask"}
    if page == "docs/report.md":
        assert (folder / "cohort-report" / "index.html").exists()
        assert (folder / "sub-01.png").exists()
    if page == "docs/distributed.md":
        assert list(names["results"]) == SUBJECTS[:3]
