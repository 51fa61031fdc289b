"""The page: what is in it, read back from the file."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import radioloader as rl
from radioloader.errors import ConfigError, StoreNotFoundError
from radioloader.overview import build
from radioloader.overview.measure import PERCENTILES
from radioloader.overview.page import embed
from tests.overview.conftest import HOSTILE, Made, voxels


class Scripts(HTMLParser):
    """The texts of the script elements by id, and all text outside them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.text = ""
        self.tags: list[str] = []
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("script", "style"):
            self._inside = str(dict(attributes).get("id", tag))
            self.found[self._inside] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is None:
            self.text += f"{data} "
        else:
            self.found[self._inside] += data


def page(report: rl.CohortReport) -> tuple[Scripts, dict[str, Any]]:
    scripts = Scripts(report.path.read_text(encoding="utf-8"))
    return scripts, json.loads(scripts.found["data"])


def cells(data: dict[str, Any], label: str) -> dict[str, Any]:
    """Of T1w (or of a label alone) by subject."""
    at = [column["label"] for column in data["columns"]].index(label)
    return {row["v"][0]: row["v"][at] for row in data["rows"]}


@pytest.fixture(scope="module")
def of_clean(clean: Made, tmp_path_factory: pytest.TempPathFactory) -> rl.CohortReport:
    return rl.report(clean.uri, tmp_path_factory.mktemp("clean") / "a" / "b")


@pytest.fixture(scope="module")
def of_planted(planted: Made, tmp_path_factory: pytest.TempPathFactory) -> rl.CohortReport:
    return rl.report(planted.uri, tmp_path_factory.mktemp("planted"), title="All <kinds>")


def test_result(of_clean: rl.CohortReport) -> None:
    assert of_clean.path.name == "index.html"
    assert (of_clean.subjects, of_clean.volumes, of_clean.pictures) == (12, 24, 12)
    assert (of_clean.outliers, of_clean.unreadable, of_clean.ok) == ({}, {}, True)
    assert of_clean.bytes == of_clean.path.stat().st_size
    assert str(of_clean).startswith(f"{of_clean.path}: 12 subjects, 24 volumes, 0 outliers, 12 pictures; ")


def test_rows_hold_the_values(clean: Made, of_clean: rl.CohortReport) -> None:
    _, data = page(of_clean)
    assert len(data["rows"]) == 12
    assert cells(data, "Shape")["s03"] == [20, 24, 16]
    assert cells(data, "Spacing, mm")["s03"] == [1, 1, 2]
    assert cells(data, "site")["s03"] == "B"
    assert cells(data, "age")["s03"] == 33
    for subject, image in clean.images.items():
        assert cells(data, "Median")[subject] == np.percentile(image, PERCENTILES[3])
        assert cells(data, "Mean")[subject] == pytest.approx(image.mean(), rel=1e-5)
        ml = np.count_nonzero(clean.labels[subject] == 2) * 2 / 1000
        assert cells(data, "seg 2 (core), ml")[subject] == pytest.approx(ml)
    hidden = {column["label"] for column in data["columns"] if column["hidden"]}
    assert {"Collection", "Axes", "dtype", "Volume"} <= hidden
    assert [row["f"] for row in data["rows"]] == [[]] * 12


def test_sections_say_the_same(clean: Made, of_clean: rl.CohortReport) -> None:
    scripts, _ = page(of_clean)
    text = re.sub(r"\s+", " ", scripts.text)
    assert "20x24x16" in text
    assert "seg: 12 volumes, 0 empty; background " in text
    foreground = sum(np.count_nonzero(label) for label in clean.labels.values())
    core = sum(np.count_nonzero(label == 2) for label in clean.labels.values())
    assert f"{core / foreground:.1%}" in text
    assert "1+2 (all)" in text
    assert "None: by these rules no volume differs" in text
    medians = [np.percentile(image, 50) for image in clean.images.values()]
    assert f"50 {np.median(medians):.4g} {min(medians):.4g} {max(medians):.4g}" in text


def test_pictures_are_those_of_their_rows(clean: Made, of_clean: rl.CohortReport) -> None:
    scripts, data = page(of_clean)
    pictures = json.loads(scripts.found["pictures-0"])
    assert [row["p"] for row in data["rows"]] == list(range(12)) == list(range(len(pictures)))
    for row in data["rows"]:
        picture = Image.open(io.BytesIO(base64.b64decode(pictures[row["p"]])))
        assert f"image/{picture.format.lower()}" == data["mime"]  # type: ignore[union-attr]
        # 20 x 24 x 32 mm at 400 pixels for 32 mm: axial 20 x 24, coronal 20 x 32, sagittal 24 x 32.
        assert picture.size == (250 + 250 + 300 + 2 * 16, 400)
        low, high = np.percentile(clean.images[row["v"][0]], [1, 99])
        assert row["w"] == pytest.approx([low, high], rel=1e-5)
        assert row["l"] == "seg"


