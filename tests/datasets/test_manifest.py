"""A split with a manifest: made of these data, refused on others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import ConfigError, KeyNotFoundError

SPLIT = rl.Split(["sub-01", "sub-03"], ["sub-02"], ["sub-04"])


def manifest(uri: str) -> rl.SplitManifest:
    return rl.SplitManifest.of(SPLIT, uri, collections=["T1w", "seg"], recipe={"seed": 3, "split": [0.5, 0.25, 0.25]})


def test_a_manifest_says_what_the_split_is_made_of(store_uri: str, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    made = manifest(store_uri)
    made.save(path)
    found = rl.SplitManifest.load(path)
    assert found == made
    assert found.split == SPLIT == rl.Split.load(path)
    assert (found.store, found.store_version) == (store_uri, rl.open(store_uri).version)
    assert found.recipe == {"seed": 3, "split": [0.5, 0.25, 0.25]}
    store = rl.open(store_uri)
    for name in ("T1w", "seg"):
        noted = store.snapshot.detail(name, "content_hash")
        index = store.snapshot.index(name)
        assert found.content_hashes[name] == {s: str(noted[index.of_subject(s)[0]]) for s in store.obs_subject_ids}
        assert len(set(found.content_hashes["T1w"].values())) == 4
    found.check(store_uri)
    found.check(store)
    assert rl.SplitManifest.is_in(path)


def test_the_same_data_elsewhere_pass_and_others_are_refused(
    store_uri: str, make_cohort: Callable[..., Path], write_image: Callable[..., Path], tmp_path: Path
) -> None:
    made = manifest(store_uri)

    def ingested(name: str, subjects: int, change: str | None = None) -> str:
        root = make_cohort(tmp_path / name, subjects=subjects)  # the same images as those of store_uri
        if change is not None:
            write_image(root / "images" / f"{change}_T1w.nii.gz", np.zeros((20, 24, 18), np.int16))
            (root / "labels" / f"{change}_seg.nii.gz").unlink()
        files = {"T1w": root / "images", "seg": root / "labels"}
        rl.ingest(root / "store", files, obs_meta=root / "participants.tsv", workers=1, allow_missing=True)
        return str(root / "store")

    made.check(ingested("again", 5))  # other tiles, another version, one subject more: the same contents
    with pytest.raises(ConfigError) as caught:
        made.check(ingested("fewer", 3))
    assert "1 test subjects are not there, such as ['sub-04']" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        made.check(ingested("changed", 4, change="sub-01"))
    assert "1 volumes of 'T1w' have other contents, such as those of ['sub-01']" in str(caught.value)
    assert "1 subjects have no volume in 'seg', such as ['sub-01']" in str(caught.value)
    with pytest.raises(ConfigError, match="2 train subjects are not there"):
        made.check(rl.open(store_uri).loc[["sub-02", "sub-04"]])


def test_a_split_that_does_not_fit_makes_no_manifest(store_uri: str) -> None:
    with pytest.raises(KeyNotFoundError, match=r"1 val subjects are not there, such as \['sub-77'\]"):
        rl.SplitManifest.of(rl.Split(["sub-01"], ["sub-77"], []), store_uri, collections=["T1w"])
    with pytest.raises(KeyNotFoundError, match="has no collection 'CT'"):
        rl.SplitManifest.of(SPLIT, store_uri, collections=["CT"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": "x"}, "is no manifest of a split: its 'format' is 'x'"),
        ({"format_version": 2}, "has format version 2, this radioloader reads up to 1"),
        ({"content_hashes": None}, "is damaged"),
        ({"split": {"train": ["a"], "val": ["a"]}}, "1 subjects more than once"),
    ],
)
def test_files_that_are_no_manifest(store_uri: str, tmp_path: Path, change: dict[str, Any], text: str) -> None:
    path = tmp_path / "split.json"
    manifest(store_uri).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=text):
        rl.SplitManifest.load(path)


def test_a_recipe_is_plain(store_uri: str, tmp_path: Path) -> None:
    odd = rl.SplitManifest.of(SPLIT, store_uri, collections=["T1w"], recipe={"what": object()})
    with pytest.raises(ConfigError, match="the recipe holds what JSON has not"):
        odd.save(tmp_path / "split.json")
