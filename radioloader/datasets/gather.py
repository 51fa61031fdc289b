"""Results of an evaluation that was shared among ranks, brought together and checked."""

from __future__ import annotations

import pickle
import time
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from radioloader.errors import EvaluationError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["all_gather", "gather_cases"]

Result = TypeVar("Result")

LONGEST_WAIT = 10.0  # seconds that a thread of the process group is given to let go of a tensor


def gather_cases(results: Mapping[str, Result], cases: Any, *, group: Any = None) -> dict[str, Result]:
    """Every case's result, on every rank, each exactly once.

    Under ``torch.distributed`` all ranks must call it, also those that had no case; it waits for them. Without it, it checks alone.

    Args:
        results: This rank's results by case, such as ``{"sub-01": 0.93}``; picklable.
        cases: All cases that there should be: a dataset of this package (its subjects), or their ids.
        group: Process group; None takes the default one.

    Returns:
        The results of all ranks, in the order of ``cases``.

    Raises:
        EvaluationError: A case is missing, came from several ranks, or is not one of ``cases``; names some of them.
    """
    import torch.distributed

    expected: list[str] = [str(case) for case in _ids(cases)]
    parts: list[Any] = [dict(results)]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts = all_gather(dict(results), group)
    ranks: dict[str, list[int]] = {}
    for rank, part in enumerate(parts):
        for case in part:
            ranks.setdefault(str(case), []).append(rank)
    problems = []
    missing = [case for case in expected if case not in ranks]
    if missing:
        problems.append(f"{len(missing)} of {len(expected)} cases have no result, such as {missing[:3]}")
    twice = {case: found for case, found in ranks.items() if len(found) > 1}
    if twice:
        case = next(iter(twice))
        problems.append(f"{len(twice)} cases have several results, such as {case!r} from ranks {twice[case]}")
    unknown = sorted(set(ranks) - set(expected))
    if unknown:
        problems.append(f"{len(unknown)} results are of unknown cases, such as {unknown[:3]}")
    if problems:
        raise EvaluationError(
            f"the evaluation is not complete: {'; '.join(problems)}. Evaluate with a loader that is neither shuffled nor random (every "
            "case then is on one rank), and key the results by obs_subject_id"
        )
    merged = {str(case): value for part in parts for case, value in part.items()}
    return {case: merged[case] for case in expected}


def all_gather(value: Any, group: Any = None) -> list[Any]:
    """The ``value`` (picklable) of each rank of ``group``, in the order of ranks; all ranks must call it.

    As ``torch.distributed.all_gather_object``, but no thread of gloo holds a tensor of it when it returns. Such a thread needs the
    interpreter's lock to drop a tensor; where the interpreter ends before it has it, the process is aborted
    (https://github.com/pytorch/pytorch/pull/179291). Evaluations come last, so theirs is the collective that this happens to.
    """
    import numpy as np
    import torch.distributed as dist

    size = dist.get_world_size(group)
    if "cpu:" not in dist.get_backend_config(group):  # no tensor that Python made reaches such a thread
        parts: list[Any] = [None] * size
        dist.all_gather_object(parts, value, group=group)
        return parts
    mine = np.frombuffer(pickle.dumps(value), np.uint8)
    lengths = _gather_rows(np.array([mine.size]), size, group).ravel()
    row = np.zeros(int(lengths.max()), np.uint8)
    row[: mine.size] = mine
    rows = _gather_rows(row, size, group)
    return [pickle.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def _gather_rows(row: np.ndarray, size: int, group: Any) -> np.ndarray:
    """``row`` (elements,) of each of the ``size`` ranks: (ranks, elements)."""
    import numpy as np
    import torch
    import torch.distributed as dist

    mine = torch.from_numpy(row.copy())
    found = [torch.empty_like(mine) for _ in range(size)]
    dist.all_gather(found, mine, group=group)
    rows = np.stack([tensor.numpy() for tensor in found])
    held = [weakref.ref(tensor) for tensor in (*found, mine)]
    del mine, found
    deadline = time.monotonic() + LONGEST_WAIT
    while any(tensor() is not None for tensor in held) and time.monotonic() < deadline:
        time.sleep(0.0005)  # without the interpreter's lock, which the thread that holds them waits for
    return rows


def _ids(cases: Any) -> Iterable[Any]:
    if isinstance(cases, str):  # one case, not one for each of its letters
        return [cases]
    subjects: Iterable[Any] = getattr(cases, "subjects", cases)
    return subjects
