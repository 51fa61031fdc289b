"""The command ``radioloader``: parses, calls the library, explains errors in one line.

Exit status: 0 all went well, 1 some inputs or volumes failed, 2 a wrong argument or an error that stopped everything, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from radioloader.cli.bench import bench
from radioloader.cli.demo import demo
from radioloader.cli.export import export
from radioloader.cli.history import history
from radioloader.cli.info import info
from radioloader.cli.ingest import ingest
from radioloader.cli.materialize import materialize
from radioloader.cli.report import report
from radioloader.cli.scan import scan
from radioloader.cli.show import show
from radioloader.cli.vacuum import vacuum
from radioloader.errors import RadioloaderError

__all__ = ["app", "main"]

app = typer.Typer(
    name="radioloader",
    help="PyTorch-first data loading for 3D medical images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(ingest)
app.command()(scan)
app.command()(info)
app.command()(history)
app.command()(report)
app.command()(show)
app.command()(export)
app.command()(materialize)
app.command()(vacuum)
app.command()(bench)
app.command()(demo)


def _show_version(value: bool) -> None:
    if value:
        from radioloader import __version__

        typer.echo(f"radioloader {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; the entry point of the console script."""
    try:
        app(standalone_mode=True)
    except RadioloaderError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except SystemExit as ended:
        # typer makes a Ctrl-C within a command an exit of its own, without a word.
        if isinstance(getattr(ended.__context__, "__cause__", None), KeyboardInterrupt):
            typer.echo("interrupted", err=True)
        raise
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
