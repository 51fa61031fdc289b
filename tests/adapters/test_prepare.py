"""Preparation: what is done once, done again when something changed, and never served when it is stale."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

mt = pytest.importorskip("monai.transforms")

import radioloader as rl  # noqa: E402
from radioloader.errors import ConfigError, IngestError  # noqa: E402
from radioloader.monai import Dataset  # noqa: E402

KEYS = ["image", "label"]
LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


def pipeline(*, high: float = 1000, threshold: float = 0, pos: float = 1) -> Any:
    return mt.Compose(
        [
            mt.LoadImaged(KEYS),
            mt.EnsureChannelFirstd(KEYS),
            mt.Orientationd(KEYS, "RAS", labels=LABELS),
            mt.ScaleIntensityRanged("image", 0, high, 0, 1, clip=True),
            mt.RandCropByPosNegLabeld(KEYS, "label", (16, 16, 16), pos, 1, 2, "image", threshold),
        ]
    )


class Counting(mt.MapTransform):
    """Leaves a file for each item that it sees."""

    def __init__(self, folder: str) -> None:
        super().__init__(["image"])
        self.folder = folder

    def __call__(self, data: Any) -> Any:
        Path(self.folder, f"{time.time_ns()}").touch()
        return data


def versions(uri: Path) -> int:
    return len(rl.open(uri).snapshot.store.history())


def make(data: Any, transform: Any, uri: Path, **more: Any) -> Dataset:
    return Dataset(data, transform, store=uri, progress=False, num_workers=1, **more)


def test_what_is_there_is_used(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    transform = mt.Compose([*pipeline().transforms[:4], Counting(str(seen))])
    make(datalist[:2], transform, tmp_path / "store")
    assert len(list(seen.iterdir())) == 2
    make(datalist, transform, tmp_path / "store")
    assert len(list(seen.iterdir())) == 3
    version = versions(tmp_path / "store")
    make(datalist[::-1], transform, tmp_path / "store")
    assert len(list(seen.iterdir())) == 3
    assert versions(tmp_path / "store") == version


def test_another_crop_uses_what_is_there(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    make(datalist[:1], pipeline(), tmp_path / "store")
    version = versions(tmp_path / "store")
    make(datalist[:1], pipeline(pos=3), tmp_path / "store")
    assert versions(tmp_path / "store") == version
    make(datalist[:1], pipeline(threshold=0.5), tmp_path / "store")  # other voxels to choose from
    assert versions(tmp_path / "store") == version + 1


def test_a_changed_prefix_is_noticed(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    means = [
        float(make(datalist[:1], mt.Compose(pipeline(high=high).transforms[:4]), tmp_path / "store")[0]["image"].mean())
        for high in (1000, 500, 1000)
    ]
    expected = [
        float(mt.Compose(pipeline(high=high).transforms[:4])(datalist[0])["image"].mean()) for high in (1000, 500)
    ]
    assert means == [expected[0], expected[1], expected[0]]
    assert versions(tmp_path / "store") == 2


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("same_time", [False, True], ids=["touched", "with the old time"])
def test_a_changed_file_is_noticed(
    key: str, same_time: bool, make_datalist: Callable[..., Any], write_image: Callable[..., Path], tmp_path: Path
) -> None:
    import nibabel as nib

    data = make_datalist(tmp_path / "files", items=2)
    transform = mt.Compose(pipeline().transforms[:4])
    path = Path(data[0][key])
    before = np.asarray(make(data, transform, tmp_path / "store")[0][key])
    times, image = path.stat(), nib.load(path)
    array = np.asarray(image.dataobj).copy()
    array[10:20] = 0
    write_image(path, array, image.affine)
    if same_time:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = np.asarray(make(data, transform, tmp_path / "store")[0][key])
    assert not np.array_equal(before, after)
    assert np.array_equal(after, np.asarray(transform(data[0])[key]))
    assert versions(tmp_path / "store") == 2


def test_moved_files_are_known_by_their_content(make_datalist: Callable[..., Any], tmp_path: Path) -> None:
    data = make_datalist(tmp_path / "files", items=2)
    transform = mt.Compose(pipeline().transforms[:4])
    make(data, transform, tmp_path / "store")
    shutil.move(tmp_path / "files", tmp_path / "moved")
    moved = [{**item, **{key: item[key].replace("/files/", "/moved/") for key in KEYS}} for item in data]
    dataset = make(moved, transform, tmp_path / "store")
    assert versions(tmp_path / "store") == 1
    assert dataset[0]["image"].meta["filename_or_obj"] == moved[0]["image"]


def test_an_item_that_comes_twice_is_prepared_once_and_drawn_twice(
    datalist: list[dict[str, Any]], tmp_path: Path
) -> None:
    dataset = make([datalist[0], datalist[1], datalist[0]], pipeline(), tmp_path / "store")
    assert len(dataset) == 3
    assert len(rl.open(tmp_path / "store").snapshot.subject_ids) == 2
    first, _, again = dataset.__getitems__([dataset.key(i) for i in range(3)])
    assert [s["image"].meta["crop_center"] for s in first] != [s["image"].meta["crop_center"] for s in again]


def test_the_stored_dtype_is_small_and_the_samples_is_monais(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    transform = mt.Compose([mt.LoadImaged(KEYS), mt.EnsureChannelFirstd(KEYS), mt.Lambdad("label", positive)])
    dataset = make(datalist[:1], transform, tmp_path / "store")
    assert {key: ref.dtype for key, ref in dataset._items[0].volumes.items()} == {"image": "int16", "label": "uint8"}
    sample, expected = dataset[0], transform(datalist[0])
    for key in KEYS:
        assert sample[key].dtype == expected[key].dtype
        assert torch.equal(sample[key].as_tensor(), expected[key].as_tensor())
    assert sample["label"].dtype == torch.bool


def positive(label: Any) -> Any:
    return label > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.float64, torch.uint8])
@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_of_any_kind_come_back(dtype: torch.dtype, channels: int, tmp_path: Path) -> None:
    array = (torch.rand(channels, 9, 8, 7, generator=torch.Generator().manual_seed(0)) * 100).to(dtype)
    if dtype == torch.float64:
        array[0, 0, 0, 0] = torch.nan
    for value in (array, array.numpy()):
        sample = make([{"image": value, "n": 1}], None, tmp_path / str(type(value)))[0]
        assert type(sample["image"]) is type(value)
        assert sample["image"].dtype == value.dtype
        np.testing.assert_array_equal(np.asarray(sample["image"]), np.asarray(value))


def test_a_lambda_has_a_way_out(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    def with_lambda(value: int) -> Any:
        return mt.Compose([mt.LoadImaged(KEYS), mt.EnsureChannelFirstd(KEYS), mt.Lambdad("image", lambda x: x + value)])

    with pytest.raises(ConfigError, match=r"is a lambda \(line \d+ of test_prepare.py\).*prefix_id="):
        make(datalist[:1], with_lambda(1), tmp_path / "store")
    low = float(make(datalist[:1], with_lambda(1), tmp_path / "store", prefix_id="plus 1")[0]["image"].min())
    assert (
        float(make(datalist[:1], with_lambda(5), tmp_path / "store", prefix_id="plus 5")[0]["image"].min()) == low + 4
    )


def test_what_cannot_be_prepared_is_named_and_the_others_are_kept(
    make_datalist: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_datalist(tmp_path / "files", items=3)
    Path(data[1]["image"]).write_bytes(b"no image")
    with pytest.raises(IngestError, match=r"1 of 3 items could not be prepared: .*case1_t1.nii.gz.*on_error='skip'"):
        make(data, pipeline(), tmp_path / "store")
    assert len(rl.open(tmp_path / "store").snapshot.subject_ids) == 2
    left = make(data, pipeline(), tmp_path / "store", on_error="skip")
    assert [item["age"] for item in left.data] == [30, 32]
    assert "case1_t1.nii.gz" in caplog.text
    assert [sample[0]["age"] for sample in left] == [30, 32]
    volumes = list((tmp_path / "store").glob("c/*/volumes/*"))
    assert len(volumes) == 4  # nothing is left of the one that failed


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (mt.Compose([mt.ToTensord("age")]), r"has no volume \(C, X, Y, Z\)"),
        (mt.Compose([mt.LoadImaged(KEYS)]), r"has no volume \(C, X, Y, Z\)"),
        (
            mt.Compose([mt.LoadImaged(KEYS), mt.EnsureChannelFirstd("image")]),
            r"'label' is an array of shape \(.*neither a volume",
        ),
    ],
    ids=["no volume", "no channels", "one without"],
)
def test_samples_that_cannot_be_stored_are_explained(
    transform: Any, message: str, datalist: list[dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(IngestError, match=message):
        make(datalist[:1], transform, tmp_path / "store")


SCRIPT = """
import os, sys, time
from pathlib import Path
import monai.transforms as mt
from radioloader.monai import Dataset
import radioloader.adapters.prepare as prepare
prepare._COMMIT_EVERY_S = 0.0
class Slow(mt.MapTransform):
    def __init__(self, folder): super().__init__(["image"]); self.folder = folder
    def __call__(self, data):
        Path(self.folder, f"{time.time_ns()}").touch()
        time.sleep(0.3)
        return data
