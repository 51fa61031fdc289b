"""``radioloader info``."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

__all__ = ["info"]

_SHOWN = 20


def info(uri: Annotated[str, typer.Argument(help="Store: a path, or s3://bucket/prefix.")]) -> None:
    """Show what a store holds: its collections, shapes, spacings, orientations, and what is known of the geometry of DICOM volumes.

    Example: radioloader info cohort
    """
    from rich.console import Console
    from rich.table import Table

    import radioloader as rl

    store = rl.open(uri)
    plain = Console(markup=False, highlight=False)
    # Lines that are folded cannot be searched or piped.
    console = Console(soft_wrap=True, markup=False, highlight=False, width=None if plain.is_terminal else 10_000)
    console.print(f"{store.uri}: {len(store)} subjects, version {store.version}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("collection", "kind", "volumes", "dtype", "shape", "spacing (mm)", "axes", "geometry"):
        table.add_column(heading, justify="right" if heading == "volumes" else "left", no_wrap=not plain.is_terminal)
    odd: list[str] = []
    for name in store.collection_names:
        collection = store[name]
        statuses, strange = _verdicts(collection)
        odd += strange
        index = store.snapshot.index(name)
        table.add_row(
            name,
            collection.kind,
            str(len(collection)),
            _most({volume.ref.dtype for volume in collection}),
            _range([shape[:3] for shape in collection.shapes], "d"),
            _range([volume.spacing for volume in collection], ".3g"),
            _most(set(index.all_axcodes.tolist())),
            ", ".join(f"{count} {status}" for status, count in statuses.most_common()) or "-",
        )
    console.print(table)
    columns = ", ".join(store.obs_meta.columns[1:])
    console.print(f"subject columns: {columns or 'none'}")
    for line in odd[:_SHOWN]:
        console.print(line)
    if len(odd) > _SHOWN:
        console.print(f"and {len(odd) - _SHOWN} more whose geometry is not regular")


def _verdicts(collection: Any) -> tuple[Counter[str], list[str]]:
    """How many volumes have which verdict, and what is to say of those that are not regular."""
    counted, odd = Counter[str](), []
    for volume in collection:
        verdict = volume.geometry
        if verdict is not None:
            counted[verdict.status] += 1
            if verdict.status not in ("regular", "single") or verdict.changed:
                odd.append(f"{collection.name} {volume.obs_id!r}: {verdict.describe()}")
    return counted, odd


def _range(values: list[tuple[Any, ...]], form: str) -> str:
    """One text for all values, or the lowest and the highest."""
    if not values:
        return "-"
    texts = ["x".join(format(part, form) for part in value) for value in values]
    if len(set(texts)) == 1:
        return texts[0]
    parts = list(zip(*values, strict=True))
    low, high = ("x".join(format(end(part), form) for part in parts) for end in (min, max))
    return f"{low} to {high}"


def _most(values: set[str]) -> str:
    return ", ".join(sorted(values))
