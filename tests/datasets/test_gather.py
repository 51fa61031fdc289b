"""Results of all ranks: complete, each once."""

from __future__ import annotations

from typing import Any

import pytest

import radioloader as rl
from radioloader.errors import EvaluationError


def test_alone_it_checks_and_orders(brains: Any) -> None:
    dataset = rl.VolumeDataset(brains.uri, image="T1w")
    results = {subject: number for number, subject in enumerate(reversed(brains.subjects))}
    assert list(rl.gather_cases(results, dataset).items()) == [(s, 3 - n) for n, s in enumerate(brains.subjects)]
    assert rl.gather_cases({"b": 1, "a": 2}, ["a", "b"]) == {"a": 2, "b": 1}


def test_a_str_is_one_case() -> None:
    assert rl.gather_cases({"sub-01": 0.5}, "sub-01") == {"sub-01": 0.5}


def test_missing_and_unknown_cases_are_named() -> None:
    with pytest.raises(
        EvaluationError, match=r"1 of 3 cases have no result, such as \['c'\]; 1 results are of unknown cases"
    ) as caught:
        rl.gather_cases({"a": 1, "b": 2, "x": 3}, ["a", "b", "c"])
    assert "key the results by obs_subject_id" in str(caught.value)


def test_a_case_of_two_ranks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed

    from radioloader.datasets import gather

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(gather, "all_gather", lambda mine, group: [mine, {"a": 9}])
    with pytest.raises(EvaluationError, match=r"1 cases have several results, such as 'a' from ranks \[0, 1\]"):
        rl.gather_cases({"a": 1}, ["a"])