def test_everything_odd_is_told(of_planted: rl.CohortReport) -> None:
    scripts, data = page(of_planted)
    flags = {row["v"][0]: row["f"] for row in data["rows"]}
    assert flags["s01"] == []
    assert flags["turned"] == ["orientation LAS, 23 of 24 are RAS"]  # its label is turned as well
    assert flags["twin"] == ["same voxels as T1w: s00_T1w"]  # of its label the section Duplicates tells
    assert flags["empty"] == ["seg: empty label, 22 of 23 are not"]
    assert "seg: class 2 is missing, 21 of 23 have it" in flags["lacking"]
    assert cells(data, "Shape")["series"] == [20, 24, 16, 2]
    assert cells(data, "age")["s03"] is None
    assert cells(data, "seg 1, ml")["unlabelled"] is None
    assert "Failed: 1" in scripts.text
    assert "broken" in scripts.text
    assert of_planted.outliers["T1w", "holes_T1w"][0] == "3 voxels NaN or infinite"
    assert of_planted.pictures == 24


def test_hostile_texts_stay_texts(of_planted: rl.CohortReport) -> None:
    scripts, data = page(of_planted)
    assert HOSTILE in cells(data, "Subject")
    assert cells(data, "note")["s04"] == "<b>bold</b>"
    assert HOSTILE in scripts.text  # among the subjects without a value
    assert scripts.tags.count("script") == 3
    assert scripts.tags.count("b") == 9  # the figures of the summary
    assert "All <kinds>" in scripts.text
    raw = of_planted.path.read_text(encoding="utf-8")
    assert raw.count("</script>") == 3
    assert "Content-Security-Policy" in raw
    assert "default-src 'none'" in raw
    assert "http" not in raw.replace("http-equiv", "")


@pytest.mark.parametrize("value", [HOSTILE, "\ud800", "<!--", "]]>", {"a": [None, 1.5, "\u2029"]}])
def test_embedded_json_ends_no_element(value: object) -> None:
    text = str(embed(value))
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == (value if value != "\ud800" else "?")


def test_a_report_without_pictures(clean: Made, tmp_path: Path) -> None:
    report = rl.report(clean.uri, tmp_path, pictures=False)
    scripts, data = page(report)
    assert report.pictures == 0
    assert data["pictures"] is False
    assert "pictures-0" not in scripts.found
    assert "without pictures" in scripts.text
    assert cells(data, "Median")["s00"] == np.median(clean.images["s00"])


def test_of_many_the_odd_ones_and_a_sample_are_looked_at(planted: Made, tmp_path: Path) -> None:
    report = rl.report(planted.uri, tmp_path, most=15, workers=2)
    scripts, data = page(report)
    assert report.pictures == 15
    assert "15 of 24 rows have one" in scripts.text
    assert sum(row["p"] is not None for row in data["rows"]) == 15
    assert build._choose([None] * 6, [[], ["odd"], [], [], [], ["odd"]], 4) == [0, 1, 4, 5]  # type: ignore[list-item]
    assert build._choose([None] * 4, [["odd"]] * 4, 2) == [0, 3]  # type: ignore[list-item]
    assert rl.report(planted.uri, tmp_path, most=0).pictures == 0


def test_the_page_keeps_to_its_size(clean: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_PAGE_BYTES", 60_000)
    monkeypatch.setattr(build, "_LEAST_PICTURES", 30_000)
    report = rl.report(clean.uri, tmp_path)
    scripts, _ = page(report)
    assert report.pictures == 12
    assert len(scripts.found["pictures-0"]) < 60_000


def test_a_volume_that_cannot_be_read_is_told(clean: Made, tmp_path: Path) -> None:
    shutil.copytree(clean.uri, tmp_path / "store")
    store = rl.open(tmp_path / "store")
    shutil.rmtree(store.T1w.loc["s02"].uri)
    shutil.rmtree(store.seg.loc["s05"].uri)
    report = rl.report(tmp_path / "store", tmp_path / "out")
    assert set(report.unreadable) == {("T1w", "s02_T1w"), ("seg", "s05_seg")}
    assert not report.ok
    scripts, data = page(report)
    rows = {row["v"][0]: row for row in data["rows"]}
    assert rows["s02"]["p"] is None
    assert rows["s02"]["f"][0].startswith("cannot be read: ")
    assert rows["s05"]["p"] is not None
    assert rows["s05"]["f"][0].startswith("seg: cannot be read: ")
    assert "2 cannot be read" in scripts.text


def test_other_files_are_left_alone(clean: Made, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / "index.html").write_text("<title>mine too</title>")
    with pytest.raises(
        ConfigError, match=r"index.html' is there and is no report of radioloader.*choose another folder \(--out\)"
    ):
        rl.report(clean.uri, tmp_path, pictures=False)
    assert (tmp_path / "index.html").read_text() == "<title>mine too</title>"
    (tmp_path / "index.html").unlink()
    rl.report(clean.uri, tmp_path, title="first", pictures=False)
    rl.report(clean.uri, tmp_path, title="second", pictures=False)
    assert "<title>second</title>" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "mine.txt"]
    assert (tmp_path / "index.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_arguments(clean: Made, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        rl.report(tmp_path / "none", tmp_path)
    with pytest.raises(ConfigError, match="workers=0"):
        rl.report(clean.uri, tmp_path, workers=0)
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"uri=5 is a int; it must be a path, .* or a selection of its subjects"):
        rl.report(5, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"is a VolumeCollection; it must be a path"):
        rl.report(rl.open(clean.uri).T1w, tmp_path)  # type: ignore[arg-type]


