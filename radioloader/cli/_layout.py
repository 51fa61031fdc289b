"""What ``radioloader ingest`` does with a SOURCE: recognise it, say so, take it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

from radioloader.errors import ConfigError

if TYPE_CHECKING:
    from radioloader.ingestion.layouts.plan import LayoutPlan

__all__ = ["class_names", "find_plan", "is_dataset", "typed_options"]

_OWN = ("uri", "source", "layout", "dry_run", "image", "label", "allow_missing")


def find_plan(source: str | None, layout: str | None, image: list[str], label: list[str]) -> LayoutPlan | None:
    """What the SOURCE holds; None where there is none.

    Raises:
        ConfigError: It is not recognised, or ``--image`` and ``--label`` do not go with it.
    """
    if source is None:
        if layout is not None:
            raise ConfigError(
                f"--layout {layout} says how a dataset's folder is built; give it: radioloader ingest STORE FOLDER --layout {layout}"
            )
        return None
    from radioloader.ingestion.layouts.ingest import choose
    from radioloader.ingestion.layouts.recognise import recognise

    plan = recognise(source, layout or "auto")
    for option, values in (("--image", image), ("--label", label)):
        for value in values:
            if "=" in value and value not in plan.collections:
                raise ConfigError(
                    f"{option} {value!r} has a source of its own, but {source} was given as the source of all collections; leave one of "
                    f"them out, or name a collection of it alone: {option} NAME"
                )
    return choose(plan, images=image, labels=label) if image or label else plan


def is_dataset(path: str) -> bool:
    """Whether a local folder holds files, and is no store."""
    from radioloader.ingestion.layouts.tree import STORE_MARKER

    return os.path.isdir(path) and bool(os.listdir(path)) and not os.path.exists(os.path.join(path, STORE_MARKER))


def typed_options(context: typer.Context) -> dict[str, Any]:
    """The options that the user typed, by name, but for those that say what to ingest."""
    typed: dict[str, Any] = {}
    for name, value in context.params.items():
        where = context.get_parameter_source(name)
        if name not in _OWN and where is not None and where.name == "COMMANDLINE":
            typed[name.replace("_", "-")] = value
    return typed


def class_names(values: list[str]) -> dict[str, Any] | None:
    """``--classes``: names of classes by collection, or the file that has them.

    Raises:
        ConfigError: One is of neither form.
    """
    found: dict[str, Any] = {}
    for value in values:
        left, separator, right = value.rpartition("=")
        collection, colon, name = left.partition(":")
        if not separator or not left or not right:
            raise ConfigError(
                f"--classes {value!r} is neither NAME:CLASS=NUMBER, such as --classes seg:liver=1, nor NAME=FILE, such as "
                "--classes seg=dataset.json"
            )
        if not colon:
            found[left] = right
            continue
        try:
            numbers = [int(part) for part in right.strip("[]").split(",")]
        except ValueError:
            raise ConfigError(
                f"--classes {value!r}: {right!r} is no class; give a number, or several for a region: seg:whole=1,2"
            ) from None
        if not isinstance(found.setdefault(collection, {}), dict):
            raise ConfigError(
                f"--classes names those of {collection!r} one by one, and by the file {found[collection]}"
            )
        found[collection][name] = numbers if len(numbers) > 1 or right.startswith("[") else numbers[0]
    return found or None
