"""One subject as a picture: three planes with the label."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from radioloader._checks import as_whole
from radioloader.config import StorageConfig
from radioloader.container.radiobject import RadiObject
from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.overview.contents import legend
from radioloader.overview.facts import CollectionFacts, read_facts
from radioloader.overview.look import CLASSES_SHOWN, Viewer
from radioloader.overview.pairing import Entry, pair
from radioloader.overview.pictures import draw
from radioloader.overview.source import snapshot_of
from radioloader.overview.wording import figure, listed, shape_text, spacing_text
from radioloader.storage.reader import VolumeReader
from radioloader.storage.snapshot import Snapshot

__all__ = ["show"]

_INK, _SOFT = "#FFFFFF", "#B8C2CE"


def show(
    uri: str | os.PathLike[str] | RadiObject,
    subject: str,
    out: str | os.PathLike[str] | None = None,
    *,
    image: str | None = None,
    label: str | None = None,
    size: int = 512,
    config: StorageConfig | None = None,
) -> Path:
    """Write a PNG of the three planes of one subject, with its label in colour, the patient's left at the right.

    Args:
        uri: The store: a path, ``s3://bucket/prefix``, or a :class:`~radioloader.RadiObject`, such as a selection of subjects.
        subject: Id of the subject, or obs_id of one of its volumes.
        out: The PNG; None takes the name of the subject in the current folder.
        image: Collection of the image; None takes the first one that the subject has.
        label: Collection of the label; None takes the first on the image's grid that is not empty.
        size: Pixels of the longest side of a plane.
        config: Access to the store; None takes the process's defaults. An opened store keeps its own.

    Returns:
        Where the picture is.

    Raises:
        StoreNotFoundError, NotAStoreError, StoreVersionError: The store cannot be opened.
        KeyNotFoundError: No such subject, collection or volume.
        ReadError: A volume cannot be read.
        ConfigError: The picture cannot be written, or ``uri`` is no store.
    """
    size = as_whole(size, "size", minimum=64)
    snapshot = snapshot_of(uri, config)
    for name in (image, label):
        if name is not None:
            snapshot.collection(name)
    cohort = read_facts(snapshot)
    entry = _find(snapshot, cohort, subject, image, label)
    path = (
        Path(f"{re.sub(r'[^A-Za-z0-9._-]+', '_', subject).lstrip('.') or 'subject'}.png") if out is None else Path(out)
    )
    with VolumeReader(snapshot.store.config) as reader:
        viewer = Viewer(snapshot, cohort, reader)
        seen = viewer.view(entry)
    for error in seen.errors.values():
        raise error
    picture = draw(seen.planes, window=seen.window, colours=viewer.colours(entry), size=size)
    name, number = entry.volumes[0]
    facts = cohort[name]
    lines = [
        f"{entry.subject}   {name}   {shape_text(facts.index.shapes[number])}   "
        f"{spacing_text(facts.spacings[number])} mm   {facts.index.axcodes(number)}"
        + (f"   window {' to '.join(map(figure, seen.window))}" if entry.image is not None else "")
        + ("   first time point" if facts.index.shapes[number, 3] else "")
    ]
    named = []
    shown = viewer.shown_label(entry)
    if shown is not None:
        known, here = legend(cohort[shown[0]]), cohort[shown[0]].classes_of(shown[1])
        named = [(f"{shown[0]} {known[value][0]}", known[value][1]) for value in here[:CLASSES_SHOWN]]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _captioned(picture, lines, named, size).save(path, "PNG")
    except OSError as error:
        raise ConfigError(f"the picture cannot be written to {str(path)!r}: {error}; choose another file") from error
    return path


def _find(
    snapshot: Snapshot, cohort: dict[str, CollectionFacts], subject: str, image: str | None, label: str | None
) -> Entry:
    """The entry that is asked for, with the label that is asked for."""
    entries = pair(cohort)
    found = [entry for entry in entries if entry.subject == subject]
    if not found:
        found = [
            entry
            for entry in entries
            if any(cohort[name].index.obs_ids[place] == subject for name, place in entry.volumes)
        ]
    if not found:
        known = snapshot.subject_ids
        why = "has no volumes" if subject in known else f"is not there; it has {_close(subject, known)}"
        raise KeyNotFoundError(f"{snapshot.store.uri}: subject or volume {subject!r} {why}")
    if image is not None:
        wanted = [entry for entry in found if entry.image is not None and entry.image[0] == image]
        if not wanted:
            has = listed(sorted({repr(entry.volumes[0][0]) for entry in found}))
            raise KeyNotFoundError(
                f"{snapshot.store.uri}: {subject!r} has no image in {image!r}; it has volumes in {has}"
            )
        found = wanted
    if label is not None:
        wanted = [entry for entry in found if any(name == label for name, _ in entry.labels)]
        if not wanted:
            has = listed(sorted({repr(name) for entry in found for name, _ in entry.labels})) or "no labels"
            raise KeyNotFoundError(
                f"{snapshot.store.uri}: {subject!r} has no label in {label!r} on the grid of that image; it has {has}"
            )
        found = wanted
    entry = found[0]
    same = [other for other in found if other.volumes[0][0] == entry.volumes[0][0]]
    if len(same) > 1:
        names = [repr(str(cohort[name].index.obs_ids[place])) for name, place in (other.volumes[0] for other in same)]
        raise KeyNotFoundError(
            f"{snapshot.store.uri}: {subject!r} has {len(same)} volumes in {entry.volumes[0][0]!r}; give the obs_id of one: {listed(names)}"
        )
    if label is None:
        return entry
    return Entry(entry.subject, entry.image, tuple(place for place in entry.labels if place[0] == label))


def _close(subject: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(subject, known, 5, 0.6) if len(known) <= 20_000 else []
    return listed([repr(name) for name in near or known]) or "no subjects"


def _captioned(picture: Image.Image, lines: Sequence[str], legend: Sequence[tuple[str, str]], size: int) -> Image.Image:
    """The picture with text below: ``lines``, and ``legend`` (text and colour) in as many lines as it takes."""
    font = ImageFont.load_default(max(11, size // 36))
    height = round(font.size * 1.6)  # type: ignore[union-attr]
    width = max(picture.width, *(round(font.getlength(line)) + 20 for line in lines))
    places, x, y = [], 10, len(lines) * height
    for text, colour in legend:
        needed = round(font.getlength(text)) + 2 * height
        if x > 10 and x + needed > width:
            x, y = 10, y + height
        places.append((text, colour, x, y))
        x += needed
    bottom = y + height if legend else len(lines) * height
    result = Image.new("RGB", (width, picture.height + bottom + 10))
    result.paste(picture, ((width - picture.width) // 2, 0))
    ink = ImageDraw.Draw(result)
    for place, line in enumerate(lines):
        ink.text((10, picture.height + 6 + place * height), line, fill=_INK, font=font)
    for text, colour, left, top in places:
        at = picture.height + 6 + top
        ink.rectangle((left, at + 3, left + height // 2, at + 3 + height // 2), fill=colour, outline=_SOFT)
        ink.text((left + height * 3 // 4, at), text, fill=_INK, font=font)
    return result
