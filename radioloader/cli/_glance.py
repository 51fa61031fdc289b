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
    if not known.failed and not known.left_out:
        return []
    numbers = f"{len(known.failed)} failed, {len(known.left_out)} left out"
    return [f"not in the store: {numbers}; radioloader report says which and why"]


def _collection(facts: Any) -> list[str]:
    import numpy as np

    from radioloader.overview.facts import class_names, region_ml
    from radioloader.overview.wording import figure

    if facts.kind == "image":
        finite = np.isfinite(facts.mean)
        if not finite.any():
            return [f"{facts.name}: no finite voxels"]
        low, high, mean = facts.low[finite].min(), facts.high[finite].max(), np.median(facts.mean[finite])
        return [f"{facts.name}: values {figure(low)} to {figure(high)}, median of the means {figure(mean)}"]
    every = list(class_names(facts).items())
    parts = [_ml(f"class {name}", facts.class_ml(value), len(facts)) for value, name in every[:_CLASSES]]
    parts += [f"and {len(every) - _CLASSES} more classes"] if len(every) > _CLASSES else []
    parts += [_ml(f"region {name}", ml, len(facts)) for name, _, ml in region_ml(facts)[:_CLASSES]]
    empty = int((facts.nonzero == 0).sum())
    parts += [f"{empty} empty"] if empty else []
    return [f"{facts.name}: {'; '.join(parts) or 'no class counted'}"]


def _ml(name: str, ml: Any, volumes: int) -> str:
    import numpy as np

    from radioloader.overview.wording import count, figure

    there = ml[ml > 0]
    median = f", median {figure(float(np.median(there)))} ml" if there.size else ""
    return f"{name} in {there.size:,} of {count(volumes, 'volume')}{median}"
