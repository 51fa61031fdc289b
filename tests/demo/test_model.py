"""Dice by hand-counted examples, and the shapes of the model."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("monai")
pytest.importorskip("lightning")

import torch

from radioloader.demo.model import TissueSegmenter, dice


def test_dice() -> None:
    truth = np.array([0, 1, 1, 2, 2, 2])
    prediction = np.array([0, 1, 2, 2, 2, 0])
    assert dice(prediction, truth, label=1) == pytest.approx(2 * 1 / (1 + 2))
    assert dice(prediction, truth, label=2) == pytest.approx(2 * 2 / (3 + 3))
    assert dice(truth, truth, label=2) == 1.0
    assert dice(np.zeros(3), np.ones(3), label=1) == 0.0
    assert dice(np.zeros(3), np.zeros(3), label=1) == 1.0  # neither has it


def test_gain_of_the_scanner_does_not_matter() -> None:
    torch.manual_seed(0)
    model = TissueSegmenter(brain_means={"a": 100.0, "b": 800.0}, window=16, total_steps=2).eval()
    image = torch.rand(1, 1, 21, 17, 19) * 100
    one = model.segment({"image": image, "obs_subject_id": ["a"]})
    other = model.segment({"image": image * 8, "obs_subject_id": ["b"]})
    assert one.shape == (1, 21, 17, 19)
    assert one.dtype == torch.uint8
    assert torch.equal(one, other)
