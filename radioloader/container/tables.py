"""The tables of a store as pandas frames: of its subjects, and of the volumes of a collection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.storage.snapshot import USER_PREFIX, Snapshot

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Obs", "ObsMeta"]

Places = npt.NDArray[np.int64]


class _Frame(ABC):
    """A table of which columns and rows are read when they are asked for."""

    def __init__(self, places: Places) -> None:
        self._places = places

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names of the columns."""

    @abstractmethod
    def _values(self, columns: Sequence[str]) -> dict[str, Any]:
        """Columns of all rows of the store, by name."""

    @abstractmethod
    def _where(self) -> str:
        """The table, for messages."""

    def read(self, columns: Sequence[str] | None = None, *, rows: slice | None = None) -> pd.DataFrame:
        """The table, one row a subject or volume, in the order of the selection that it belongs to.

        Args:
            columns: Which, and their order; None reads all.
            rows: Which, by place, such as ``slice(0, 100)``; None reads all.

        Raises:
            KeyNotFoundError: No such column.
        """
        import pandas as pd

        if isinstance(columns, str):
            raise ConfigError(f"columns={columns!r} is one name; give a list of names: columns=[{columns!r}]")
        if rows is not None and not isinstance(rows, slice):
            raise ConfigError(
                f"rows={rows!r} is a {type(rows).__name__}; give a slice of places, such as slice(0, 100)"
            )
        wanted = self.columns if columns is None else list(columns)
        unknown = [name for name in wanted if name not in self.columns]
        if unknown:
            raise KeyNotFoundError(
                f"{self._where()} has no column {unknown[0]!r}; it has {', '.join(map(repr, self.columns[1:])) or 'none'}"
            )
        places = self._places if rows is None else self._places[rows]
        values = self._values(wanted)
        return pd.DataFrame({name: values[name][places] for name in wanted}, index=pd.RangeIndex(len(places)))

    def __len__(self) -> int:
        return len(self._places)


class ObsMeta(_Frame):
    """The subjects' own columns, such as age and diagnosis. One row a subject.

    Args:
        snapshot: The version of the store.
        places: Which of its subjects.
    """

    def __init__(self, snapshot: Snapshot, places: Places) -> None:
        super().__init__(places)
        self._snapshot = snapshot

    def __repr__(self) -> str:
        return f"ObsMeta({len(self)} subjects; {', '.join(self.columns)}); read() gives a DataFrame"

    @property
    def columns(self) -> list[str]:
        """``obs_subject_id`` and the users' columns."""
        return ["obs_subject_id", *self._snapshot.metadata_columns]

    def _values(self, columns: Sequence[str]) -> dict[str, Any]:
        own = [name for name in columns if name != "obs_subject_id"]
        values = self._snapshot.metadata(own)
        kinds = self._snapshot.store.table("obs_meta").columns() if own else {}
        return {"obs_subject_id": _series(self._snapshot.subject_ids, "str")} | {
            name: _series(values[name], kinds[f"{USER_PREFIX}{name}"].kind) for name in own
        }

    def _where(self) -> str:
        return f"obs_meta of {self._snapshot.store.uri}"


class Obs(_Frame):
    """What the catalog says of the volumes of a collection: shape, spacing, source, hashes, statistics. One row a volume.

    Args:
        snapshot: The version of the store.
        collection: The collection.
        places: Which of its volumes.
    """

    _HIDDEN = frozenset({"header", "uri", "dicom"})

    def __init__(self, snapshot: Snapshot, collection: str, places: Places) -> None:
        super().__init__(places)
        self._snapshot, self._collection = snapshot, collection

    def __repr__(self) -> str:
        return f"Obs({len(self)} volumes of {self._collection!r}; {', '.join(self.columns)}); read() gives a DataFrame"

    @property
    def columns(self) -> list[str]:
        """``obs_id``, ``obs_subject_id`` and the others of docs/format.md."""
        return [name for name in self._snapshot.detail_columns(self._collection) if name not in self._HIDDEN]

    def _values(self, columns: Sequence[str]) -> dict[str, Any]:
        return self._snapshot.details(self._collection, columns)

    def _where(self) -> str:
        return f"obs of collection {self._collection!r} of {self._snapshot.store.uri}"


def _series(values: Any, kind: str) -> Any:
    """A column with pandas's own type for missing values where numpy has none."""
    import pandas as pd

    if kind in ("int", "bool") and values.dtype == object:
        return pd.array(values.tolist(), dtype="Int64" if kind == "int" else "boolean")
    if kind == "str":
        return pd.Series(list(values), dtype=None if len(values) else object).array
    return values
