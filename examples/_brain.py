"""The real brain in nilearn's wheel as files of a small study, for the ``--demo`` of the examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

CLASSES = ("background", "grey matter", "white matter")


def make_files(folder: Path, subjects: int = 4) -> list[dict[str, Any]]:
    """T1 images (int16) and tissue labels (uint8) of one real brain at 1 mm, as several subjects: cut and scaled differently.

    Args:
        folder: Where they go; made where there is none.
        subjects: How many.

    Returns:
        MONAI's datalist: one dict with ``image`` and ``label`` for each.
    """
    import nilearn

    data = Path(nilearn.__file__).parent / "datasets" / "data"
    name = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
    t1, grey, white = (nib.load(data / name.format(kind)) for kind in ("t1", "gm", "wm"))
    tissue = np.where(np.asarray(white.dataobj) > 140, 2, np.where(np.asarray(grey.dataobj) > 140, 1, 0)).astype(
        np.uint8
    )
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for number in range(subjects):
        part = (slice(3 * number, None), slice(None, 225 - 2 * number), slice(number, None))
        affine = t1.affine @ nib.affines.from_matvec(np.eye(3), [part[0].start, 0, part[2].start])
        image = np.asarray(t1.dataobj)[part].astype(np.int16) * (8 + number)
        paths = {"image": folder / f"sub-{number:02d}_T1w.nii.gz", "label": folder / f"sub-{number:02d}_seg.nii.gz"}
        nib.save(nib.Nifti1Image(image, affine), paths["image"])
        nib.save(nib.Nifti1Image(tissue[part], affine), paths["label"])
        items.append({key: str(path) for key, path in paths.items()})
    return items
