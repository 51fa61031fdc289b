"""radioloader.torchio beside TorchIO on the same files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

tio = pytest.importorskip("torchio")

import radioloader as rl  # noqa: E402
from radioloader.config import available_cores  # noqa: E402
from radioloader.errors import ConfigError, IngestError, KeyNotFoundError  # noqa: E402
from radioloader.torchio import SubjectsDataset  # noqa: E402

IMAGES = ("t1", "seg")


@pytest.fixture
def make(brain_store: str, tmp_path: Path) -> Callable[..., Any]:
    def dataset(transform: Any = None, **more: Any) -> Any:
        more = {"progress": False, "num_workers": 1, "prepared": tmp_path / "prepared", **more}
        return SubjectsDataset(brain_store, {"t1": "T1w"}, {"seg": "tissue"}, transform, **more)

    return dataset


@pytest.fixture(scope="module")
def files(datalist: list[dict[str, Any]]) -> list[Any]:
    """TorchIO's own subjects. With nibabel's affines: those that TorchIO gets from ITK differ in the eighth digit, and with them what
    is rounded after resampling."""

    def image(kind: Any, path: str) -> Any:
        found = nib.load(path)
        return kind(tensor=np.asarray(found.dataobj)[None], affine=found.affine)

    return [tio.Subject(t1=image(tio.ScalarImage, i["image"]), seg=image(tio.LabelMap, i["label"])) for i in datalist]


def unread(subject: Any) -> bool:
    return not any(image._loaded for image in subject.get_images(intensity_only=False))


def assert_same(subject: Any, expected: Any) -> None:
    for name in IMAGES:
        mine, theirs = subject[name], expected[name]
        assert isinstance(mine, tio.LabelMap) == isinstance(theirs, tio.LabelMap)
        assert mine.data.dtype == theirs.data.dtype
        assert torch.equal(torch.as_tensor(mine.data), theirs.data)
        np.testing.assert_allclose(mine.affine, theirs.affine, atol=1e-6)


def test_what_is_known_without_reading(make: Callable[..., Any], files: list[Any]) -> None:
    dataset = make(targets="age")
    assert len(dataset) == 3
    for subject, expected in zip(dataset, files, strict=True):
        assert subject.shape == expected.shape
        assert subject.spatial_shape == expected.spatial_shape
        np.testing.assert_allclose(subject.spacing, expected.spacing)
        assert subject.t1.orientation == expected.t1.orientation
        np.testing.assert_allclose(subject.t1.affine, expected.t1.affine, atol=1e-6)
        assert subject.t1.data.shape == expected.t1.shape
        assert subject.t1.data.dtype == expected.t1.data.dtype
        assert subject.t1.data.device.type == "cpu"
        subject.check_consistent_space()
        assert repr(subject.t1)
        assert unread(subject)
    assert [subject["age"] for subject in dataset] == [30, 31, 32]
    assert [subject["obs_subject_id"] for subject in dataset] == ["s0", "s1", "s2"]


def test_what_torchio_reads_from_the_files_themselves(make: Callable[..., Any], datalist: list[dict[str, Any]]) -> None:
    for subject, item in zip(make(), datalist, strict=True):
        assert_same(subject, tio.Subject(t1=tio.ScalarImage(item["image"]), seg=tio.LabelMap(item["label"])))


def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what is read from now on."""
    shapes: list[tuple[int, ...]] = []
    plain = rl.VolumeReader.read

    def read(self: Any, ref: Any, box: Any = None, **more: Any) -> Any:
        shapes.append(box.shape)
        return plain(self, ref, box, **more)

    monkeypatch.setattr(rl.VolumeReader, "read", read)
    return shapes


