"""``radioloader info``."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from radioloader.cli._at import AtOption, open_at

__all__ = ["info"]

_SHOWN = 20


def info(
    uri: Annotated[str, typer.Argument(help="Store: a path, or s3://bucket/prefix.")], at: AtOption = None
) -> None:
    """Show what a store holds: its collections, shapes, spacings, orientations, what is known of the geometry of DICOM volumes, values,
    classes, and how much is missing, odd, doubled or not in the store. Reads the catalog only; radioloader report shows more.

    Example: radioloader info cohort
    """
    from rich.console import Console
    from rich.table import Table

    from radioloader.cli._glance import glance
    from radioloader.overview.survey import survey

    store = open_at(uri, at)
    known = survey(store.snapshot)
    plain = Console(markup=False, highlight=False)
    # Lines that are folded cannot be searched or piped.
    console = Console(soft_wrap=True, markup=False, highlight=False, width=None if plain.is_terminal else 10_000)
    console.print(f"{store.uri}: {len(store)} subjects, version {store.version}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("collection", "kind", "volumes", "dtype", "shape", "spacing (mm)", "axes", "geometry"):
        table.add_column(heading, justify="right" if heading == "volumes" else "left", no_wrap=not plain.is_terminal)
    odd: list[str] = []
    for facts in known.cohort.values():
        statuses, strange = _verdicts(facts)
        odd += strange
        table.add_row(
            facts.name,
            facts.kind,
            str(len(facts)),
            ", ".join(sorted(set(facts.dtypes.tolist()))),
            _range(facts.index.shapes[:, :3].tolist(), "d"),
            _range(facts.spacings.tolist(), ".3g"),
            ", ".join(sorted(set(facts.axcodes.tolist()))),
            ", ".join(f"{count} {status}" for status, count in statuses.most_common()) or "-",
        )
    console.print(table)
    for line in glance(known):
        console.print(line)
    columns = ", ".join(store.obs_meta.columns[1:])
    console.print(f"subject columns: {columns or 'none'}")
    for line in odd[:_SHOWN]:
        console.print(line)
    if len(odd) > _SHOWN:
        console.print(f"and {len(odd) - _SHOWN} more whose geometry is not regular")


def _verdicts(facts: Any) -> tuple[Counter[str], list[str]]:
    """How many volumes have which verdict, and what is to say of those that are not regular."""
    counted, odd = Counter[str](), []
    for place, verdict in enumerate(facts.verdicts):
        if verdict is not None:
            counted[verdict.status] += 1
            if verdict.odd:
                odd.append(f"{facts.name} {str(facts.index.obs_ids[place])!r}: {verdict.describe()}")
    return counted, odd


def _range(values: list[list[Any]], form: str) -> str:
    """One text for all values, or the lowest and the highest."""
    if not values:
        return "-"
    texts = ["x".join(format(part, form) for part in value) for value in values]
    if len(set(texts)) == 1:
        return texts[0]
    parts = list(zip(*values, strict=True))
    low, high = ("x".join(format(end(part), form) for part in parts) for end in (min, max))
    return f"{low} to {high}"
