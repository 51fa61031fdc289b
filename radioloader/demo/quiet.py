"""Keep out of the demo's output what libraries say on every run and what is as it should be here; nothing else."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_lightning", "quiet_monai_readers"]


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """No tips, no list of accelerators, no advice to use worker processes."""
    with _level("lightning.pytorch.utilities.rank_zero", logging.WARNING), warnings.catch_warnings():
        # Two cores: worker processes would take them from the training, and reading takes a few milliseconds.
        warnings.filterwarnings("ignore", message=r".*does not have many workers")
        # Lightning 2.6 with a newer torch than it knows.
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
        yield


@contextmanager
def quiet_monai_readers() -> Iterator[None]:
    """MONAI's LoadImage makes all its readers, also the one for DICOM on GPUs, which tells that it is not usable."""
    with _level("monai.data.nvimgcodec_pydicom_plugin", logging.ERROR), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"NvImgCodecPydicomReader")
        yield


@contextmanager
def _level(logger_name: str, level: int) -> Iterator[None]:
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
