"""Results of an evaluation that was shared among ranks, brought together and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from radioloader.errors import EvaluationError

__all__ = ["gather_cases"]

Result = TypeVar("Result")


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
        parts = [None] * torch.distributed.get_world_size(group)
        torch.distributed.all_gather_object(parts, dict(results), group=group)
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


def _ids(cases: Any) -> Iterable[Any]:
    if isinstance(cases, str):  # one case, not one for each of its letters
        return [cases]
    subjects: Iterable[Any] = getattr(cases, "subjects", cases)
    return subjects