data = [{"image": path} for path in sys.argv[4:]]
if __name__ == "__main__":
    if sys.argv[3] == "two":
        os.fork()  # after the imports, which take most of the time
    dataset = Dataset(data, mt.Compose([mt.LoadImaged("image"), mt.EnsureChannelFirstd("image"), Slow(sys.argv[2])]), store=sys.argv[1],
        progress=False, num_workers=1)
    print(len(dataset), sum(float(sample["image"].sum()) for sample in dataset))
"""


def test_a_killed_preparation_goes_on(
    make_datalist: Callable[..., Any], tmp_path: Path, counts: Callable[[int, int], int]
) -> None:
    data = make_datalist(tmp_path / "files", items=6)
    script, store, seen = tmp_path / "script.py", tmp_path / "store", tmp_path / "seen"
    script.write_text(SCRIPT)
    seen.mkdir()

    def start(processes: str, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), str(store), str(seen), processes, *[item["image"] for item in data]]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)

    for _ in range(counts(1, 10)):
        shutil.rmtree(store, ignore_errors=True)
        for file in seen.iterdir():
            file.unlink()
        process = start("one", stderr=subprocess.DEVNULL)
        while len(list(seen.iterdir())) < 4:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done = len(rl.open(store).snapshot.subject_ids)
        assert 2 <= done <= 4
        before = len(list(seen.iterdir()))
        # Two at once: one works, the other waits and uses it.
        first, second = start("two").communicate(timeout=120)[0].splitlines()
        assert first == second
        assert first.startswith("6 ")
        assert len(list(seen.iterdir())) - before == 6 - done


def test_prepared_volumes_are_a_store_like_any_other(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    import nibabel as nib

    transform = mt.Compose(pipeline().transforms[:4])
    make(datalist[:1], transform, tmp_path / "store")
    store, expected = rl.open(tmp_path / "store"), transform(datalist[0])
    for name in store.snapshot.collections:
        volume = getattr(store, name).iloc[0]
        volume.to_nifti(tmp_path / "one.nii.gz", grid="stored")
        written, want = nib.load(tmp_path / "one.nii.gz"), expected[name.partition("@")[0]]
        np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(want[0]))
        np.testing.assert_allclose(written.affine, want.affine, atol=1e-5)
        assert written.header.get_xyzt_units()[0] == "mm"


def test_errors_say_what_they_came_from(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    missing = [{**datalist[0], "image": str(tmp_path / "absent.nii.gz")}]
    with pytest.raises(
        IngestError, match=r"absent.nii.gz.*because of .*(No such file|no reader|does not exist|cannot)"
    ):
        make(missing, pipeline(), tmp_path / "store")
    with pytest.raises(IngestError, match=r"because of KeyError: .*imge"):
        transform = mt.Compose([mt.LoadImaged(KEYS), mt.EnsureChannelFirstd(KEYS), mt.CropForegroundd(KEYS, "imge")])
        make(datalist[:1], transform, tmp_path / "store")


def test_tracking_of_metadata_is_part_of_the_preparation(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    from monai.data import set_track_meta

    transform = mt.Compose([mt.LoadImaged(KEYS), mt.EnsureChannelFirstd(KEYS, channel_dim="no_channel")])
    set_track_meta(False)
    try:
        plain = make(datalist[:1], transform, tmp_path / "store")[0]["image"]
    finally:
        set_track_meta(True)
    assert type(plain) is torch.Tensor
    tracked = make(datalist[:1], transform, tmp_path / "store")[0]["image"]
    torch.testing.assert_close(tracked.affine, transform(datalist[0])["image"].affine)


def test_a_list_of_transforms_is_a_pipeline(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    dataset = make(datalist[:1], list(pipeline().transforms), tmp_path / "store")
    assert len(dataset[0]) == 2


def test_many_classes_cost_little(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    crop = mt.RandCropByLabelClassesd(KEYS, "label", (8, 8, 8), num_classes=100)
    array = np.random.default_rng(0).integers(0, 100, (1, 48, 48, 48)).astype(np.uint8)
    dataset = make([{"image": array, "label": array}], mt.Compose([crop]), tmp_path / "store")
    assert len(dataset._items[0].about) < 100_000
    assert dataset[0][0]["label"].shape == (1, 8, 8, 8)


def test_what_a_killed_preparation_did_not_commit_is_written_again(
    datalist: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a commit that never came lie in the tables: their subjects are as unknown as before."""
    from radioloader.storage.store import Transaction

    def killed(*_: Any) -> int:
        raise KeyboardInterrupt

    transform = mt.Compose(pipeline().transforms[:4])
    with monkeypatch.context() as patched:
        patched.setattr(Transaction, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            make(datalist[:1], transform, tmp_path / "store")
    assert rl.open(tmp_path / "store").snapshot.subject_ids == []
    make(datalist[:1], transform, tmp_path / "store")
    assert len(rl.open(tmp_path / "store").snapshot.subject_ids) == 1
