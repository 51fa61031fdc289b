"""Every code block of RadiObject's performance analysis runs with ``radiobject`` replaced by ``radioloader``.

``radiobject_blocks.md`` is a copy of the blocks. What the document leaves open is filled in: the URI, the number of nodes and epochs, and
functions that it only names. It speaks of studies of 10,000 subjects; here are 5,200, of which blocks that read every one get a few.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiledb

import radioloader as rl
from benchmarks.catalog import make_store
from radioloader import config

BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", (Path(__file__).parent / "radiobject_blocks.md").read_text(), re.M | re.S
)
PEOPLE = [f"PATIENT_{number:04d}" for number in range(5_200)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = tmp_path_factory.mktemp("study") / "large"
    make_store(uri, PEOPLE, (8, 8, 112))
    return str(uri)


@pytest.fixture(scope="module")
def small(make_cohort: Any, tmp_path_factory: pytest.TempPathFactory) -> rl.RadiObject:
    """Volumes of one shape, that patches of 96 voxels fit into."""
    root = tmp_path_factory.mktemp("study")
    images = make_cohort(root / "cohort", subjects=2, shape=(98, 97, 96)) / "images"
    store = rl.RadiObject.from_niftis(root / "store", {"T1w": images, "FLAIR": images}, workers=1)
    store.materialize(root / "small", crop=((0, 97), (0, 97), (0, 96)), workers=1)
    return rl.open(root / "small")


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    before = config.get_config()
    yield
    config.configure(read=before.read, write=before.write, s3=before.s3)


def block(start: str) -> str:
    """The one block that has this line, as it runs here."""
    [found] = [text for text in BLOCKS if re.search(rf"^{re.escape(start)}", text, re.M)]
    return re.sub(r"\bradiobject\b", "radioloader", found)


def run(start: str, **names: Any) -> dict[str, Any]:
    exec(compile(block(start), start, "exec"), names)
    return names


def test_there_are_as_many_blocks_as_tests() -> None:
    assert len(BLOCKS) == 18


def test_metadata_operations(large: str) -> None:
    radi = rl.open(large)
    run("# These are O(1) at any scale", radi=radi)
    assert radi.iloc[5000].obs_subject_ids == radi.loc["PATIENT_5000"].obs_subject_ids == ["PATIENT_5000"]


def test_selective_access_and_lazy_views(large: str) -> None:
    radi = rl.open(large)
    names = run("# Loading 1 subject from 10,000", radi=radi)
    assert names["volume"].shape == (8, 8, 112)
    names = run("view = radi.iloc[5000]", radi=radi)
    assert radi._reader.open_arrays == 1, "views have opened nothing more"
    names = run("data = volume.to_numpy()", volume=names["volume"])
    np.testing.assert_array_equal(names["slice"], names["data"][:, :, 100])


def test_pattern_1_parallel_processing(large: str) -> None:
    names = run(
        "from concurrent.futures import ThreadPoolExecutor",
        radi=rl.open(large).head(60),
        uri=large,
        RadiObject=rl.RadiObject,
        compute_features=lambda data: float(data.mean()),
    )
    assert names["results"] == [rl.open(large).T1w.iloc[0].to_numpy().mean()] * 60


def test_pattern_2_cohort_selection(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = rl.Volume.to_numpy

    def to_numpy(self: rl.Volume) -> Any:
        read.append(self.obs_subject_id)
        return whole(self)

    monkeypatch.setattr(rl.Volume, "to_numpy", to_numpy)
    names = run("# Select cohort", radi=None, RadiObject=lambda _: rl.RadiObject(large))
    ill = rl.open(large).filter("diagnosis == 'tumor'").obs_subject_ids
    assert names["tumor_patients"] == ill
    assert read == ill[:100]


def test_pattern_3_streaming(large: str) -> None:
    saved: list[float] = []
    run(
        "def process_subjects(radi, subject_ids):",
        radi=rl.open(large),
        selected_ids=PEOPLE[10:20],
        compute_features=np.max,
        save_to_database=saved.append,
    )
    assert len(saved) == 10


def test_pattern_4_local_cache(large: str, tmp_path: Path) -> None:
    names = run("def cache_subject(radi, subject_id, cache_dir):", np=np)
    radi = rl.open(large)
    first = names["cache_subject"](radi, "PATIENT_0007", tmp_path)
    assert (tmp_path / "PATIENT_0007.npy").exists()
    np.testing.assert_array_equal(names["cache_subject"](None, "PATIENT_0007", tmp_path), first)


def test_context_cache() -> None:
    names = run("_PROCESS_CTX_CACHE: dict[int, tiledb.Ctx] = {}", tiledb=tiledb)
    assert callable(names["_get_ctx"])


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on fewer cores than the document's
def test_distributed(small: rl.RadiObject) -> None:
    names = run(
        "from radiobject.ml.distributed import create_distributed_dataloader, set_epoch",
        radi_object=small,
        rank=0,
        world_size=1,
        epochs=1,
    )
    assert names["batch"]["image"].shape[1] == 2


@pytest.mark.parametrize(
    ("start", "shape"),
    [
        ("    patch_size=(64, 64, 64),  # 136", (2, 1, 64, 64, 64)),
        ("    num_workers=0,  # Single process", (2, 1, 97, 97, 96)),
        ("    patch_size=(96, 96, 96),  # Patch-based", (2, 1, 96, 96, 96)),
        ("    patch_size=(64, 64, 64),  # Smaller", (1, 1, 64, 64, 64)),
    ],
)
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
def test_loaders(small: rl.RadiObject, start: str, shape: tuple[int, ...]) -> None:
    from radioloader.ml import create_training_dataloader

    names = run(start, radi=small, rank=0, world_size=2, create_training_dataloader=create_training_dataloader)
    image = next(iter(names["loader"]))["image"]
    assert tuple(image.shape[2:]) == shape[2:]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("# Optimize for S3 writes", {"read.max_workers": 8, "read.concurrency": 2, "s3.multipart_part_size_mb": 100}),
        (
            "    write=WriteConfig(tile=",
            {"read.concurrency": 8, "write.tile.orientation": rl.SliceOrientation.ISOTROPIC},
        ),
        (
            "    s3=S3Config(max_parallel_ops=16),  # Parallel tile fetches",
            {"s3.max_parallel_ops": 16, "read.max_workers": 8},
        ),
    ],
)
def test_settings(start: str, expected: dict[str, Any]) -> None:
    run(start)
    for path, value in expected.items():
        found: Any = config.get_config()
        for part in path.split("."):
            found = getattr(found, part)
        assert found == value, path


def test_a_context_of_tiledb_itself() -> None:
    names = run("# Reduce TileDB memory budget")
    assert names["ctx"].config()["sm.mem.total_budget"] == str(100 * 1024 * 1024)
