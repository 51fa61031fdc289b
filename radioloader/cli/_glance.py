"""What ``radioloader info`` says below its table: what the catalog knows, in a few lines."""

from __future__ import annotations

from typing import Any

__all__ = ["glance"]

_CLASSES = 12


def glance(known: Any) -> list[str]:
    """Lines about a :class:`~radioloader.overview.survey.Survey`; none about what a store has nothing of.

    Args:
        known: The survey.
    """
    from radioloader.overview.wording import count

    if not any(map(len, known.cohort.values())):
        return _problems(known)
    lines = [line for facts in known.cohort.values() if len(facts) for line in _collection(facts)]
    missing = [f"{name} {count(len(which), 'subject')}" for name, which in known.lacking.items() if which]
    missing += [f"{name} {count(int(gone.sum()), 'value')}" for name, gone in known.missing.items() if gone.any()]
    lines.append(f"missing: {', '.join(missing) or 'nothing'}")
    odd = {name: sum(place[0] == name for place in known.outliers) for name in known.cohort}
    where = ", ".join(f"{number} of {name}" for name, number in odd.items() if number)
    lines.append(f"outliers: {where or 'none'}" + ("; radioloader report says why" if where else ""))
    same = sum(map(len, known.duplicates))
    lines.append(
        f"duplicates: {count(same, 'volume')} in {count(len(known.duplicates), 'group')}"
        if same
        else "duplicates: none"
    )
    return lines + _problems(known)


def _problems(known: Any) -> list[str]:
    if not known.problems:
        return []
    return [f"not in the store: {len(known.failed)} failed, {len(known.left_out)} left out"]


def _collection(facts: Any) -> list[str]:
    import numpy as np

    from radioloader.overview.facts import class_names
    from radioloader.overview.wording import figure

    if facts.kind == "image":
        finite = np.isfinite(facts.mean)
        if not finite.any():
            return [f"{facts.name}: no finite voxels"]
        low, high, mean = facts.low[finite].min(), facts.high[finite].max(), np.median(facts.mean[finite])
        return [f"{facts.name}: values {figure(low)} to {figure(high)}, median of the means {figure(mean)}"]
    names = class_names(facts)
    parts = []
    for value in facts.class_values[:_CLASSES]:
        ml = facts.class_ml(value)
        parts.append(f"{names[value]} in {int((ml > 0).sum())}, median {figure(float(np.median(ml[ml > 0])))} ml")
    more = len(facts.class_values) - _CLASSES
    empty = int((facts.nonzero == 0).sum())
    return [
        f"{facts.name}: {'class ' if len(parts) == 1 else 'classes ' if parts else ''}{'; '.join(parts) or 'no class counted'}"
        + (f"; and {more} more classes" if more > 0 else "")
        + (f"; {empty} empty" if empty else "")
    ]
