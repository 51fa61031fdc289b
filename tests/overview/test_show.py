"""Pictures of single subjects."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import radioloader as rl
from radioloader.errors import ConfigError, KeyNotFoundError
from tests.overview.conftest import HOSTILE, SHAPE, Made, voxels

ORANGE = (0xE6, 0x9F, 0x00)


def colours(path: Path) -> set[tuple[int, ...]]:
    return set(map(tuple, np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB")).reshape(-1, 3).tolist()))


def test_three_planes_with_the_label(clean: Made, tmp_path: Path) -> None:
    path = rl.show(clean.uri, "s03", tmp_path / "a" / "s03.png", size=320)
    assert path == tmp_path / "a" / "s03.png"
    picture = Image.open(io.BytesIO(path.read_bytes()))
    assert picture.format == "PNG"
    # 20 x 24 x 32 mm, 10 pixels a mm; text below.
    assert picture.size[0] == 200 + 200 + 240 + 2 * 12
    assert picture.size[1] > 320
    assert ORANGE in colours(path)


def test_the_picture_is_of_the_voxels(make_store: Any, tmp_path: Path) -> None:
    image = np.zeros((10, 10, 10), np.float32)
    image[5:, :, :] = 1  # the patient's right half is bright
    made = make_store({"a": (image, None, np.eye(4))})
    picture = Image.open(io.BytesIO(rl.show(made.uri, "a", tmp_path / "a.png", size=100).read_bytes()))
    axial, coronal = picture.getpixel((25, 30)), picture.getpixel((104 + 25, 30))
    assert axial == coronal == (255, 255, 255)  # and lies at the left
    assert picture.getpixel((75, 30)) == picture.getpixel((104 + 75, 30)) == (0, 0, 0)


def test_an_opened_store_and_a_selection(planted: Made, tmp_path: Path) -> None:
    store = rl.open(planted.uri)
    expected = rl.show(planted.uri, "s03", tmp_path / "a.png", size=64).read_bytes()
    assert rl.show(store, "s03", tmp_path / "b.png", size=64).read_bytes() == expected
    assert rl.show(store.loc[["s01", "s03"]], "s03", tmp_path / "c.png", size=64).read_bytes() == expected
    with pytest.raises(KeyNotFoundError, match=r"'s02' is not there; it has 's0[13]', 's0[13]'$"):
        rl.show(store.loc[["s01", "s03"]], "s02", tmp_path / "d.png")
    with pytest.raises(
        ConfigError, match=r"uri=None is a NoneType; it must be a path, s3://bucket/prefix, an opened store"
    ):
        rl.show(None, "s02", tmp_path / "d.png")  # type: ignore[arg-type]


def test_the_name_is_made_safe(planted: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = rl.show(planted.uri, HOSTILE, size=64)
    assert path.parent == Path()
    assert path.exists()
    assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def test_an_obs_id_and_4d(planted: Made, tmp_path: Path) -> None:
    by_subject = rl.show(planted.uri, "series", tmp_path / "a.png", size=64)
    by_volume = rl.show(planted.uri, "series_T1w", tmp_path / "b.png", size=64)
    assert by_subject.read_bytes() == by_volume.read_bytes()
    rl.show(planted.uri, "unlabelled", tmp_path / "c.png", size=64)
    rl.show(planted.uri, "empty", tmp_path / "d.png", size=64)
    rl.show(planted.uri, "constant", tmp_path / "e.png", size=64)
    rl.show(planted.uri, "holes", tmp_path / "f.png", size=64)


def test_choice_of_image_and_label(write_image: Any, tmp_path: Path) -> None:
    image, label = voxels(1)
    files = {
        name: {"a": write_image(tmp_path / f"{name}.nii.gz", array, np.eye(4))}
        for name, array in (("T1w", image), ("T2w", 900 - image), ("one", label), ("two", np.minimum(label, 1)))
    }
    assert rl.ingest(tmp_path / "store", files, labels=["one", "two"], workers=1).ok
    shown = {
        (name, seg): rl.show(
            tmp_path / "store", "a", tmp_path / f"{name}{seg}.png", image=name, label=seg, size=128
        ).read_bytes()
        for name in ("T1w", "T2w")
        for seg in ("one", "two")
    }
    assert len(set(shown.values())) == 4
    assert rl.show(tmp_path / "store", "a", tmp_path / "x.png", size=128).read_bytes() == shown["T1w", "one"]


def test_what_is_not_there(planted: Made, tmp_path: Path) -> None:
    with pytest.raises(KeyNotFoundError, match=r"'s0' is not there; it has 's10', 's0"):
        rl.show(planted.uri, "s0", tmp_path / "x.png")
    with pytest.raises(KeyNotFoundError, match="no collection 'T2w'; it has 'T1w', 'seg'"):
        rl.show(planted.uri, "s00", tmp_path / "x.png", image="T2w")
    with pytest.raises(KeyNotFoundError, match=r"'unlabelled' has no label in 'seg'.*it has no labels"):
        rl.show(planted.uri, "unlabelled", tmp_path / "x.png", label="seg")
    with pytest.raises(ConfigError, match="size=10"):
        rl.show(planted.uri, "s00", tmp_path / "x.png", size=10)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose another file"):
        rl.show(planted.uri, "s00", tmp_path / "file" / "x.png", size=64)
    assert SHAPE == (20, 24, 16)


def test_several_volumes_of_a_subject_need_an_obs_id(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="needs pydicom; install it with: pip install 'radioloader[dicom]'")
    from tests.ingestion.dicom_files import series

    series(tmp_path / "dicom" / "0", 0)
    series(tmp_path / "dicom" / "1", 1)
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, workers=1).ok
    store = rl.open(tmp_path / "store")
    assert len(store.CT) == 2
    (subject,) = store.obs_subject_ids
    with pytest.raises(KeyNotFoundError, match="has 2 volumes in 'CT'; give the obs_id of one: ") as raised:
        rl.show(store.uri, subject, tmp_path / "x.png")
    for obs_id in store.CT.obs_ids:
        assert repr(obs_id) in str(raised.value)
        rl.show(store.uri, obs_id, tmp_path / "x.png", size=64)
