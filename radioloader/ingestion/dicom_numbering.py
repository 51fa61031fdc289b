"""Which class is what: without a mapping the numbers of segments are the classes, so all files of a collection must number alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from radioloader.errors import RadioloaderError
from radioloader.formats.dicom.frames import Instance
from radioloader.formats.dicom.rtstruct import read_rtstruct
from radioloader.formats.dicom.seg import read_seg_info

__all__ = ["numbering_of", "numbering_problem"]

_SHOWN = 4


def numbering_of(label: Instance) -> dict[int, str]:
    """The class that each structure of a label gets where there is no mapping; empty where it gets none, and is refused later."""
    names = [(number, name) for number, name in label.names if number or label.what != "seg"]
    if len(names) > 1:
        # Structures that were never drawn, and the background of a label map, are not in the header's list of names.
        try:
            if label.what == "seg":
                names = [(segment.number, segment.label) for segment in read_seg_info(label.path).segments]
            else:
                drawn = [one.name for one in read_rtstruct(label.path).structures if one.contours]
                names = [(number, name) for number, name in enumerate(dict.fromkeys(drawn), 1)]
        except RadioloaderError:
            return {}
    if len(names) == 1:
        return {1: names[0][1]}
    return dict(names) if label.what == "seg" else {}


def numbering_problem(numberings: Sequence[tuple[str, Mapping[int, str]]]) -> str:
    """What is wrong with the numbers of the files of a collection together; empty when each means one thing.

    Args:
        numberings: Each file, and its :func:`numbering_of`.
    """
    names: dict[int, str] = {}
    numbers: dict[str, set[int]] = {}
    fits = True
    for _, numbering in numberings:
        mine: dict[str, set[int]] = {}
        for number, name in numbering.items():
            fits = fits and names.setdefault(number, _plain(name)) == _plain(name)
            mine.setdefault(_plain(name), set()).add(number)
        for name, found in mine.items():
            # Several segments of one name (lesions): a file may have more of them than another one.
            before = numbers.setdefault(name, found)
            fits = fits and (found <= before or before <= found)
            numbers[name] = before | found
    if fits:
        return ""
    shown: dict[tuple[tuple[int, str], ...], str] = {}
    for path, numbering in numberings:
        shown.setdefault(tuple(sorted((number, _plain(name)) for number, name in numbering.items())), path)
    some = "; ".join(
        f"{', '.join(f'{number} is {name!r}' for number, name in pairs)} in {path}"
        for pairs, path in list(shown.items())[:_SHOWN]
    )
    more = f"; and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    words = sorted({name for numbering in shown for _, name in numbering})
    example = ", ".join(f"{word!r}: {number}" for number, word in enumerate(words[:_SHOWN], 1))
    return (
        f"the files of this collection do not number their structures alike, so one class would mean different things: {some}{more}; say "
        f"which structure is which class: DicomSource(root, structures={{{example}}}) (--structure)"
    )


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())
