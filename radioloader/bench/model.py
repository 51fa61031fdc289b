"""What the bench measures, as plain frozen values that turn into JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from radioloader.samplers.positions import RegionPositions
from radioloader.types import Triple

__all__ = [
    "GROUPS",
    "GROUPS_HOW",
    "PATCHES",
    "REGIONS",
    "VOLUMES",
    "BenchReport",
    "CollectionFacts",
    "Cost",
    "Figure",
    "Rate",
    "Spent",
    "Way",
    "slices",
]

PATCHES, REGIONS, VOLUMES = "patches", "patches in groups", "whole volumes"

GROUPS = RegionPositions(patches=8, mix=4)
"""The positions of :data:`REGIONS`."""

GROUPS_HOW = f"RegionPositions(patches={GROUPS.patches}, mix={GROUPS.mix})"
"""The same as it is written in a script."""


def slices(plane: str, *, blocks: bool = False) -> str:
    """The name of what gives slices of a plane."""
    return f"{plane} slices" + (" in blocks" if blocks else "")


@dataclass(frozen=True, slots=True)
class Way:
    """One way of loading.

    Attributes:
        what: What samples are, such as :data:`PATCHES`.
        how: Class and settings that give them, as they are written in a script.
        num_threads: Threads that read batches ahead.
        num_workers: Worker processes.
    """

    what: str
    how: str
    num_threads: int = 0
    num_workers: int = 0

    @property
    def parallel(self) -> int:
        """How many threads or processes make batches beside the one that takes them."""
        return self.num_threads + self.num_workers

    @property
    def settings(self) -> str:
        """The settings as arguments of :class:`~radioloader.DataLoader`."""
        if self.num_workers:
            return f"num_workers={self.num_workers}"
        return f"num_workers=0, num_threads={self.num_threads}"


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds that the processes (or threads) which make batches spent, over a measurement.

    Attributes:
        read: Fetching and decoding.
        transform: The user's transform.
        collate: Putting batches together.
        batches: Batches that were made.
    """

    read: float
    transform: float
    collate: float
    batches: int


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast one way of loading was.

    Attributes:
        per_s: Samples per second, taken as fast as they came.
        cpu_ms: Processor time of all processes for one sample, in milliseconds.
        cores: Cores that were busy, on average.
        first_batch_s: From the call for the first batch to its arrival, in seconds.
        samples: Samples that were timed.
        seconds: For so long.
        lowest: Samples per second in the slowest third of that time; None where there were too few batches to tell.
        highest: In the fastest third.
        read_mb: Megabytes that were read from local files for one sample; None where that cannot be told.
        spent: Where the makers' time went.
        waited: Share of the time that a model with the given step waits for batches; None where no step was given.
        step_spent: Where the makers' time went meanwhile.
        step_seconds: For so long there was a model.
        step_batches: So many steps.
    """

    per_s: float
    cpu_ms: float
    cores: float
    first_batch_s: float
    samples: int
    seconds: float
    spent: Spent
    lowest: float | None = None
    highest: float | None = None
    read_mb: float | None = None
    waited: float | None = None
    step_spent: Spent | None = None
    step_seconds: float = 0.0
    step_batches: int = 0


@dataclass(frozen=True, slots=True)
class Figure:
    """A way of loading and how fast it was.

    Attributes:
        way: The way.
        rate: How fast; None where it was not measured.
        missing: Why it was not.
        in_tiles: So many voxels lie in the tiles under a sample for each voxel of it: 1 where tiles fit samples. None where a
            tile is decoded once for several samples.
    """

    way: Way
    rate: Rate | None = None
    missing: str = ""
    in_tiles: float | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """Where the time of one sample goes, in milliseconds.

    Attributes:
        storage: Fetching compressed bytes.
        decode: Decompressing, copying, scaling.
        transform: The user's transform; None where there is none.
        collate: Putting the batch together.
        other: Choosing places, and all that is between the others.
        transfer: Moving it from pinned memory to the GPU; None where there is none.
    """

    storage: float
    decode: float
    transform: float | None
    collate: float
    other: float
    transfer: float | None = None

    @property
    def total(self) -> float:
        """All of it but the transfer, which goes on beside the rest."""
        return self.storage + self.decode + (self.transform or 0.0) + self.collate + self.other

    @property
    def storage_share(self) -> float:
        """Share of a read that is storage; the rest is decoding."""
        return self.storage / max(self.storage + self.decode, 1e-12)


@dataclass(frozen=True, slots=True)
class CollectionFacts:
    """What a collection is like.

    Attributes:
        name: Its name.
        role: ``"image"`` or ``"label"``.
        volumes: Number of volumes that the bench could choose from.
        shapes: Smallest and largest (X, Y, Z) or (X, Y, Z, T) in voxels, axis by axis.
        dtypes: Stored dtypes.
        tiles: Extents (x, y, z) of tiles in voxels; the most frequent ones first.
        codec: Compression, such as ``"zstd level 1, byte shuffle"``; of the first volume that was measured.
        direct: Whether its tiles are decoded without TileDB's query.
        measured: Volumes that were measured.
        stored_bytes: Size of these in storage; None where that could not be told.
        raw_bytes: Size of their voxels.
    """

    name: str
    role: str
    volumes: int
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[str, ...]
    tiles: tuple[Triple, ...]
    codec: str
    direct: bool
    measured: int
    stored_bytes: int | None
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All that the bench found.

    Attributes:
        uri: The store.
        version: Its version.
        remote: Whether it lies on an object store.
        options: What was asked for, defaults filled in.
        machine: Processor, cores, memory, system, load.
        versions: Of the packages that bear on the figures.
        collections: What was read.
        subjects: Subjects that were read, of how many.
        notes: What was chosen, left out or should be known, in sentences.
        first_pass: Patches in this process, of data that this run had not read before.
        first_cost: Where the time of such a patch went.
        figures: All ways of loading that were tried.
        cost: Where the time of a patch goes, in this process.
        limit: What limits, in one line.
        changes: What to change, most important first.
        best: The settings that are recommended; None where too little was measured.
        seconds: How long the bench took.
    """

    uri: str
    version: int
    remote: bool
    options: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    collections: tuple[CollectionFacts, ...]
    subjects: tuple[int, int]
    notes: tuple[str, ...]
    first_pass: Rate
    first_cost: Cost
    figures: tuple[Figure, ...]
    cost: Cost
    limit: str
    changes: tuple[str, ...]
    best: Way | None
    seconds: float

    def figure(self, what: str, *, num_threads: int = 0, num_workers: int = 0) -> Figure | None:
        """The figure of one way of loading; None where it was not tried."""
        for figure in self.figures:
            way = figure.way
            if (way.what, way.num_threads, way.num_workers) == (what, num_threads, num_workers):
                return figure
        return None

    def to_dict(self) -> dict[str, Any]:
        """The report as values that JSON takes."""
        return asdict(self)
