"""What is measured: blocks of jobs, each for one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.model import Job
from benchmarks.studies import STUDIES

__all__ = ["Block", "full", "preparations", "quick", "sources"]

PLANES = ("axial", "coronal", "sagittal")
CALLS = ("open", "lookup", "volume", "axial", "coronal", "sagittal", "roi-aligned", "roi-random")
_USES = {"radiobject-spawn": "radiobject", "radioloader-region": "radioloader-uniform"}
_OWN_FILES = {"ingest", "pipelines", "scan", "tiles", "writing"}
"""Studies that read the cohort's files, or none of them, and make what else they need themselves."""

_RAW = {"ram", "nibabel", "nibabel-nii", "monai", "monai-cache", "monai-cache-nocopy", "torchio"}


@dataclass(frozen=True)
class Block:
    """Jobs that one process measures one after the other: one contestant, one number of workers and threads.

    Attributes:
        jobs: The jobs.
        once: Measured in the first repetition only.
    """

    jobs: tuple[Job, ...]
    once: bool = field(default=False)


def sources(job: Job) -> set[str]:
    """The contestants whose preparation a job needs; none where it reads the cohort's own files."""
    if job.workload == "study":
        return set() if job.detail in _OWN_FILES else {"radioloader-uniform", "radioloader-axial"}
    return {_USES.get(job.peer, job.peer)} - _RAW


def preparations(blocks: Sequence[Block]) -> list[Job]:
    """What has to be prepared for these blocks."""
    needed = {peer for block in blocks for job in block.jobs for peer in sources(job)}
    return [Job(peer, "prepare") for peer in sorted(needed)]


def _patches(
    peer: str, sizes: Sequence[int], workers: int, threads: int = 0, dtypes: Sequence[str] = ("stored",)
) -> list[Job]:
    return [
        Job(peer, "patches", size=size, dtype=dtype, workers=workers, threads=threads)
        for size in sizes
        for dtype in dtypes
    ]


def quick(cores: int, sizes: Sequence[int] = (64, 128)) -> list[Block]:
    """The lines of the verdict table, and no more."""
    both = ("float32", "stored")
    w = min(2, max(1, cores))  # processes, and threads, as the table says
    blocks = []
    for workers, threads in ((0, 0), (w, 0), (0, w)):
        how: dict[str, Any] = {"workers": workers, "threads": threads}
        whole = [Job("radioloader-uniform", "volumes", dtype=dtype, **how) for dtype in both]
        blocked = Job("radioloader-region", "slices", plane="axial", dtype="float32", **how)
        random = Job("radioloader-axial", "slices", plane="axial", dtype="float32", **how)
        blocks += [
            Block((*_patches("radioloader-uniform", sizes, workers, threads, both), *whole)),
            Block((*_patches("radioloader-region", sizes, workers, threads, both), blocked)),
            Block((random,)),
        ]
    for workers in (0, w):
        more = (Job("nnunet", "volumes", workers=workers), Job("nnunet", "slices", plane="axial", workers=workers))
        blocks += [
            Block((*_patches("nnunet", sizes, workers), *more)),
            Block(tuple(_patches("zarr", sizes, workers))),
            Block((Job("nibabel", "volumes", workers=workers),)),
        ]
    spawned = Job("radiobject-spawn", "volumes", workers=w)
    blocks += [
        Block(tuple(_patches("ram", sizes, w))),
        Block((*_patches("radiobject", sizes, 0), Job("radiobject", "volumes"))),
        Block((*_patches("radiobject-spawn", sizes, w), spawned)),
    ]
    blocks += [
        Block(tuple(_patches(peer, sizes, 0))) for peer in ("monai-cache", "monai-persistent", "torchio", "monai")
    ]
    blocks += [Block((Job(peer, "call", detail="roi-aligned"),)) for peer in ("radioloader-uniform", "radiobject")]
    blocks += [Block((Job(peer, "call", detail="axial"),)) for peer in ("radioloader-axial", "radiobject-axial")]
    blocks += [_first_batch(peer, w) for peer in ("radioloader-uniform", "npy-memmap")]
    blocks += [_cold(peer) for peer in ("radioloader-uniform", "npy-memmap")]
    return blocks


def full(cores: int, sizes: Sequence[int] = (64, 128)) -> list[Block]:
    """Every peer on every workload, and every table."""
    both = ("float32", "stored")
    counts = sorted({0, 1, 2, 4, cores})
    blocks: list[Block] = []
    for workers, threads in [(n, 0) for n in counts] + [(0, n) for n in counts if n]:
        how: dict[str, Any] = {"workers": workers, "threads": threads}
        for peer in ("radioloader-uniform", "radioloader-region"):
            jobs = _patches(peer, sizes, workers, threads, both)
            if max(workers, threads) in (0, 2):
                jobs += [Job(peer, "slices", plane=plane, dtype="float32", **how) for plane in PLANES]
            if max(workers, threads) in (0, 2) and peer == "radioloader-uniform":
                jobs += [Job(peer, "volumes", dtype=dtype, **how) for dtype in both]
            blocks.append(Block(tuple(jobs)))
        if max(workers, threads) in (0, 2):
            blocks.append(Block((Job("radioloader-axial", "slices", plane="axial", dtype="float32", **how),)))
    for peer in ("nnunet", "zarr", "npy-memmap", "ram"):
        blocks += [Block(tuple(_everything(peer, sizes, workers))) for workers in counts]
    others = (
        "radiobject-spawn",
        "nibabel",
        "nibabel-nii",
        "monai-cache",
        "monai-cache-nocopy",
        "monai-persistent",
        "torchio",
        "monai",
    )
    blocks += [Block(tuple(_everything(peer, sizes, workers))) for peer in others for workers in (0, 2)]
    blocks += [Block(tuple(_everything("radiobject", sizes, 0)))]
    # Its workers may never answer when they are forked: each configuration has a process of its own, once.
    blocks += [Block((job,), once=True) for job in _everything("radiobject", sizes, 2)]
    blocks += [Block(tuple(jobs)) for jobs in _calls()]
    disk = (
        "radioloader-uniform",
        "nnunet",
        "zarr",
        "npy-memmap",
        "radiobject",
        "nibabel",
        "monai-persistent",
        "torchio",
        "monai",
    )
    blocks += [
        _first_batch(peer, 2) for peer in (*disk, "ram", "monai-cache", "radiobject-spawn") if peer != "radiobject"
    ]
    blocks += [_cold(peer) for peer in disk]
    return blocks + [Block((Job("radioloader-uniform", "study", detail=study),), once=True) for study in STUDIES]


def _everything(peer: str, sizes: Sequence[int], workers: int) -> Iterator[Job]:
    yield from _patches(peer, sizes, workers)
    for plane in PLANES:
        yield Job(peer, "slices", plane=plane, workers=workers)
    yield Job(peer, "volumes", workers=workers)


def _calls() -> Iterator[list[Job]]:
    peers = ("radioloader-uniform", "radioloader-axial", "radiobject", "radiobject-axial", "npy-memmap", "zarr")
    for peer in (*peers, "nibabel", "nibabel-nii", "monai", "torchio"):
        yield [Job(peer, "call", detail=name) for name in CALLS]


def _first_batch(peer: str, workers: int) -> Block:
    return Block((Job(peer, "first-batch", size=64, workers=workers),))


def _cold(peer: str) -> Block:
    return Block((Job(peer, "cold", size=64),))
