from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

import radioloader as rl


def test_predictions_lie_in_the_bucket(s3: Any, cohort: Path, store_uri: str, tmp_path: Path) -> None:
    uri, local = s3.uri(), shutil.copytree(store_uri, tmp_path / "store")
    assert rl.ingest(uri, {"T1w": cohort / "images"}, workers=1, config=s3.config()).ok
    torch.manual_seed(0)
    arguments: Any = {"model": torch.nn.Conv3d(1, 3, 3, padding=1), "image": "T1w", "patch_size": 12, "progress": False}
    subjects = ["sub-01", "sub-02"]
    report = rl.predict(uri, subjects=subjects[:1], config=s3.config(), **arguments)
    assert report.predicted == subjects[:1]
    report = rl.predict(uri, subjects=subjects, config=s3.config(), **arguments)
    assert (report.predicted, report.skipped) == (subjects[1:], subjects[:1])
    rl.predict(local, subjects=subjects, **arguments)
    for subject in subjects:
        found = rl.open(uri, config=s3.config())["pred"].loc[subject].to_numpy()
        assert np.array_equal(found, rl.open(local)["pred"].loc[subject].to_numpy())