def test_an_opened_store_and_a_selection(planted: Made, tmp_path: Path) -> None:
    store = rl.open(planted.uri)
    whole = rl.report(store, tmp_path / "whole", pictures=False)
    assert (whole.subjects, whole.volumes) == (len(store), 47)
    assert page(whole)[1] == page(rl.report(planted.uri, tmp_path / "uri", pictures=False))[1]
    chosen = ["twin", "s03", "s04", "lacking"]
    report = rl.report(store.loc[chosen], tmp_path / "some")
    scripts, data = page(report)
    assert (report.subjects, report.volumes, report.pictures) == (4, 8, 4)
    assert [row["v"][0] for row in data["rows"]] == sorted(chosen)
    for subject in chosen:
        assert cells(data, "Mean")[subject] == pytest.approx(planted.images[subject].mean(), rel=1e-5)
        ml = np.count_nonzero(planted.labels[subject] == 1) * 2 / 1000
        assert cells(data, "seg 1, ml")[subject] == pytest.approx(ml)
    assert cells(data, "age") == {"lacking": 40, "s03": None, "s04": 40, "twin": 40}
    assert report.outliers == {}  # four are not compared, and the twin's other is not among them
    assert f"4 of its {len(store)} subjects" in scripts.text
    assert "Failed: " not in scripts.text
    assert "None was recorded of these subjects." in scripts.text


def test_files_that_are_no_volumes_are_told_apart(make_store: Any, tmp_path: Path) -> None:
    from radioloader.storage.problems import LEFT_OUT, NO_VOLUME, Problem, change_problems

    made = make_store({"a": (*voxels(1), np.eye(4))})
    store = rl.open(made.uri).snapshot.store
    problems = [Problem(NO_VOLUME, "", f"/data: *.{end}", "no volumes, by their names") for end in ("json", "tsv")]
    problems.append(Problem(LEFT_OUT, "", "/data/x.nii", "unclear"))
    with store.write() as transaction:
        change_problems(store, transaction, problems, [])
        transaction.commit("problems", {})
    text = re.sub(r"\s+", " ", page(rl.report(made.uri, tmp_path, pictures=False))[0].text)
    assert "Left out 1 files" in text
    assert "Left out: 1" in text
    assert "Files that are no volumes: 2 /data: *.json: no volumes, by their names /data: *.tsv: " in text


def test_legends_name_the_classes(clean: Made, of_clean: rl.CohortReport) -> None:
    _, data = page(of_clean)
    assert data["legends"] == {"seg": {"1": ["1 (cortex)", "#E69F00"], "2": ["2 (core)", "#56B4E9"]}}
    assert [(row["c"], row["m"]) for row in data["rows"]] == [([1, 2], 0)] * 12


def test_an_empty_store(tmp_path: Path) -> None:
    from radioloader.storage.store import Store

    Store.open_or_create(tmp_path / "store")
    report = rl.report(tmp_path / "store", tmp_path / "out")
    scripts, data = page(report)
    assert (report.subjects, data["rows"]) == (0, [])
    assert "The store has no collections yet." in scripts.text


def test_labels_without_an_image_have_rows_of_their_own(make_store: Any, tmp_path: Path) -> None:
    label = np.zeros((6, 7, 8), np.uint8)
    label[2:4, 2:4, 2:4] = 5
    made = make_store({"a": (None, label, np.eye(4))})
    report = rl.report(made.uri, tmp_path)
    _, data = page(report)
    (row,) = data["rows"]
    assert (row["p"], row["l"], cells(data, "seg 5, ml")["a"]) == (0, "seg", 0.008)


