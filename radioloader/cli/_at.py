"""The option ``--at``, which several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from radioloader import RadiObject

__all__ = ["AtOption", "open_at"]

AtOption = Annotated[
    str | None,
    typer.Option(
        "--at",
        help="An older version: its number (radioloader history shows them), or a time such as 2026-11-24T10:30.",
    ),
]


def open_at(uri: str, at: str | None) -> RadiObject:
    """The store, at the version that the option names; the newest one when it was not given."""
    import radioloader as rl

    return rl.open(uri, at=int(at) if at is not None and at.isascii() and at.isdigit() else at)
