"""Settings: frozen dataclasses that hash, pickle and turn into a TileDB configuration.

``configure(read=..., write=..., s3=...)`` sets the defaults of this process; every class and function that reads or writes
also takes ``config=`` for itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from radioloader._checks import as_whole
from radioloader.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "CompressionConfig",
    "ReadConfig",
    "S3Config",
    "SliceOrientation",
    "StorageConfig",
    "TileConfig",
    "WriteConfig",
    "available_cores",
    "configure",
    "get_config",
]


class SliceOrientation(Enum):
    """Which reads the tiles of a volume are shaped for.

    ``AXIAL``, ``SAGITTAL`` and ``CORONAL`` store one anatomical slice per tile, whatever the volume's storage orientation.
    """

    ISOTROPIC = "isotropic"
    AXIAL = "axial"
    SAGITTAL = "sagittal"
    CORONAL = "coronal"
    CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class TileConfig:
    """Tile extents of voxel arrays.

    Attributes:
        orientation: Shape of the tiles; a string of the same name works too.
        extent: Edge of isotropic tiles in voxels; with 32, random patches and slices take least processor time.
        custom: Tile extents (x, y, z) in voxels; implies ``orientation=CUSTOM``.
    """

    orientation: SliceOrientation = SliceOrientation.ISOTROPIC
    extent: int = 32
    custom: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "orientation", SliceOrientation(self.orientation))
        except ValueError as error:
            allowed = ", ".join(repr(o.value) for o in SliceOrientation)
            raise ConfigError(f"TileConfig.orientation={self.orientation!r} is not one of {allowed}") from error
        if self.extent < 1:
            raise ConfigError(f"TileConfig.extent={self.extent} must be at least 1 voxel")
        if self.custom is not None:
            custom = tuple(int(v) for v in self.custom)
            if len(custom) != 3 or min(custom) < 1:
                raise ConfigError(
                    f"TileConfig.custom={self.custom} must be three extents (x, y, z) of at least 1 voxel"
                )
            object.__setattr__(self, "custom", custom)
            object.__setattr__(self, "orientation", SliceOrientation.CUSTOM)
        elif self.orientation is SliceOrientation.CUSTOM:
            raise ConfigError("TileConfig(orientation='custom') needs custom=(x, y, z)")


_CODECS = ("zstd", "lz4", "none")


@dataclass(frozen=True, slots=True)
class CompressionConfig:
    """Filters of voxel arrays.

    Attributes:
        codec: ``"zstd"``, ``"lz4"`` or ``"none"``.
        level: Compression level of zstd (negative levels are faster and larger).
        shuffle: Byte shuffle before the codec. ``"integers"`` leaves it out for floats: all bits of a processed image differ, which is
            quicker to read without it; an image of whole numbers that is stored as floats would be a fifth smaller with it.
            Needless for one-byte dtypes, and always left out there.
        checksum: End the filters with SHA-256, so that every read notices a flipped bit. Off by default: it was measured
            to cost a random 64^3 int16 patch 30-40 % of its read time.
    """

    codec: str = "zstd"
    level: int = 1
    shuffle: bool | str = "integers"
    checksum: bool = False

    def __post_init__(self) -> None:
        if self.codec not in _CODECS:
            raise ConfigError(f"CompressionConfig.codec={self.codec!r} is not one of {', '.join(map(repr, _CODECS))}")
        if self.shuffle not in (True, False, "integers"):
            raise ConfigError(f"CompressionConfig.shuffle={self.shuffle!r} is not one of True, False, 'integers'")
        if not -50 <= self.level <= 22:
            raise ConfigError(f"CompressionConfig.level={self.level} is outside -50..22")

    def shuffles(self, dtype: np.dtype[Any]) -> bool:
        """Whether bytes of ``dtype`` are shuffled."""
        wanted = dtype.kind in "iu" if self.shuffle == "integers" else bool(self.shuffle)
        return wanted and dtype.itemsize > 1 and self.codec != "none"


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """How voxels are read.

    Attributes:
        max_workers: Threads that read the regions of one batch side by side; None takes the cores that this process may
            use, at most 8, and 1 in a DataLoader worker.
        concurrency: TileDB's own threads for decoding and for I/O, each. Many small reads are fastest with 1; a single large
            one gains from more.
        max_open_arrays: Arrays kept open by a :class:`~radioloader.VolumeReader`.
        cache_mb: MiB of decoded tiles that a reader keeps in each process, for work that comes back to the same tiles soon: an
            overlapping grid, a few volumes again and again. 0 keeps none, which random patches of many volumes are best off with.
        direct: Decode the tiles of local stores without TileDB's query where they are laid out as this package writes them: a random patch
            of an image takes less than half the processor time, one of a label less than a quarter. False leaves all reading to TileDB.
        keep_memory: While a :class:`~radioloader.DataLoader` runs, have the allocator of its worker processes (of this process, where it
            has none) hold on to freed memory, which decoding the next tiles needs again. Linux with glibc only. False leaves the
            allocator alone.
    """

    max_workers: int | None = None
    concurrency: int = 1
    max_open_arrays: int = 256
    cache_mb: int = 0
    direct: bool = True
    keep_memory: bool = True

    def __post_init__(self) -> None:
        as_whole(self.cache_mb, "ReadConfig.cache_mb", minimum=0)
        as_whole(self.concurrency, "ReadConfig.concurrency", minimum=1)
        as_whole(self.max_open_arrays, "ReadConfig.max_open_arrays", minimum=1)
        if self.max_workers is not None:
            as_whole(self.max_workers, "ReadConfig.max_workers", minimum=1)


_PRESETS = {
    "balanced": CompressionConfig(),
    "fast": CompressionConfig(level=-5),
    "small": CompressionConfig(level=19, shuffle=True),
}


@dataclass(frozen=True, slots=True)
class WriteConfig:
    """How volumes are written. The defaults suit CT, MR and labels alike; see docs/performance.md for the grid that they come from.

    Attributes:
        tile: Tile extents.
        compression: Filters.
        max_workers: Processes of an ingest; None takes the cores that this process may use.
        direct: Lay out the tiles of local stores without TileDB's query where they are stored as zstd and all voxels are finite: half
            of its processor time (labels: a quarter), and the same files. False leaves all writing to TileDB.
        wait_s: How long a change of a local store waits while another process writes to it, in seconds, before it is refused.
    """

    tile: TileConfig = field(default_factory=TileConfig)
    compression: CompressionConfig = field(default_factory=CompressionConfig)
    max_workers: int | None = None
    direct: bool = True
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        if self.max_workers is not None:
            as_whole(self.max_workers, "WriteConfig.max_workers", minimum=1)
        if not 0 <= self.wait_s < float("inf"):
            raise ConfigError(f"WriteConfig.wait_s={self.wait_s!r} must be a number of seconds, 0 or more")

    @classmethod
    def preset(cls, name: str, *, tile: TileConfig | None = None) -> WriteConfig:
        """Settings by what they are for.

        Args:
            name: ``"balanced"``: the defaults, as small as ``.nii.gz`` or smaller. ``"fast"``: patches of images take 30-40 % less
                processor time, and up to 40 % more room. ``"small"``: the last few per cent of room, at ten times the processor time of
                an ingest; reading hardly changes.
            tile: Tile extents; None takes the default ones.

        Raises:
            ConfigError: There is no such preset.
        """
        if name not in _PRESETS:
            raise ConfigError(f"WriteConfig.preset({name!r}): the presets are {', '.join(map(repr, _PRESETS))}")
        return cls(tile=TileConfig() if tile is None else tile, compression=_PRESETS[name])


@dataclass(frozen=True, slots=True)
class S3Config:
    """Access to S3 and servers that speak its protocol.

    Credentials that are not given come from the usual places (environment, ``~/.aws``, instance role).

    Attributes:
        region: Region of the bucket.
        endpoint: ``host:port`` of another server than AWS's; ``http://`` or ``https://`` in front sets ``scheme``.
        scheme: ``"https"`` or ``"http"``.
        path_style: Address buckets in the path, as most servers other than AWS want; None: yes when ``endpoint`` is given.
        access_key_id: Key; never shown by ``repr``.
        secret_access_key: Secret; never shown by ``repr``.
        session_token: Token of temporary credentials; never shown by ``repr``.
        max_parallel_ops: Requests in flight for one read or write.
        multipart_part_size_mb: Size of one part of an upload, in MiB.
        connect_timeout_s: How long to wait for a connection, in seconds.
        request_timeout_s: How long a request may go without a byte in either direction, in seconds.
        tries: How often a request is repeated that fails or is told to come back later. With the defaults, a server that does not
            answer is given up after about 20 seconds, one that cannot be connected to after about 30.
    """

    region: str | None = None
    endpoint: str | None = None
    scheme: str = "https"
    path_style: bool | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    max_parallel_ops: int = 8
    multipart_part_size_mb: int = 50
    connect_timeout_s: float = 5.0
    request_timeout_s: float = 3.0
    tries: int = 5

    def __post_init__(self) -> None:
        if self.endpoint is not None and "://" in self.endpoint:
            scheme, _, host = self.endpoint.partition("://")
            object.__setattr__(self, "scheme", scheme)
            object.__setattr__(self, "endpoint", host.rstrip("/"))
        if self.scheme not in ("http", "https"):
            raise ConfigError(f"S3Config.scheme={self.scheme!r} is not 'http' or 'https'")
        as_whole(self.max_parallel_ops, "S3Config.max_parallel_ops", minimum=1)
        as_whole(self.tries, "S3Config.tries", minimum=1)
        for name in ("connect_timeout_s", "request_timeout_s"):
            # TileDB counts in milliseconds, and takes the second's whole part for some of it.
            if not getattr(self, name) >= 1:
                raise ConfigError(f"S3Config.{name}={getattr(self, name)} must be at least 1 second")
        if self.multipart_part_size_mb < 5:
            raise ConfigError(
                f"S3Config.multipart_part_size_mb={self.multipart_part_size_mb}: S3 takes no parts under 5 MiB"
            )

    def tiledb(self) -> dict[str, str]:
        """The settings under TileDB's names."""
        path_style = self.endpoint is not None if self.path_style is None else self.path_style
        settings: dict[str, str | None] = {
            "vfs.s3.region": self.region,
            "vfs.s3.endpoint_override": self.endpoint,
            "vfs.s3.scheme": self.scheme,
            "vfs.s3.use_virtual_addressing": "false" if path_style else "true",
            "vfs.s3.aws_access_key_id": self.access_key_id,
            "vfs.s3.aws_secret_access_key": self.secret_access_key,
            "vfs.s3.aws_session_token": self.session_token,
            "vfs.s3.max_parallel_ops": str(self.max_parallel_ops),
            "vfs.s3.multipart_part_size": str(self.multipart_part_size_mb * 2**20),
            "vfs.s3.connect_timeout_ms": str(round(self.connect_timeout_s * 1000)),
            "vfs.s3.request_timeout_ms": str(round(self.request_timeout_s * 1000)),
            "vfs.s3.connect_max_tries": str(self.tries),
        }
        return {name: value for name, value in settings.items() if value is not None}


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """All settings of reading and writing.

    Attributes:
        read: How voxels are read.
        write: How volumes are written.
        s3: Access to S3.
    """

    read: ReadConfig = field(default_factory=ReadConfig)
    write: WriteConfig = field(default_factory=WriteConfig)
    s3: S3Config = field(default_factory=S3Config)

    def hash(self, *, remote: bool = False) -> str:
        """A stable digest of the settings that shape a TileDB context; equal settings share one context."""
        return hashlib.sha256(json.dumps(self.tiledb(remote=remote), sort_keys=True).encode()).hexdigest()

    def tiledb(self, *, remote: bool = False) -> dict[str, str]:
        """The configuration of this setting's TileDB context.

        Args:
            remote: Whether the data lie on an object store, where requests in flight count and small gaps are cheap.
        """
        threads = str(self.read.concurrency)
        return {
            "sm.compute_concurrency_level": threads,
            "sm.io_concurrency_level": str(self.s3.max_parallel_ops) if remote else threads,
            # Batching joins neighbouring tiles into one large read: on a local disk it reads several times the bytes
            # that a patch needs. On an object store a request costs more than the bytes of a small gap.
            "vfs.min_batch_size": "0",
            "vfs.min_batch_gap": str(64 * 2**10) if remote else "0",
            "vfs.file.max_parallel_ops": threads,
            # Returning memory to the system after every query costs more than half of a small read.
            "sm.mem.malloc_trim": "false",
            # TileDB would put its own SIGINT handler before Python's; where SIGINT is ignored (workers, nohup, background jobs of a
            # script) that handler calls address 1.
            "sm.enable_signal_handlers": "false",
            **(self.s3.tiledb() if remote else {}),
        }


_default = StorageConfig()
_default_lock = threading.Lock()


def configure(
    *, read: ReadConfig | None = None, write: WriteConfig | None = None, s3: S3Config | None = None
) -> StorageConfig:
    """Set the defaults of this process; what is left out stays as it is.

    Args:
        read: How voxels are read.
        write: How volumes are written.
        s3: Access to S3.

    Returns:
        The new defaults.
    """
    global _default
    changes = {name: value for name, value in (("read", read), ("write", write), ("s3", s3)) if value is not None}
    with _default_lock:
        _default = dataclasses.replace(_default, **changes)  # type: ignore[arg-type]
        return _default


def get_config() -> StorageConfig:
    """The defaults of this process, as :func:`configure` set them."""
    return _default


def available_cores() -> int:
    """Cores that this process may use: its CPU affinity, and the CPU quota of its cgroup (v2) where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return max(1, cores)
