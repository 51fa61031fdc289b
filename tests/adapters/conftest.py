"""A real brain as files, small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture(scope="session")
def brain() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """T1 (int16) and tissues (uint8: 1 grey, 2 white matter) of nilearn's brain at 2 mm, and an oblique affine."""
    nilearn = pytest.importorskip("nilearn")
    data = Path(nilearn.__file__).parent / "datasets" / "data"
    part = (slice(40, 160, 2), slice(40, 200, 2), slice(50, 150, 2))
    name = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
    t1, grey, white = (np.asarray(nib.load(data / name.format(kind)).dataobj)[part] for kind in ("t1", "gm", "wm"))
    tissue = np.where(white > 140, 2, np.where(grey > 140, 1, 0)).astype(np.uint8)
    a, b = 0.15, -0.1
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    )
    affine = nib.affines.from_matvec(turn @ np.diag([-2.0, 2.0, 2.2]), [60.0, -90.0, -40.0])
    return t1.astype(np.int16) * 7, tissue, affine


@pytest.fixture(scope="session")
def make_datalist(
    brain: tuple[np.ndarray[Any, Any], ...], write_image: Callable[..., Path]
) -> Callable[..., list[dict[str, Any]]]:
    """``make_datalist(folder, items=3)``: the brain as several items of MONAI's datalists, of growing shape."""

    def make(folder: Path, items: int = 3) -> list[dict[str, Any]]:
        t1, tissue, affine = brain
        data = []
        for number in range(items):
            part = (slice(0, t1.shape[0] - items + 1 + number),)
            image = write_image(folder / f"case{number}_t1.nii.gz", t1[part] + number, affine)
            label = write_image(folder / f"case{number}_seg.nii.gz", tissue[part], affine)
            data.append({"image": str(image), "label": str(label), "age": 30 + number})
        return data

    return make


@pytest.fixture(scope="session")
def datalist(make_datalist: Callable[..., list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three items. Do not change the files."""
    return make_datalist(tmp_path_factory.mktemp("datalist"))


@pytest.fixture(scope="session")
def brain_store(datalist: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The items as subjects s0, s1, s2 of a store: collections T1w and tissue, column age. Do not change it."""
    import radioloader as rl

    root = tmp_path_factory.mktemp("brain_store")
    (root / "meta.csv").write_text(
        "subject_id,age\n" + "".join(f"s{i},{item['age']}\n" for i, item in enumerate(datalist))
    )
    sources = {
        name: {f"s{number}": item[key] for number, item in enumerate(datalist)}
        for name, key in (("T1w", "image"), ("tissue", "label"))
    }
    uri = str(root / "store")
    assert rl.ingest(uri, sources, labels=["tissue"], obs_meta=root / "meta.csv", workers=1).ok
    return uri
