"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Workers of pytest-xdist share the cores: else each has as many threads of OpenMP as there are cores, which wait for each other in
# busy loops and so take most of the time. Before torch is imported; processes that tests start inherit it. `make stress` has no workers.
if "PYTEST_XDIST_WORKER" in os.environ:
    _threads = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _threads)))

import nibabel as nib
import numpy as np
import pytest
import torch

STRESS = bool(os.environ.get("RADIOLOADER_STRESS"))
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_finish() -> None:
    """Modules and collected tests stay until the end: garbage collection, of which radioloader's tests cause much, need not visit them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The generators of the process are in the same state at the start of each test: one that compares two draws ends always alike."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - it is the global one that is meant
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def counts() -> Callable[[int, int], int]:
    """``counts(quick, full)``: repetitions for `make test` and for `make stress`."""
    return lambda quick, full: full if STRESS else quick


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of more real data; tests that want it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(
            "needs larger real scans in ../shared/data, which the repository does not hold; the same is tested with small ones"
        )
    return SHARED_DATA


@pytest.fixture(scope="session")
def nibabel_data() -> Path:
    """Folder of small real files in nibabel's wheel."""
    return Path(nib.__file__).parent / "tests" / "data"


@pytest.fixture(scope="session")
def write_image() -> Callable[..., Path]:
    """Writes one NIfTI file (.nii, .nii.gz, or .hdr/.img) with nibabel: ``write_image(path, array, affine=None, slope=None,
    intercept=None, version=1, big_endian=False)``. ``array`` holds the stored values."""

    def write(
        path: Path,
        array: np.ndarray[Any, Any],
        affine: Any = None,
        slope: float | None = None,
        intercept: float | None = None,
        version: int = 1,
        big_endian: bool = False,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "Image" if ".nii" in path.suffixes else "Pair"
        image_class = getattr(nib, f"Nifti{version}{kind}")
        header = image_class.header_class(endianness=">" if big_endian else "<")
        image = image_class(array, np.eye(4) if affine is None else affine, header, dtype=array.dtype)
        if slope is not None:
            image.header.set_slope_inter(slope, intercept or 0.0)
        nib.save(image, path)
        return path

    return write


@pytest.fixture(scope="session")
def make_cohort(write_image: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a small cohort: ``make_cohort(root, subjects=4, shape=(20, 24, 18), seed=0)``.

    Makes ``images/<id>_T1w.nii.gz`` (int16), ``labels/<id>_seg.nii.gz`` (uint8, classes 0, 1, 2) and ``participants.tsv``; shapes grow by
    one voxel on x from subject to subject, affines are oblique and differ.
    """

    def make(root: Path, subjects: int = 4, shape: tuple[int, int, int] = (20, 24, 18), seed: int = 0) -> Path:
        generator = np.random.default_rng(seed)
        rows = ["participant_id\tage\tsex\tscore"]
        for number in range(1, subjects + 1):
            name = f"sub-{number:02d}"
            size = (shape[0] + number - 1, *shape[1:])
            image = generator.integers(-1000, 1000, size, dtype=np.int16)
            label = np.zeros(size, np.uint8)
            label[4:12, 5:15, 3:9] = 1
            label[6:9, 8:11, 5:7] = 2
            angle = 0.1 * number
            affine = np.diag([1.0, 1.2, 2.0, 1.0])
            affine[:2, :2] = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag(
                [1.0, 1.2]
            )
            affine[:3, 3] = [-10.0 * number, 5.0, 3.0]
            write_image(root / "images" / f"{name}_T1w.nii.gz", image, affine)
            write_image(root / "labels" / f"{name}_seg.nii.gz", label, affine)
            rows.append(f"{name}\t{20 + number}\t{'MF'[number % 2]}\t{'n/a' if number == 2 else number / 4}")
        (root / "participants.tsv").write_text("\n".join(rows) + "\n")
        return root

    return make


@pytest.fixture(scope="session")
def cohort(make_cohort: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cohort of 4 subjects; see :func:`make_cohort`. Do not change it."""
    return make_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def store_uri(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """``cohort`` ingested with small tiles. Do not change it."""
    import radioloader as rl

    config = rl.StorageConfig(write=rl.WriteConfig(tile=rl.TileConfig(extent=8)))
    uri = tmp_path_factory.mktemp("stores") / "store"
    report = rl.ingest(
        uri,
        {"T1w": cohort / "images", "seg": cohort / "labels"},
        obs_meta=cohort / "participants.tsv",
        workers=1,
        config=config,
    )
    assert report.ok, str(report)
    return str(uri)


@pytest.fixture
def changing(make_cohort: Callable[..., Path], tmp_path: Path) -> Path:
    """A cohort of 3 subjects that a test may change."""
    return make_cohort(tmp_path / "cohort", subjects=3, shape=(12, 16, 10))


@pytest.fixture(scope="session")
def brain() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """T1 (int16) and tissues (uint8: 1 grey, 2 white matter) of nilearn's brain at 2 mm, and an oblique affine."""
    nilearn = pytest.importorskip("nilearn")
    data = Path(nilearn.__file__).parent / "datasets" / "data"
    part = (slice(40, 160, 2), slice(40, 200, 2), slice(50, 150, 2))
    name = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
    t1, grey, white = (np.asarray(nib.load(data / name.format(kind)).dataobj)[part] for kind in ("t1", "gm", "wm"))
    tissue = np.where(white > 140, 2, np.where(grey > 140, 1, 0)).astype(np.uint8)
    a, b = 0.15, -0.1
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    )
    affine = nib.affines.from_matvec(turn @ np.diag([-2.0, 2.0, 2.2]), [60.0, -90.0, -40.0])
    return t1.astype(np.int16) * 7, tissue, affine


@pytest.fixture(scope="session")
def make_datalist(
    brain: tuple[np.ndarray[Any, Any], ...], write_image: Callable[..., Path]
) -> Callable[..., list[dict[str, Any]]]:
    """``make_datalist(folder, items=3)``: the brain as several items of MONAI's datalists, of growing shape."""

    def make(folder: Path, items: int = 3) -> list[dict[str, Any]]:
        t1, tissue, affine = brain
        data = []
        for number in range(items):
            part = (slice(0, t1.shape[0] - items + 1 + number),)
            image = write_image(folder / f"case{number}_t1.nii.gz", t1[part] + number, affine)
            label = write_image(folder / f"case{number}_seg.nii.gz", tissue[part], affine)
            data.append({"image": str(image), "label": str(label), "age": 30 + number})
        return data

    return make


@pytest.fixture(scope="session")
def datalist(make_datalist: Callable[..., list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three items. Do not change the files."""
    return make_datalist(tmp_path_factory.mktemp("datalist"))


@pytest.fixture(scope="session")
def brain_store(datalist: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The items as subjects s0, s1, s2 of a store: collections T1w and tissue, column age. Do not change it."""
    import radioloader as rl

    root = tmp_path_factory.mktemp("brain_store")
    (root / "meta.csv").write_text(
        "subject_id,age\n" + "".join(f"s{i},{item['age']}\n" for i, item in enumerate(datalist))
    )
    sources = {
        name: {f"s{number}": item[key] for number, item in enumerate(datalist)}
        for name, key in (("T1w", "image"), ("tissue", "label"))
    }
    uri = str(root / "store")
    assert rl.ingest(uri, sources, labels=["tissue"], obs_meta=root / "meta.csv", workers=1).ok
    return uri


@pytest.fixture(scope="session")
def torchrun(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[dict[str, Any]]]:
    """``torchrun(script, world, *arguments)`` runs the text of a script on every rank, and gives what each rank wrote as JSON to
    ``Path(sys.argv[1]) / f"{rank}.json"``."""

    def run(script: str, world: int, *arguments: Any, timeout: float = 240) -> list[dict[str, Any]]:
        out = tmp_path_factory.mktemp("torchrun")
        path = out / "script.py"
        path.write_text(script)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
        done = subprocess.run(
            [*command, str(path), str(out), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads((out / f"{rank}.json").read_text()) for rank in range(world)]

    return run
