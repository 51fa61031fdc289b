"""``radioloader demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the cohort, the store, predictions and the report.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Same seed, same cohort, model and predictions.")] = 0,
) -> None:
    """The whole job on a small simulated cohort: ingest, train, predict, compare speeds. A few minutes on two cores."""
    from radioloader.demo.run import run_demo

    try:
        run_demo(out, seed=seed)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on with what is there", err=True)
        raise typer.Exit(130) from None
