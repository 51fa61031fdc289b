"""``radioloader bench``."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from radioloader.errors import ConfigError

__all__ = ["bench"]


def bench(
    store: Annotated[str, typer.Option("--store", help="The store: a path, or s3://bucket/prefix.")],
    image: Annotated[
        list[str],
        typer.Option("--image", "-i", metavar="NAME", help="Image collection; repeat for channels. One is chosen."),
    ] = [],
    label: Annotated[
        str | None, typer.Option("--label", "-l", metavar="NAME", help="Label collection; the only one is taken.")
    ] = None,
    no_label: Annotated[bool, typer.Option("--no-label", help="Measure images alone.")] = False,
    patch_size: Annotated[str, typer.Option(help="Voxels of patches: 64, or 64,64,32 (x, y, z).")] = "64",
    batch_size: Annotated[int, typer.Option(help="Samples in a batch.")] = 4,
    seconds: Annotated[float, typer.Option(help="About how long to measure, at most 45.")] = 30.0,
    step_ms: Annotated[
        float | None,
        typer.Option(help="Milliseconds that your model takes for a batch on its GPU: says what keeps up with it."),
    ] = None,
    transform: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="Your transform of patches, measured with them.")
    ] = None,
    max_parallel: Annotated[
        int | None, typer.Option(help="Most threads and workers to try; all cores, at most 16, when not given.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Measure your store in under a minute: what limits loading, and which setting to change. Writes nothing into it.

    Example: radioloader bench --store cohort --patch-size 96 --transform my_transforms:augment --step-ms 80
    """
    size = _size(patch_size)
    if json_file is not None and (json_file.is_dir() or not json_file.absolute().parent.is_dir()):
        raise ConfigError(f"--json {json_file}: give the path of a file in a folder that exists")
    function = None if transform is None else _named(transform)

    from rich.console import Console

    from radioloader.bench.report import WIDTH, print_report
    from radioloader.bench.run import run_bench

    report = run_bench(
        store,
        image=image,
        label=label,
        with_label=not no_label,
        patch_size=size,
        batch_size=batch_size,
        seconds=seconds,
        step_ms=step_ms,
        transform=function,
        max_parallel=max_parallel,
        on_step=_say if sys.stderr.isatty() else lambda what: None,
    )
    if sys.stderr.isatty():
        _say("")
    print_report(report, Console(width=WIDTH, markup=False, highlight=False))
    if json_file is not None:
        json_file.write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")


def _say(what: str) -> None:
    """Replace the line that says what is going on."""
    sys.stderr.write(f"\r\x1b[2K{what}")
    sys.stderr.flush()


def _size(value: str) -> int | list[int]:
    try:
        parts = [int(part) for part in value.split(",")]
    except ValueError:
        raise ConfigError(f"--patch-size {value!r} is neither a number nor three, such as 64,64,32") from None
    return parts[0] if len(parts) == 1 else parts


def _named(value: str) -> Any:
    """The object that ``module:name`` names; modules in the current folder are found as well."""
    module, separator, name = value.partition(":")
    if not separator or not module or not name:
        raise ConfigError(f"--transform {value!r} is not MODULE:NAME, such as my_transforms:augment")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # a console script has its own folder there instead
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(f"--transform {value!r}: there is no module {error.name!r} here or installed") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"--transform {value!r}: {module!r} has no {name!r}")
        found = getattr(found, part)
    if isinstance(found, type) or not callable(found):
        raise ConfigError(
            f"--transform {value!r} is a {'class' if isinstance(found, type) else type(found).__name__}; name a function, or an object, "
            "that takes a sample (a dict) and returns one"
        )
    return found
