"""Predicting the volumes of a store with a model, into the store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import torch

from radioloader._checks import as_whole
from radioloader.config import StorageConfig
from radioloader.container.radiobject import RadiObject
from radioloader.datasets.gather import all_gather
from radioloader.datasets.patch import PatchDataset
from radioloader.datasets.table import snapshot_of
from radioloader.errors import ConfigError
from radioloader.inference.output import Output, Spool
from radioloader.inference.progress import PredictBar
from radioloader.inference.report import PredictReport
from radioloader.inference.run import Model, read_windows
from radioloader.inference.sums import WindowSums
from radioloader.inference.target import Target, provenance
from radioloader.inference.windows import BLENDS, WindowPositions, Windows, as_overlap, importance
from radioloader.ingestion.derived import DerivedVolume
from radioloader.samplers.positions import as_triple
from radioloader.samplers.samplers import rank_and_world

__all__ = ["predict"]

_COMMIT_EVERY_S = 10.0


def predict(
    store: str | os.PathLike[str] | RadiObject,
    model: Callable[[torch.Tensor], torch.Tensor],
    *,
    image: str | Sequence[str],
    patch_size: int | Sequence[int],
    overlap: float | Sequence[float] = 0.25,
    blend: str = "gaussian",
    out: str = "pred",
    output: str = "labels",
    activation: str | None = "softmax",
    batch_size: int = 4,
    subjects: Sequence[str] | None = None,
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    pad_value: float = 0.0,
    device: torch.device | str | None = None,
    autocast: torch.dtype | None = None,
    model_id: str | None = None,
    overwrite: bool = False,
    num_threads: int | None = None,
    num_workers: int = 0,
    memory_mb: int = 1024,
    rank: int | None = None,
    world_size: int | None = None,
    progress: bool = True,
    config: StorageConfig | None = None,
) -> PredictReport:
    """Predict volumes by a sliding window; the predictions are a collection of the store.

    Means of overlapping windows are those of MONAI's ``sliding_window_inference`` with ``roi_size=patch_size``, the same ``overlap``,
    ``mode=blend`` and ``cval=pad_value``. Volumes that are smaller than the patch are padded around. Batches hold windows of
    several volumes where these end. Nothing is held of a volume but the sums of the windows that are not complete, and its result.

    What is there of the same model, weights and arguments for the same voxels is skipped: after an interruption the same call
    continues, having lost the volume that it was at and those of the last ten seconds. Under ``torch.distributed`` every rank predicts
    subjects of its own, and all must call this.

    Args:
        store: URI, or an open store or selection of its subjects.
        model: A ``torch.nn.Module``, or a function: gets images (B, C, X, Y, Z) float32 and gives (B, K, X, Y, Z). It is in evaluation
            mode and without gradients meanwhile.
        image: Image collections, stacked as channels.
        patch_size: Voxels of a window on each axis (x, y, z) of the stored grid; one number for a cube.
        overlap: Share of the window that neighbours have in common, for all axes or each (x, y, z).
        blend: Weights of a window's voxels in the mean: ``"gaussian"`` (the middle counts most) or ``"constant"``.
        out: Name of the collection of predictions.
        output: ``"labels"``: the class with the highest mean, a label collection. ``"probabilities"``: of each class, (X, Y, Z, K) in
            steps of 2^-15. ``"values"``: the means as they are, float32.
        activation: ``"softmax"``, ``"sigmoid"`` (labels are then one mask for each channel) or None: what makes probabilities of the
            means.
        batch_size: Windows in a batch.
        subjects: Which subjects; None takes those of ``store`` that have the images.
        transform: Gets a window's sample and returns one, as in a :class:`~radioloader.PatchDataset`.
        pad_value: Value of voxels outside the volume.
        device: Where the model runs, and where a module is moved; None takes that of its first parameter.
        autocast: dtype of ``torch.autocast``, such as ``torch.bfloat16``; None goes without.
        model_id: Names the model where its code cannot be hashed (a lambda): give another one when you change it.
        overwrite: Predict anew what another model or other arguments left in ``out``.
        num_threads: Threads that read ahead; see :class:`~radioloader.DataLoader`.
        num_workers: Processes that read; see :class:`~radioloader.DataLoader`.
        memory_mb: MiB of sums, and of a result, above which they go to temporary files.
        rank: Which part of the subjects; with ``world_size``, for jobs that do not use ``torch.distributed``.
        world_size: Of so many parts. ``rank=0, world_size=1`` predicts all subjects in this process alone, whatever the ranks.
        progress: Show a progress bar, on rank 0.
        config: Access, tiles and compression; None takes the store's.

    Returns:
        What was predicted, skipped and failed. Volumes that cannot be read, or of which the model gives values that are not finite, are
        among the failed ones.

    Raises:
        ConfigError: An argument is wrong; or ``out`` holds something else, and ``overwrite`` is not set.
        ShapeError: The model gives something else than (B, K, X, Y, Z).
        StoreWriteError: The store, or a temporary file, cannot be written.
        RadioloaderError: Store and arguments do not fit; see :class:`~radioloader.PatchDataset`.
    """
    started = time.monotonic()
    size = as_triple(patch_size, "patch_size", minimum=1)
    share = as_overlap(overlap)
    if blend not in BLENDS:
        raise ConfigError(f"blend={blend!r} is not one of {', '.join(map(repr, BLENDS))}")
    form = Output(output, activation)
    subjects = None if subjects is None else [subjects] if isinstance(subjects, str) else list(subjects)
    batch_size = as_whole(batch_size, "batch_size", minimum=1)
    limit = as_whole(memory_mb, "memory_mb", minimum=0) * 2**20
    part, parts, together = _place(rank, world_size)
    runner = Model(model, device, autocast)
    dataset = PatchDataset(
        store,
        subjects=_with_images(store, image, config) if subjects is None else subjects,
        image=image,
        patch_size=size,
        positions=WindowPositions(share),
        pad=True,
        pad_value=pad_value,
        transform=transform,
        config=config,
    )
    arguments = {
        "image": dataset.image,
        "patch_size": list(size),
        "overlap": list(share),
        "blend": blend,
        "output": output,
        "activation": activation,
        "pad_value": float(pad_value),
        "autocast": None if autocast is None else str(autocast),
    }
    group = _group() if together else None
    if together:
        _same_buffers(model)
    made_with = provenance(model, model_id, transform, arguments)
    if together and len({found["identity"] for found in all_gather(made_with, group)}) > 1:
        raise ConfigError(
            "the ranks' models or arguments differ (seeds, checkpoints, running statistics?): give each rank the same, or predict on one "
            "of them with rank=0, world_size=1"
        )
    target = Target(dataset, out, form, made_with, config)
    todo = target.begin(dataset.subjects, overwrite=overwrite, first=part == 0 or not together)
    if together:  # as rank 0 saw it: the others may have looked later, when some was done
        todo = all_gather(todo, group)[0]
    place = {subject: number for number, subject in enumerate(dataset.subjects)}
    counts = dataset.layout.counts.tolist()
    missing = {place[subject] for subject in todo}
    mine = _share_of(missing if together else place.values(), counts, part, parts) & missing
    report = PredictReport(target.uri, out, provenance=target.provenance)
    if mine:
        work = _Work(dataset, sorted(mine), target, form, importance(size, blend), share, limit)
        with (
            runner.ready(),
            PredictBar(sum(counts[volume] for volume in mine), len(mine), shown=progress and part == 0) as bar,
        ):
            work.run(runner, bar, batch_size, num_threads=num_threads, num_workers=num_workers)
        report.predicted, report.failed, report.windows = work.predicted, work.failed, work.windows
    if together:
        for other in [found for number, found in enumerate(all_gather(_plain(report), group)) if number != part]:
            report.predicted += other["predicted"]
            report.failed |= other["failed"]
            report.windows += other["windows"]
        torch.distributed.destroy_process_group(group)
    report.skipped = [subject for subject in dataset.subjects if place[subject] not in missing]
    report.predicted.sort(key=place.__getitem__)
    report.failed = {subject: report.failed[subject] for subject in sorted(report.failed, key=place.__getitem__)}
    report.version = target.store.commits().version
    report.seconds = time.monotonic() - started
    return report


def _with_images(store: Any, image: str | Sequence[str], config: StorageConfig | None) -> Sequence[str] | None:
    """The subjects that have all image collections; None where there is none, which datasets say in their way."""
    snapshot, available = snapshot_of(store, config)
    names = [image] if isinstance(image, str) else list(image)
    having = [set(snapshot.index(name).subject_ids.tolist()) for name in names if name in snapshot.collections]
    return [subject for subject in available if all(subject in ids for ids in having)] or None


def _place(rank: int | None, world_size: int | None) -> tuple[int, int, bool]:
    """Which part of how many, and whether the ranks of ``torch.distributed`` work together."""
    if rank is None and world_size is None:
        part, parts = rank_and_world()
        return part, parts, parts > 1
    if rank is None or world_size is None:
        raise ConfigError("rank and world_size are given together, or not at all")
    parts = as_whole(world_size, "world_size", minimum=1)
    part = as_whole(rank, "rank", minimum=0)
    if part >= parts:
        raise ConfigError(f"rank={rank} must be below world_size={world_size}")
    return part, parts, False


def _same_buffers(model: Any) -> None:
    """Running statistics of ``DistributedDataParallel``: those of rank 0, as it would take them itself with the next batch."""
    import torch.distributed

    if isinstance(model, torch.nn.parallel.DistributedDataParallel) and model.broadcast_buffers:
        for buffer in model.module.buffers():
            torch.distributed.broadcast(buffer, 0, group=model.process_group)


def _group() -> Any:
    """All ranks, with all the time that they need: one may have nothing to do while another one predicts for hours."""
    import torch.distributed

    return torch.distributed.new_group(backend="gloo", timeout=timedelta(days=30))


def _share_of(volumes: Iterable[int], counts: Sequence[int], part: int, parts: int) -> set[int]:
    """The volumes of one part: the largest first, each to who has least to do."""
    load = [0] * parts
    chosen: set[int] = set()
    for volume in sorted(volumes, key=lambda volume: (-counts[volume], volume)):
        least = load.index(min(load))
        load[least] += counts[volume]
        if least == part:
            chosen.add(volume)
    return chosen


def _plain(report: PredictReport) -> dict[str, Any]:
    return {"predicted": report.predicted, "failed": report.failed, "windows": report.windows}


class _Work:
    """What one process predicts."""

    def __init__(
        self,
        dataset: PatchDataset,
        volumes: Sequence[int],
        target: Target,
        form: Output,
        weights: torch.Tensor,
        overlap: tuple[float, float, float],
        limit: int,
    ) -> None:
        self._dataset, self._volumes, self._target, self._form = dataset, volumes, target, form
        self._weights, self._overlap, self._limit = weights, overlap, limit
        self._problems: dict[int, str] = {}
        self._sums: WindowSums | None = None
        self._spool: Spool | None = None
        self._volume = -1
        self._writing: Future[DerivedVolume] | None = None
        self._finished: list[DerivedVolume] = []
        self._committed = time.monotonic()
        self.predicted: list[str] = []
        self.windows = 0

    @property
    def failed(self) -> dict[str, str]:
        """Why there is none of these subjects."""
        return {self._dataset.subjects[volume]: reason for volume, reason in sorted(self._problems.items())}

    def run(self, model: Model, bar: PredictBar, batch_size: int, **loading: Any) -> None:
        """Predict all; what was finished when an error ends it is kept."""
        with ThreadPoolExecutor(1, "radioloader-predictions") as writer:
            try:
                for keys, images in read_windows(
                    self._dataset, self._volumes, batch_size, failed=self._problems, **loading
                ):
                    try:
                        results = model(images)
                    except Exception as error:
                        volumes = sorted({self._dataset.subjects[key.volume] for key in keys})
                        error.add_note(f"while windows of {', '.join(map(repr, volumes))} were predicted")
                        raise
                    for key, result in zip(keys, results, strict=True):
                        self._take(key.volume, result, writer)
                    self.windows += len(keys)
                    bar.finish(self.windows, len(self.predicted) + len(self._problems))
                    if time.monotonic() - self._committed >= _COMMIT_EVERY_S:
                        self._commit(wait=False)
            finally:
                self._drop()
                try:
                    self._written()
                finally:
                    self._commit(wait=True)
        bar.finish(self.windows, len(self.predicted) + len(self._problems))
        for subject, reason in self.failed.items():
            bar.failed(subject, reason)

    def _take(self, volume: int, result: torch.Tensor, writer: ThreadPoolExecutor) -> None:
        if volume in self._problems:
            return
        if volume != self._volume:
            self._drop()
            self._volume = volume
            self._form.check(len(result))
            shape = self._dataset.table.shape(volume)
            windows = Windows(shape, self._dataset.patch_size, self._overlap)
            self._sums = WindowSums(windows, self._weights, limit=self._limit)
            self._spool = Spool(*self._form.stored(shape, len(result)), limit=self._limit)
        assert self._sums is not None
        assert self._spool is not None
        box, mean = self._sums.add(result)
        if not torch.isfinite(mean).all():
            self._problems[volume] = (
                f"the model gives values that are not finite for {self._dataset.describe(volume)}, voxels {box}; look at the image there "
                "(NaN voxels?), or at the model (autocast?)"
            )
            self._drop()
            return
        self._spool.put(box, self._form(mean))
        if self._sums.complete:
            spool = self._spool
            self._drop()
            self._written()
            self._writing = writer.submit(self._target.write, self._dataset.subjects[volume], spool)

    def _drop(self) -> None:
        if self._sums is not None:
            self._sums.close()
        self._sums = self._spool = None
        self._volume = -1

    def _written(self) -> None:
        """Wait for the volume that is being written."""
        if self._writing is not None:
            try:
                volume = self._writing.result()
            except Exception:
                self._writing = None
                raise
            self._writing = None
            self._finished.append(volume)
            self.predicted.append(volume.row["obs_subject_id"])

    def _commit(self, *, wait: bool) -> None:
        if self._finished and self._target.commit(self._finished, wait=wait):
            self._finished = []
        self._committed = time.monotonic()
