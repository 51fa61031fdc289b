"""Which subjects a data module trains on: from what its arguments say to a split."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from radioloader.container.radiobject import RadiObject
from radioloader.datasets.manifest import SplitManifest
from radioloader.datasets.split import Split, k_folds, split_by_column, split_subjects
from radioloader.errors import ConfigError

__all__ = ["ColumnOrMapping", "SplitLike", "settle"]

SplitLike = Sequence[float] | Split | Mapping[str, Sequence[str]] | str | os.PathLike[str]
ColumnOrMapping = str | Mapping[str, Any]

_FRACTIONS = (0.7, 0.1, 0.2)


def settle(
    store: RadiObject,
    *,
    split: SplitLike | None,
    split_column: str | None,
    groups: ColumnOrMapping | None,
    stratify: ColumnOrMapping | None,
    folds: int | None,
    fold: int | None,
    held_out: float,
    seed: int,
) -> tuple[Split, dict[str, Any]]:
    """The split that the arguments of a data module ask for, and its recipe as plain values.

    Raises:
        ConfigError: Arguments contradict each other, or the split does not fit the store.
    """
    asked = [name for name, given in _asked(split, split_column, folds, fold).items() if given]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} each say how subjects are split; give one of them")
    drawn = folds is not None or (split_column is None and not isinstance(split, Split | Mapping | str | os.PathLike))
    if not drawn and (groups is not None or stratify is not None):
        raise ConfigError(
            "groups and stratify are for a split that is drawn: leave them out, or give fractions or folds"
        )
    if held_out and folds is None:
        raise ConfigError(f"held_out={held_out} is for folds; otherwise split=(train, val, test) says it")
    how = {"seed": seed, "groups": _named(groups), "stratify": _named(stratify)}
    values = {"groups": _values(store, groups), "stratify": _values(store, stratify)}
    subjects = store.obs_subject_ids
    if folds is not None or fold is not None:
        if folds is None or fold is None:
            raise ConfigError(
                f"folds={folds} and fold={fold}: give both, the number of folds and which one is validated"
            )
        splits = k_folds(subjects, folds, seed=seed, test=held_out, **values)
        if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < folds:
            raise ConfigError(f"fold={fold!r} must be a whole number from 0 to {folds - 1}, below folds={folds}")
        return splits[fold], {"how": "folds", "folds": folds, "fold": fold, "held_out": held_out, **how}
    if split_column is not None:
        return split_by_column(_values(store, split_column) or {}), {"how": "column", "column": split_column}
    if isinstance(split, Split):
        return split, {"how": "told"}
    if isinstance(split, Mapping):
        return Split.of(split), {"how": "told"}
    if isinstance(split, str | os.PathLike):
        return _from_file(split, store)
    fractions = _FRACTIONS if split is None else split
    return split_subjects(subjects, fractions, seed=seed, **values), {
        "how": "fractions",
        "split": list(fractions),
        **how,
    }


def _asked(split: Any, column: str | None, folds: int | None, fold: int | None) -> dict[str, bool]:
    return {
        "split": split is not None,
        "split_column": column is not None,
        "folds": folds is not None or fold is not None,
    }


def _from_file(path: str | os.PathLike[str], store: RadiObject) -> tuple[Split, dict[str, Any]]:
    if not SplitManifest.is_in(path):
        return Split.load(path), {"how": "file", "file": os.path.basename(os.fspath(path))}
    manifest = SplitManifest.load(path)
    manifest.check(store)
    return manifest.split, dict(manifest.recipe)


def _named(values: ColumnOrMapping | None) -> str | None:
    return values if values is None or isinstance(values, str) else "a mapping"


def _values(store: RadiObject, values: ColumnOrMapping | None) -> Mapping[str, Any] | None:
    """Value by subject, from a column of ``obs_meta`` where its name was given."""
    if not isinstance(values, str):
        return values
    everyone = zip(store.snapshot.subject_ids, store.snapshot.metadata([values])[values].tolist(), strict=True)
    chosen = set(store.obs_subject_ids)
    return {subject: value for subject, value in everyone if subject in chosen}