def test_cropping_reads_the_box_alone(
    make: Callable[..., Any], files: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, shapes = make()[0], reads(monkeypatch)
    crop = tio.Crop((3, 4, 5, 6, 7, 8))
    size = tuple(n - k for n, k in zip(subject.spatial_shape, (7, 11, 15), strict=True))
    assert_same(crop(subject), crop(files[0]))
    assert shapes == [size, size]
    assert unread(subject)
    part = subject.t1[2:9, 4:10, 5:]
    assert torch.equal(part.data, files[0].t1[2:9, 4:10, 5:].data)
    assert shapes[2] == (7, 6, subject.spatial_shape[2] - 5)
    data = subject.t1.data
    assert torch.equal(data[:, 1:3, 2:5], files[0].t1.data[:, 1:3, 2:5])
    assert torch.equal(data[0, 4], files[0].t1.data[0, 4])  # not so simple: all of it is read, and kept
    assert not unread(subject)
    subject.unload()
    assert unread(subject)
    assert torch.equal(subject.t1.data + 1, files[0].t1.data + 1)


@pytest.mark.parametrize(
    "transform",
    [
        tio.ToCanonical(),
        tio.Resample(3),
        tio.Resample("t1"),
        tio.ZNormalization(),
        tio.RescaleIntensity((0, 1), percentiles=(1, 99)),
        tio.CropOrPad(48),
        tio.Pad(3),
        tio.OneHot(),
        tio.RandomFlip(axes=0, flip_probability=1),
        tio.Compose([tio.ToCanonical(), tio.Resample(4), tio.ZNormalization(masking_method="seg")]),
    ],
    ids=lambda t: type(t).__name__,
)
def test_transforms_give_what_they_give_on_the_files(
    transform: Any, make: Callable[..., Any], files: list[Any]
) -> None:
    assert_same(transform(make()[1]), transform(files[1]))


@pytest.fixture
def threads_of_a_preparation() -> Iterator[None]:
    """As many threads as a preparation by one worker has: the last bits of a mean depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(available_cores())
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads_of_a_preparation")
def test_deterministic_transforms_run_once(make: Callable[..., Any], files: list[Any], tmp_path: Path) -> None:
    head = [tio.ToCanonical(), tio.Resample(3), tio.ZNormalization(masking_method="seg")]
    dataset = make(tio.Compose([*head, tio.RandomFlip(axes=1, flip_probability=1)]), targets="age")
    assert [line.split()[0] for line in dataset.explain().splitlines()] == [
        "ToCanonical",
        "Resample",
        "ZNormalization",
        "RandomFlip",
    ]
    kept = make(tio.Compose(head), targets="age")
    assert len(rl.open(tmp_path / "prepared").snapshot.store.history()) == 1
    for number in range(3):
        subject = kept.dry_iter()[number]
        expected = tio.Compose(head)(files[number])
        assert unread(subject)
        assert_same(kept[number], expected)
        assert [name for name, _ in subject.applied_transforms] == [name for name, _ in expected.applied_transforms]
        assert (subject["age"], subject["obs_subject_id"]) == (30 + number, f"s{number}")
        flipped = tio.Flip(1)(expected)
        assert torch.equal(torch.as_tensor(dataset[number].t1.data), flipped.t1.data)
    make(tio.Compose([head[0], tio.Resample(4), head[2]]))
    assert len(rl.open(tmp_path / "prepared").snapshot.store.history()) == 2


def test_prepared_subjects_are_those_of_the_store(make: Callable[..., Any], make_datalist: Any, tmp_path: Path) -> None:
    data = make_datalist(tmp_path / "files", items=2)
    sources = {"T1w": {f"s{i}": item["image"] for i, item in enumerate(data)}}
    uri = tmp_path / "store"
    assert rl.ingest(uri, sources, workers=1).ok
    first = SubjectsDataset(uri, "T1w", transform=tio.Resample(3), progress=False, num_workers=1)
    assert rl.open(uri).snapshot.subject_ids == ["s0", "s1"]
    again = SubjectsDataset(uri, "T1w", transform=tio.Resample(3), progress=False, num_workers=1)
    assert torch.equal(torch.as_tensor(first[1]["T1w"].data + 0), torch.as_tensor(again[1]["T1w"].data + 0))
    assert len(rl.open(uri).snapshot.store.history()) == 2


def test_transforms_that_are_random_are_left_where_they_are(make: Callable[..., Any]) -> None:
    def own(subject: Any) -> Any:
        return subject

    for transform in (
        tio.RandomAffine(),
        tio.ZNormalization(p=0.5),
        tio.OneOf([tio.Resample(2)]),
        own,
        tio.Compose([tio.RandomNoise()]),
    ):
        steps = make(transform)._steps
        assert [where for _, where, _ in steps] == ["on every subject"]


def test_a_transform_that_fails_is_named(make: Callable[..., Any]) -> None:
    with pytest.raises(IngestError, match=r"3 of 3 subjects could not be prepared: subject 's0': .*absent"):
        make(tio.Resample("absent"))


def test_copies_share_the_reader_and_not_the_voxels(make: Callable[..., Any]) -> None:
    import copy

    subject = make()[0]
    for twin in (copy.deepcopy(subject).t1, copy.copy(subject.t1)):
        assert twin._voxels.reader is subject.t1._voxels.reader
        twin.load()
        assert not subject.t1._loaded


def test_the_grid_sampler_and_its_aggregator(make: Callable[..., Any], files: list[Any]) -> None:
    for padding in (None, "edge"):
        mine, theirs = (tio.GridSampler(s, 24, 4, padding_mode=padding) for s in (make()[0], files[0]))
        assert len(mine) == len(theirs)
        assert unread(mine.subject) == (padding is None)
        aggregator = tio.GridAggregator(mine)
        for batch in tio.SubjectsLoader(mine, batch_size=5):
            aggregator.add_batch(batch["t1"][tio.DATA].float(), batch[tio.LOCATION])
        assert torch.equal(aggregator.get_output_tensor(), files[0].t1.data.float())


def test_loaders_of_subjects(make: Callable[..., Any], files: list[Any]) -> None:
    dataset = make(tio.CropOrPad(32), load_getitem=True)
    for workers in (0, 2):
        batches = list(tio.SubjectsLoader(dataset, batch_size=2, num_workers=workers))
        assert [batch["t1"][tio.DATA].shape[0] for batch in batches] == [2, 1]
        assert torch.equal(batches[0]["t1"][tio.DATA][1], tio.CropOrPad(32)(files[1]).t1.data)


def test_our_datasets_take_torchios_transforms(brain_store: str) -> None:
    transform = tio.Compose([tio.RandomFlip(axes=0, flip_probability=1), tio.RandomNoise()])
    dataset = rl.PatchDataset(brain_store, image="T1w", label="tissue", patch_size=16, transform=transform)
    plain = rl.PatchDataset(brain_store, image="T1w", label="tissue", patch_size=16)
    key = rl.PatchKey(0, 3, 1)
    sample, before = dataset[key], plain[key]
    assert torch.equal(sample["label"], before["label"].flip(1))
    assert {type(sample[name]) for name in ("image", "label")} == {torch.Tensor}
    assert not torch.equal(sample["image"], before["image"].flip(1))
    assert torch.equal(sample["image"], dataset[key]["image"])
    assert sample["obs_id"] == before["obs_id"]
    batches = [next(iter(rl.DataLoader(dataset, batch_size=2, num_workers=workers))) for workers in (0, 1)]
    assert torch.equal(batches[0]["image"], batches[1]["image"])


def test_label_maps_of_our_datasets_are_resampled_as_labels(brain_store: str) -> None:
    dataset = rl.PatchDataset(brain_store, image="T1w", label="tissue", patch_size=24, transform=tio.Resample(1.3))
    sample = dataset[rl.PatchKey(0, 0, 0)]
    assert set(sample["label"].unique().tolist()) <= {0, 1, 2}
    assert sample["image"].shape[1:] == sample["label"].shape[1:]
    assert sample["image"].shape[1] > 24
    spacing = torch.linalg.norm(sample["affine"][:3, :3], dim=0)
    torch.testing.assert_close(spacing, torch.full((3,), 1.3, dtype=torch.float64))


def test_slices_of_our_datasets(brain_store: str) -> None:
    flip = tio.RandomFlip(axes=0, flip_probability=1)
    with_flip = rl.SliceDataset(brain_store, image="T1w", label="tissue", transform=flip)
    sample, plain = with_flip[40], rl.SliceDataset(brain_store, image="T1w", label="tissue")[40]
    assert torch.equal(sample["image"], plain["image"].flip(1))
    assert torch.equal(sample["label"], plain["label"].flip(1))


def test_wrong_arguments(brain_store: str, make: Callable[..., Any]) -> None:
    with pytest.raises(KeyNotFoundError, match="no collection 'T2w'"):
        SubjectsDataset(brain_store, "T2w")
    with pytest.raises(KeyNotFoundError, match=r"no subjects \['s9'\]"):
        make(subjects=["s0", "s9"])
    with pytest.raises(ConfigError, match="image is empty"):
        SubjectsDataset(brain_store, [])
    with pytest.raises(ConfigError, match="'t1' is the name of more than one"):
        SubjectsDataset(brain_store, {"t1": "T1w"}, {"t1": "tissue"})


def test_a_script_that_was_not_changed_is_told_what_to_do(brain_store: str) -> None:
    with pytest.raises(ConfigError, match=r"the first argument is a store, got a list; ingest the files once"):
        rl.torchio.SubjectsDataset([tio.Subject(t1=tio.ScalarImage(tensor=torch.zeros(1, 2, 2, 2)))])


def test_targets_are_no_reason_to_prepare_again(brain_store: str, tmp_path: Path) -> None:
    def made(targets: Any) -> Any:
        options: Any = {"prepared": tmp_path / "store", "progress": False, "num_workers": 1, "subjects": ["s0"]}
        return rl.torchio.SubjectsDataset(brain_store, "T1w", transform=tio.Crop(10), targets=targets, **options)

    plain, aged, renamed = made(()), made("age"), made({"years": "age"})
    assert plain.collections == aged.collections
    assert len(rl.open(plain.store)[plain.collections["T1w"]]) == 1
    assert "age" not in plain[0]
    assert (aged[0]["age"], renamed[0]["years"]) == (30, 30)
