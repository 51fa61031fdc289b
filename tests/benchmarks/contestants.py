"""Contestants that fail, each in its own way, and some of a pipeline that loads nothing; the suite is given them as
``tests.benchmarks.contestants:Name``."""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.model import Job
from benchmarks.peers.base import Feed, Peer, Unsupported
from benchmarks.pipelines.base import PipelinePeer


class Raises(Peer):
    """Its patches cannot be read; its volumes can."""

    packages = ("numpy",)

    def patches(self, job: Job) -> Feed:
        raise RuntimeError("the patches are broken")

    def volumes(self, job: Job) -> Feed:
        import numpy as np

        def batches() -> Any:
            while True:
                array = np.zeros((1, 1, *self.cohort.shape), np.int16)
                yield {"image": array, "label": array}

        return Feed(batches())

    def slices(self, job: Job) -> Feed:
        raise Unsupported("this version has no slices")


class Dies(Peer):
    """Ends its process in the midst of it."""

    packages = ()

    def patches(self, job: Job) -> Feed:
        print("out of something", flush=True)
        os._exit(3)


class Hangs(Peer):
    """Never gives a batch."""

    packages = ()

    def patches(self, job: Job) -> Feed:
        def batches() -> Any:
            time.sleep(600)
            yield {}

        return Feed(batches())


class Wrong(Peer):
    """Gives patches of another size than was asked for."""

    packages = ("numpy",)

    def patches(self, job: Job) -> Feed:
        import numpy as np

        array = np.zeros((4, 1, 2, 2, 2), np.int16)
        return Feed([{"image": array, "label": array}])


class Counts(PipelinePeer):
    """A pipeline of numbers, which are kept in a file."""

    packages = ("numpy",)

    def prepare_pipeline(self, name: str) -> None:
        self.kept(name).mkdir(parents=True)
        (self.kept(name) / "numbers").write_text("1 2 3")

    def dataset(self, name: str) -> Any:
        return (self.kept(name) / "numbers").read_text().split()

    def loader(self, name: str, dataset: Any, job: Job) -> Feed:
        return Feed(dataset)


class Fills(Counts):
    """The same without a file: it begins anew in each process."""

    filled = True

    def dataset(self, name: str) -> Any:
        return ["1", "2", "3"]


class Starves(Counts):
    """Cannot be prepared."""

    def prepare_pipeline(self, name: str) -> None:
        raise RuntimeError("out of disk")


class Tires(Fills):
    """Gives batches without workers, and none with them."""

    def loader(self, name: str, dataset: Any, job: Job) -> Feed:
        return Feed([] if job.workers else dataset)
