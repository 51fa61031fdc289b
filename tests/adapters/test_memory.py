"""Memory of MONAI and TorchIO loaders with worker processes: that of the patches, whatever the size of the volumes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("monai")
pytest.importorskip("torchio")

MB = 1_000_000

SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
import psutil, torch
from pathlib import Path
kind, folder, store, count = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
torch.set_num_threads(1)

def pss():
    me = psutil.Process()
    return sum(process.memory_full_info().pss for process in [me, *me.children(recursive=True)])

def main():
    if kind == "monai":
        import monai.transforms as mt
        from monai.data import DataLoader
        from radioloader.monai import Dataset
        keys = ["image", "label"]
        crop = mt.RandCropByPosNegLabeld(keys, "label", (32, 32, 32), 1, 1, 2)
        transform = mt.Compose([mt.LoadImaged(keys), mt.EnsureChannelFirstd(keys), crop])
        data = [{"image": str(path), "label": str(path)} for path in sorted(folder.glob("*.nii"))]
        loader = DataLoader(Dataset(data, transform, store=store, progress=False), batch_size=2, num_workers=4)
    else:
        import torchio as tio
        import radioloader as rl
        from radioloader.torchio import Queue, SubjectsDataset
        files = {path.stem: str(path) for path in sorted(folder.glob("*.nii"))}
        rl.ingest(store, {"mri": files, "seg": files}, labels=["seg"])
        queue = Queue(SubjectsDataset(store, "mri", "seg"), 4, 2, tio.UniformSampler(32))
        loader = tio.SubjectsLoader(queue, batch_size=2, num_workers=4)
    highest = 0
    for _ in range(2):
        for number, batch in enumerate(loader):
            if number % 4 == 0:
                highest = max(highest, pss())
    print(highest)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("kind", ["monai", "torchio"])
def test_four_workers_hold_no_volumes(
    kind: str, write_image: Callable[..., Path], tmp_path: Path, counts: Callable[[int, int], int]
) -> None:
    """As much as the same loader of volumes that are hardly larger than a patch, and 200 MB at most."""
    if counts(0, 1) == 0:
        pytest.skip("takes 25 s; `make stress` runs it, with 30 volumes of 512x512x280")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    shapes, count = {"small": (40, 40, 40), "large": (512, 512, 280)}, 30
    found = {}
    for name, shape in shapes.items():
        volume = np.zeros(shape, np.int16)
        volume[4:-4:3, 4:-4, 4:-4] = 1
        for number in range(count):
            volume[0, 0, 0] = number  # or they would be one volume
            write_image(tmp_path / name / f"s{number:02d}.nii", volume)
        command = [sys.executable, str(script), kind, str(tmp_path / name), str(tmp_path / f"{name}.store"), str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3000)
        assert done.returncode == 0, done.stderr
        found[name] = int(done.stdout.split()[-1])
        for path in (tmp_path / name).iterdir():
            path.unlink()
    assert found["large"] - found["small"] < 200 * MB, {name: f"{value / MB:.0f} MB" for name, value in found.items()}