def test_a_label_on_another_grid_is_not_the_images(make_store: Any, write_image: Any, tmp_path: Path) -> None:
    image, label = np.ones((6, 7, 8), np.uint8), np.ones((3, 4, 5), np.uint8)
    made = make_store({"a": (image, None, np.eye(4))})
    path = write_image(tmp_path / "seg.nii.gz", label, np.eye(4))
    assert rl.ingest(made.uri, {"seg": {"b": path}}, labels=["seg"], workers=1, allow_missing=True).ok
    _, data = page(rl.report(made.uri, tmp_path / "out"))
    assert [row["v"][1] for row in data["rows"]] == ["T1w", "seg"]


def test_where_it_cannot_be_written_is_told_before_voxels_are_read(
    clean: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "survey", None)  # nothing is read
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "index.html").mkdir(parents=True)
    (tmp_path / "link").symlink_to(clean.uri)
    for out, message in (
        (tmp_path / "file", "choose another folder"),
        (tmp_path / "folder", "is a folder; choose another folder"),
        (Path(clean.uri), "is within the store"),
        (Path(clean.uri) / "report", "is within the store"),
        (tmp_path / "link" / "report", "is within the store"),
        ("s3://bucket/report", "is written to a local folder"),
        ("a\0b", "cannot be written"),
    ):
        with pytest.raises(ConfigError, match=message):
            rl.report(clean.uri, out)
    assert not (Path(clean.uri) / "report").exists()


def test_long_texts_leave_room(clean: Made, make_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letter = "\u00e4"  # two bytes
    meta = "subject_id\tnote\n" + "".join(f"{s}\t{letter * 3000}\n" for s in ("a", "b"))
    made = make_store({s: (*voxels(n), np.eye(4)) for n, s in enumerate(("a", "b"))}, meta)
    scripts, data = page(rl.report(made.uri, tmp_path / "1"))
    assert cells(data, "note") == dict.fromkeys("ab", "\u00e4" * 199 + "\u2026")
    assert "cut to 200 characters" in scripts.text
    monkeypatch.setattr(build, "_PAGE_BYTES", 1)
    scripts, data = page(rl.report(made.uri, tmp_path / "2"))
    assert cells(data, "note")["a"] == letter * 11 + "\u2026"
    assert "cut to 12 characters" in scripts.text


def test_each_label_collection_says_what_is_odd(clean: Made, write_image: Any, tmp_path: Path) -> None:
    shutil.copytree(clean.uri, tmp_path / "store")
    for name in ("one", "two"):
        files = {
            subject: write_image(
                tmp_path / name / f"{subject}.nii.gz", label * (subject != "s01"), np.diag([1.0, 1.0, 2.0, 1.0])
            )
            for subject, label in clean.labels.items()
        }
        assert rl.ingest(tmp_path / "store", {name: files}, labels=[name], workers=1).ok
    _, data = page(rl.report(tmp_path / "store", tmp_path / "out", pictures=False))
    flags = {row["v"][0]: row["f"] for row in data["rows"]}
    assert flags["s01"] == ["one: empty label, 11 of 12 are not", "two: empty label, 11 of 12 are not"]


def test_volumes_of_4d_labels_are_those_of_a_time_point(make_store: Any, tmp_path: Path) -> None:
    label = np.zeros((5, 4, 10, 4), np.uint8)
    label[:2, :2, :5, :] = 1  # 20 of 200 voxels
    label[4, 0, 0, :2] = 2  # in half of the time points
    made = make_store({"a": (None, label, np.eye(4))})
    scripts, data = page(rl.report(made.uri, tmp_path))
    assert cells(data, "seg 1, ml")["a"] == 0.02
    assert cells(data, "seg 2, ml")["a"] == 0.0005
    text = re.sub(r"\s+", " ", scripts.text)
    assert "background 89.75% of the voxels" in text
    assert "1 1 0.02 0.02 0.02 97.6% 10.000%" in text


def test_the_largest_numbers_are_told(make_store: Any, tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(6, 7, 8))
    volumes = {f"s{n}": (image + n / 100, None, np.eye(4)) for n in range(6)}
    volumes["large"] = (image * 1e150, None, np.eye(4))
    volumes["largest"] = (image * 1e307, None, np.eye(4))
    with np.errstate(over="ignore", invalid="ignore"):  # of the statistics at ingest
        made = make_store(volumes)
    assert made.report.ok, [item.reason for item in made.report.items]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, data = page(rl.report(made.uri, tmp_path))
    (row,) = [row for row in data["rows"] if row["v"][0] == "large"]
    assert re.search(r"robust z -?\d\.\d+e\+1[45]\d\)", row["f"][0])
