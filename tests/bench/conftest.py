"""Stores that the tests of the bench share. None of them may be changed by a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl

CONFIG = rl.StorageConfig(write=rl.WriteConfig(tile=rl.TileConfig(extent=8)))


@pytest.fixture(scope="session")
def make_store(write_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """``make_store({"CT": {"a": array}}, labels=(), affine=None, **arguments of ingest)``: the URI of a store of these arrays."""

    def make(collections: dict[str, dict[str, Any]], *, labels: Any = (), affines: Any = None, **arguments: Any) -> str:
        root = tmp_path_factory.mktemp("bench")
        files = {
            name: {
                subject: write_image(root / name / f"{subject}.nii.gz", array, (affines or {}).get(name))
                for subject, array in arrays.items()
            }
            for name, arrays in collections.items()
        }
        given = {"config": CONFIG, "workers": 1, "allow_missing": True} | arguments
        report = rl.ingest(root / "store", files, labels=list(labels), **given)
        assert report.ok, str(report)
        return str(root / "store")

    return make


@pytest.fixture(scope="session")
def several(make_store: Callable[..., str]) -> str:
    """Image collections ``A`` (2 subjects), ``B`` and ``C`` (3), label collections ``seg`` and ``organs``."""
    image, label = np.zeros((9, 8, 7), np.int16), np.ones((9, 8, 7), np.uint8)
    image[0, 0, 0] = 5
    return make_store(
        {
            "A": {"p": image, "q": image},
            "B": {"p": image, "q": image, "r": image},
            "C": {"p": image, "q": image, "r": image},
            "seg": {"p": label, "q": label, "r": label},
            "organs": {"p": label},
        },
        labels=["seg", "organs"],
    )
