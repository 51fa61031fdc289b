"""What changes a store, or makes another one of it: methods of :class:`~radioloader.RadiObject`."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Self, cast

from radioloader._checks import as_whole
from radioloader._progress import Bar
from radioloader.config import StorageConfig, WriteConfig, available_cores
from radioloader.container.edit import remove, rename
from radioloader.container.putting import NewVolumes, are_volumes, as_kinds, put_volumes
from radioloader.container.recast import Recast
from radioloader.container.transfer import TransferReport, transfer
from radioloader.errors import ConfigError
from radioloader.ingestion.discover import Source
from radioloader.ingestion.pipeline import ingest
from radioloader.ingestion.report import IngestReport
from radioloader.storage.snapshot import Snapshot
from radioloader.storage.store import Store
from radioloader.storage.uri import normalise
from radioloader.storage.vacuum import Vacuumed, vacuum
from radioloader.types import Box

if TYPE_CHECKING:
    from radioloader.container.collection import VolumeCollection
    from radioloader.container.radiobject import RadiObject

__all__ = ["Changes", "Source", "move_into"]


class Changes(ABC):
    """Methods that write. Each change is a commit of its own: it is made whole, or not at all, and older versions stay."""

    snapshot: Snapshot
    _pinned: bool

    @property
    @abstractmethod
    def uri(self) -> str: ...

    @property
    @abstractmethod
    def version(self) -> int: ...

    @property
    @abstractmethod
    def is_view(self) -> bool: ...

    @property
    @abstractmethod
    def obs_subject_ids(self) -> list[str]: ...

    @property
    @abstractmethod
    def collections(self) -> dict[str, VolumeCollection]: ...

    def append(
        self,
        source: RadiObject | Mapping[str, Source] | Mapping[str, NewVolumes],
        *,
        replace: bool = False,
        workers: int | None = None,
        executor: Executor | None = None,
        message: str | None = None,
        progress: bool = False,
        **options: Any,
    ) -> TransferReport | IngestReport:
        """Add the subjects of another store, or of a selection of one; or files; or arrays.

        What is there already with the same content is skipped; a subject that is there may get volumes that it lacks. Subjects' own columns
        come with them. Whole subjects become visible as they are done; the same call continues one that was stopped. This object shows the
        new version from now on.

        Args:
            source: A store or a selection, whose volumes are copied as they are stored; or sources of files by collection, which are
                ingested (:func:`radioloader.ingest`, whose other arguments are taken as well); or volumes by collection, as
                :meth:`Volume.from_numpy` makes them.
            replace: Whether a volume or a value that is there with other content is replaced; else that is an error, and nothing is
                written. Files that changed always replace what was ingested of them, and new volumes those of the same subject.
            workers: Processes; None takes the cores that this process may use.
            executor: Runs the subjects instead of processes of our own (``concurrent.futures``, dask's ``get_executor()``).
            message: What :meth:`history` says of it; for stores.
            progress: Show a progress bar on stderr.
            options: Of :func:`radioloader.ingest`; for files. ``labels`` also for arrays.

        Returns:
            What came in, what was skipped, and what failed, and why.

        Raises:
            ConfigError: What comes does not fit what is there; or this is a selection, or an older version.
            CatalogError: A column of the same name holds values of another kind.
            StoreLockedError, StoreWriteError: The store cannot be written.
        """
        self._check_whole("append")
        report: TransferReport | IngestReport
        if isinstance(source, Changes):
            if options:
                raise ConfigError(f"append takes {sorted(options)[0]!r} for files, and not for a store")
            report = move_into(
                self.snapshot.store,
                source.collections,
                subjects=source.obs_subject_ids,
                snapshots=[source.snapshot],
                replace=replace,
                workers=workers,
                executor=executor,
                message=message,
                what="replaced with" if replace else "appended",
                progress=progress,
            )
        elif isinstance(source, Mapping) and are_volumes(source):
            given = as_kinds(source, options.pop("labels", None))
            if replace or message is not None or options:
                raise ConfigError("append takes labels=, workers= and executor= for new volumes, and nothing else")
            report = put_volumes(self.snapshot.store, source, given, workers=workers, executor=executor)
        elif isinstance(source, Mapping):
            if replace or message is not None:
                raise ConfigError("append takes replace= and message= for a store, and not for files")
            options.setdefault("config", self.snapshot.store.config)
            files = cast("Mapping[str, Source]", source)
            report = ingest(self.uri, files, workers=workers, executor=executor, progress=progress, **options)
        else:
            raise ConfigError(
                f"append takes a store (radioloader.open(...)), a selection of one, or sources of files by collection, got "
                f"{type(source).__name__}"
            )
        self.refresh()
        return report

    def replace(self, source: RadiObject, **options: Any) -> TransferReport | IngestReport:
        """As :meth:`append` with ``replace=True``: volumes and values of the same ids take the place of those that are there."""
        return self.append(source, replace=True, **options)

    def materialize(
        self,
        uri: str | os.PathLike[str],
        *,
        crop: Box | Sequence[tuple[int, int]] | None = None,
        orientation: str | None = None,
        spacing: float | Sequence[float] | None = None,
        write: WriteConfig | None = None,
        workers: int | None = None,
        executor: Executor | None = None,
        message: str | None = None,
        progress: bool = False,
        config: StorageConfig | None = None,
    ) -> TransferReport:
        """Write this store, or this selection, into a store of its own: its subjects, collections, columns and foreground index, as they
        are at this version; not its history. The same call continues one that was stopped.

        Where nothing is changed, arrays are copied file by file, and volumes keep tiles, filters and content hash. What was cropped, turned
        or resampled keeps the header of its file: an export brings it back to that grid.

        Args:
            uri: The store, which is created where there is none; what is there with other content is an error.
            crop: Box that is kept of each volume, in voxels of the stored grid, half-open: ``((x0, x1), (y0, y1), (z0, z1))``.
            orientation: Axis codes to turn the voxels to, such as ``"RAS"``.
            spacing: Distance between voxels in mm, of x, y and z (along the turned axes); labels take the nearest voxel, images
                interpolate linearly, without smoothing.
            write: Other tiles and filters.
            workers: Processes; None takes the cores that this process may use.
            executor: Runs the subjects instead of processes of our own (``concurrent.futures``, dask's ``get_executor()``).
            message: What the new store's :meth:`history` says of it.
            progress: Show a progress bar on stderr.
            config: Access to the new store; None takes that of this one.

        Returns:
            What was written, and what failed, and why.

        Raises:
            ConfigError: An argument makes no sense, ``uri`` is this store, or something else is there.
            NotAStoreError, StoreVersionError, StoreLockedError, StoreWriteError: The new store cannot be written.
        """
        recast = Recast.of(crop, orientation, spacing, write)
        if normalise(uri) == self.uri:
            raise ConfigError(f"{self.uri} cannot be written into itself; give another place")
        return move_into(
            Store.open_or_create(uri, config=self.snapshot.store.config if config is None else config),
            self.collections,
            subjects=self.obs_subject_ids,
            snapshots=[self.snapshot],
            recast=recast,
            workers=workers,
            executor=executor,
            message=message,
            what="materialized",
            progress=progress,
        )

    def refresh(self) -> Self:
        """Show the newest version from now on, and return this object. Selections that were made before go on showing theirs."""
        self._check_whole("refresh")
        self.snapshot = Snapshot(self.snapshot.store)
        return self

    def remove(
        self,
        subjects: str | Iterable[str] = (),
        *,
        collections: str | Iterable[str] = (),
        volumes: Mapping[str, str | Iterable[str]] | None = None,
        message: str | None = None,
    ) -> int:
        """Remove subjects with all their volumes, whole collections, or single volumes; all at once, in one commit.

        Older versions keep them (``at=``), and with those the voxels stay on disk until :meth:`vacuum` is told to forget these versions.

        Args:
            subjects: Their ids.
            collections: Names of collections.
            volumes: Ids of volumes by collection.
            message: What :meth:`history` says of it; None: a text that counts what went.

        Returns:
            The version, which this object shows from now on.

        Raises:
            KeyNotFoundError: One of them is not there; nothing is removed then.
            ConfigError: This is a selection, or an older version.
            StoreLockedError, StoreWriteError: The store cannot be written.
        """
        self._check_whole("remove")
        remove(self.snapshot.store, subjects, collections, volumes or {}, message)
        return self.refresh().version

    def rename(
        self,
        *,
        collections: Mapping[str, str] | None = None,
        subjects: Mapping[str, str] | None = None,
        message: str | None = None,
    ) -> int:
        """Call collections or subjects otherwise, in one commit. Ids of their volumes (``<subject>_<collection>``) change with them, and
        with those the random draws of datasets, which go by ids.

        Args:
            collections: New name by name.
            subjects: New id by id.
            message: What :meth:`history` says of it; None: a text with the names.

        Returns:
            The version, which this object shows from now on.

        Raises:
            KeyNotFoundError: One of them is not there; nothing is renamed then.
            ConfigError: A new name is taken, or a collection was computed from others; or this is a selection, or an older version.
            StoreLockedError, StoreWriteError: The store cannot be written.
        """
        self._check_whole("rename")
        rename(self.snapshot.store, collections or {}, subjects or {}, message)
        return self.refresh().version

    def vacuum(self, *, keep: int | None = None, message: str | None = None) -> Vacuumed:
        """Remove from disk what no version needs: what killed writers left, and what only versions had that are given up.

        Rows of tables stay: ids and columns of removed subjects can still be found in the files. To be rid of them, too, write what is
        left into a new store.

        Args:
            keep: How many of the newest versions can be opened afterwards; older ones are given up, and the voxels that only they had
                are gone for good. None keeps all of them.
            message: What :meth:`history` says where versions are given up.

        Returns:
            What was removed.

        Raises:
            ConfigError: ``keep`` is no whole number of at least 1; or this is a selection, or an older version.
            StoreLockedError, StoreWriteError: The store cannot be written.
        """
        self._check_whole("vacuum")
        done = vacuum(self.snapshot.store, keep=keep, message=message)
        self.refresh()
        return done

    def _check_whole(self, what: str) -> None:
        if self.is_view:
            raise ConfigError(
                f"{what} is for a whole store, and this is a selection of {self.uri}; open the store, and name what is meant, such as "
                "store.remove(selection.obs_subject_ids)"
            )
        if self._pinned:
            raise ConfigError(
                f"{what} is for the newest version, and this is {self.uri} at version {self.version}; open it without at="
            )


def move_into(
    target: Store,
    collections: Mapping[str, VolumeCollection],
    *,
    subjects: Sequence[str],
    snapshots: Sequence[Snapshot],
    recast: Recast | None = None,
    replace: bool = False,
    workers: int | None,
    executor: Executor | None,
    message: str | None,
    what: str,
    progress: bool,
) -> TransferReport:
    """:func:`~radioloader.container.transfer.transfer` with a progress bar, and as many workers as there are cores."""
    with Bar(what, len(subjects), "subjects", shown=progress) as bar:

        def show(done: int, total: int) -> None:
            bar.update(len(subjects) - total + done)

        return transfer(
            collections,
            target,
            subjects=subjects,
            snapshots=snapshots,
            recast=Recast() if recast is None else recast,
            replace=replace,
            workers=available_cores() if workers is None else as_whole(workers, "workers", minimum=1),
            executor=executor,
            message=message,
            what=what,
            show=show,
        )
