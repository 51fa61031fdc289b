"""Writes planned files with several threads: reading a store and compressing release the interpreter."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import ExportError, RadioloaderError
from radioloader.exporting.plan import PlannedFile, Unit
from radioloader.exporting.report import ExportFailure
from radioloader.exporting.selection import Member, Selection
from radioloader.formats.nifti import write_nifti

__all__ = ["write_units"]


def write_units(
    selection: Selection,
    units: Sequence[Unit],
    root: Path,
    *,
    workers: int,
    show: Callable[[int, int], object],
) -> tuple[list[Unit], list[ExportFailure]]:
    """Write the files.

    Args:
        selection: What is exported.
        units: The files.
        root: The folder.
        workers: Threads; each holds one file's voxels twice.
        show: Is told how many of how many units are done.

    Returns:
        The units that were written, in their order, and why the others were not: nothing is left of these.

    Raises:
        ExportError: The folder cannot be written.
    """
    stop = threading.Event()
    failures: dict[int, ExportFailure] = {}
    done = 0
    pool = ThreadPoolExecutor(workers, "radioloader-export")
    running: dict[Future[ExportFailure | None], int] = {}
    left = iter(enumerate(units))
    try:
        while True:
            # Few at a time: a million of waiting tasks would take memory, and none of them could be given up.
            for number, unit in islice(left, 2 * workers - len(running)):
                running[pool.submit(_write_unit, selection, unit, root, stop)] = number
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                failure = future.result()
                number = running.pop(future)
                done += 1
                if failure is not None:
                    failures[number] = failure
                show(done, len(units))
    except OSError as error:
        if isinstance(error, RadioloaderError):
            raise
        raise ExportError(f"{root}: could not be written: {error.strerror or error}") from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
    if failures:
        _remove_empty(root)
    written = [unit for number, unit in enumerate(units) if number not in failures]
    return written, [failures[number] for number in sorted(failures)]


def _write_unit(selection: Selection, unit: Unit, root: Path, stop: threading.Event) -> ExportFailure | None:
    """Write one unit; the reason where that fails for a cause of its own."""
    collection = ""
    try:
        for file in unit.files:
            if stop.is_set():
                reason = "given up"
                break
            collection = file.members[0].collection if len(file.members) == 1 else ""
            path = root / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_file(selection, file, path)
        else:
            return None
    except RadioloaderError as error:
        reason = str(error)
    except MemoryError:
        reason = "not enough memory; export with fewer workers"
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            reason = f"its file cannot have the name {file.path}: {error.strerror}"
        else:
            raise
    except Exception as error:  # one volume must never stop the others
        reason = f"unexpected {type(error).__name__}: {error}"
    for file in unit.files:
        (root / file.path).unlink(missing_ok=True)
    return ExportFailure(unit.subject, collection, reason)


def _write_file(selection: Selection, file: PlannedFile, path: Path) -> None:
    if len(file.members) == 1:
        selection.volume(file.members[0]).to_nifti(path)
        return
    voxels, block = _stacked(selection, file.members)
    write_nifti(path, voxels, block=block)


def _stacked(selection: Selection, members: Sequence[Member]) -> tuple[npt.NDArray[Any], bytes]:
    """Volumes as the 4th axis of one, (X, Y, Z, n), and the header of the first."""
    first, block = selection.volume(members[0]).source_voxels()
    stack = np.empty((*first.shape, len(members)), first.dtype, order="F")
    stack[..., 0] = first
    for number, member in enumerate(members[1:], 1):
        stack[..., number] = selection.volume(member).source_voxels()[0]
    return stack, block


def _remove_empty(root: Path) -> None:
    """Remove the folders of which nothing was left."""
    for folder, _, _ in os.walk(root, topdown=False):
        if folder != str(root):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
