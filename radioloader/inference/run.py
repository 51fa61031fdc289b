"""Models, and the windows that they see."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from radioloader.datasets.loader import DataLoader
from radioloader.datasets.patch import PatchDataset
from radioloader.errors import ConfigError, ReadError, ShapeError
from radioloader.inference.identity import networks_of
from radioloader.types import PatchKey

__all__ = ["Model", "read_windows"]


class Model:
    """A model as it is used to predict: in evaluation mode, without gradients, on its device.

    Args:
        model: Gets (B, C, X, Y, Z) and gives (B, K, X, Y, Z).
        device: Where it runs, and where a module is moved; None takes that of its first parameter, or the processor.
        autocast: dtype of :class:`torch.autocast`; None goes without.
    """

    def __init__(
        self,
        model: Callable[[torch.Tensor], Any],
        device: torch.device | str | None,
        autocast: torch.dtype | None,
    ) -> None:
        if not callable(model):
            raise ConfigError(f"model must be a torch.nn.Module or a function, got {type(model).__name__}")
        if autocast is not None and not isinstance(autocast, torch.dtype):
            raise ConfigError(f"autocast={autocast!r} must be a dtype such as torch.bfloat16, or None")
        self._networks = networks_of(model)
        first = next((parameter for network in self._networks for parameter in network.parameters()), None)
        self.device = torch.device("cpu" if first is None else first.device) if device is None else torch.device(device)
        self._moved = device is not None
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"device={device!r}: torch sees no CUDA device here")
        # Its ranks see different numbers of windows, and DistributedDataParallel would have them wait for each other.
        self._model = model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model
        self._autocast = autocast
        self._channels: int | None = None

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """For as long as it predicts; afterwards the modes of its networks are what they were."""
        modules = [module for network in self._networks for module in network.modules()]
        training = [module.training for module in modules]
        try:
            for network in self._networks:
                if self._moved:
                    network.to(self.device)
                _evaluate(network)
            with torch.no_grad():  # not inference_mode: what a model keeps of its own could not be trained with later
                yield
        finally:
            for module, was in zip(modules, training, strict=True):
                module.training = was

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """What it gives for windows (B, C, X, Y, Z): (B, K, X, Y, Z) float32, in this process's memory.

        Raises:
            ShapeError: It gives something else.
        """
        with torch.autocast(self.device.type, self._autocast, enabled=self._autocast is not None):
            found = self._model(images.to(self.device, non_blocking=True))
        advice = "give a function that returns what you want of it, such as one with return model(images)[0]"
        if not isinstance(found, torch.Tensor):
            raise ShapeError(f"the model gives a {type(found).__name__}, expected a tensor (B, K, X, Y, Z); {advice}")
        shape, wanted = tuple(found.shape), tuple(images.shape)
        if len(shape) != 5 or shape[0] != wanted[0] or shape[2:] != wanted[2:] or not shape[1]:
            if len(shape) == 5:
                advice = f"choose a patch_size that it keeps (such as a multiple of 16 or 32 for a UNet), or {advice}"
            raise ShapeError(
                f"the model gives the shape {shape} for windows {wanted}, expected (B, K, X, Y, Z) with B = {wanted[0]} and "
                f"(X, Y, Z) = {wanted[2:]}; {advice}"
            )
        if self._channels not in (None, shape[1]):
            raise ShapeError(f"the model gave {self._channels} channels before, and {shape[1]} now")
        self._channels = shape[1]
        return found.detach().as_subclass(torch.Tensor).to("cpu", torch.float32)


def _evaluate(network: torch.nn.Module) -> None:
    """Put a network in evaluation mode, but those parts that torch.export made: their mode is fixed, and they refuse to be asked.

    Raises:
        ConfigError: It has no evaluation mode.
    """
    try:
        network.eval()
    except NotImplementedError as error:
        if isinstance(network, torch.fx.GraphModule):
            return
        if not any(isinstance(module, torch.fx.GraphModule) for module in network.modules()):
            name = type(network).__name__
            raise ConfigError(
                f"{name} cannot be put in evaluation mode, in which models predict: its eval() or train() raises NotImplementedError"
            ) from error
        # One part refused, and those after it were not asked.
        network.training = False
        for part in network.children():
            _evaluate(part)


def read_windows(
    dataset: PatchDataset,
    volumes: Sequence[int],
    batch_size: int,
    *,
    failed: dict[int, str],
    **arguments: Any,
) -> Iterator[tuple[list[PatchKey], torch.Tensor]]:
    """All windows of some volumes, in order; batches hold windows of several volumes where these end.

    Args:
        dataset: Where they are read.
        volumes: Which volumes of it, by number.
        batch_size: Windows in a batch.
        failed: Volumes, by number, of which nothing is wanted any more; gets those that cannot be read, and why.
        **arguments: For the loader.

    Returns:
        Keys, and images (B, C, X, Y, Z).
    """
    counts = dataset.layout.counts.tolist()
    keys = [PatchKey(volume, number) for volume in volumes for number in range(counts[volume])]
    batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    loader = iter(DataLoader(dataset, batch_sampler=batches, **arguments))
    for batch in batches:
        try:
            found = next(loader)
        except ReadError:  # of one of them; each by itself then says which
            batch, parts = _one_by_one(dataset, batch, failed)
            if not batch:
                continue
            found = {"image": torch.stack(parts)}
        images = found.get("image") if isinstance(found, Mapping) else None
        if not isinstance(images, torch.Tensor) or images.ndim != 5 or images.shape[2:] != dataset.patch_size:
            what = "no tensor 'image'" if not isinstance(images, torch.Tensor) else f"images {tuple(images.shape)}"
            raise ShapeError(
                f"the transform gives {what} for windows of {dataset.describe(batch[0].volume)}, expected 'image' (C, X, Y, Z) with "
                f"(X, Y, Z) = {dataset.patch_size}"
            )
        yield batch, images


def _one_by_one(
    dataset: PatchDataset, batch: Sequence[PatchKey], failed: dict[int, str]
) -> tuple[list[PatchKey], list[torch.Tensor]]:
    read: list[PatchKey] = []
    parts: list[torch.Tensor] = []
    for key in batch:
        if key.volume in failed:
            continue
        try:
            parts.append(dataset[key]["image"])
            read.append(key)
        except ReadError as error:
            failed[key.volume] = str(error)
    return read, parts
