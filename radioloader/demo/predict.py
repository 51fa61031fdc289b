"""Predict held-out subjects by sliding window and write the predictions on the source files' grids."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from radioloader.demo.cohort import CLASS_NAMES, Cohort
from radioloader.errors import GridMismatchError

if TYPE_CHECKING:
    from radioloader.demo.train import Training

__all__ = ["Prediction", "predict"]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one held-out subject.

    Attributes:
        subject: Its id.
        path: The NIfTI written, on the grid of the subject's image file.
        dice: Class name -> Dice, of `path` against the subject's label file, both as nibabel reads them.
        sha256: Of the predicted voxels in stored order: equal for equal predictions.
        image, truth, labels: Stored grid, shape (X, Y, Z), axes RAS: image in stored units, true and predicted labels.
        spacing: Voxel size along x, y, z in mm.
    """

    subject: str
    path: Path
    dice: dict[str, float]
    sha256: str
    image: NDArray[np.float32]
    truth: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    spacing: tuple[float, float, float]


def predict(
    store: Any,
    training: Training,
    *,
    cohort: Cohort,
    folder: Path,
    on_subject: Callable[[Prediction], None] = lambda prediction: None,
) -> list[Prediction]:
    """Predict every test subject from the store and write ``<subject>_pred.nii.gz`` into `folder`.

    Raises:
        GridMismatchError: A file that was written does not lie on the grid of its source file.
    """
    from radioloader.demo.model import dice

    folder.mkdir(parents=True, exist_ok=True)
    predictions = []
    for batch in training.data.test_dataloader():
        subject = batch["obs_subject_id"][0]
        labels: NDArray[np.uint8] = training.model.segment(batch)[0].numpy()
        volume = store.T1w.loc[subject]
        path = folder / f"{subject}_pred.nii.gz"
        volume.save_on_source_grid(labels, path)
        written = _on_grid_of(path, cohort.image(subject))
        truth = _on_grid_of(cohort.label(subject), cohort.image(subject))
        prediction = Prediction(
            subject=subject,
            path=path,
            dice={CLASS_NAMES[c]: round(dice(written, truth, label=c), 4) for c in (1, 2)},
            sha256=hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest(),
            image=batch["image"][0, 0].numpy(),
            truth=batch["label"][0, 0].numpy(),
            labels=labels,
            spacing=(float(volume.spacing[0]), float(volume.spacing[1]), float(volume.spacing[2])),
        )
        predictions.append(prediction)
        on_subject(prediction)
    return predictions


def _on_grid_of(path: Path, source: Path) -> NDArray[Any]:
    """Voxels of `path` as stored, after checking that its grid is exactly that of `source`."""
    import nibabel as nib

    ours, theirs = nib.load(path), nib.load(source)
    same_codes = all(
        np.array_equal(ours.header[key], theirs.header[key]) for key in ("sform_code", "qform_code", "pixdim")
    )
    if ours.shape != theirs.shape or not np.array_equal(ours.affine, theirs.affine) or not same_codes:
        raise GridMismatchError(
            f"{path.name} has shape {ours.shape} and affine {ours.affine.tolist()}, but its source {source} has shape "
            f"{theirs.shape} and affine {theirs.affine.tolist()}; please report this as a bug"
        )
    return np.asarray(ours.dataobj)
