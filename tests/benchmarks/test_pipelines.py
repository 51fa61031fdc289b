"""The study of published pipelines: its bookkeeping with contestants that load nothing, the real ones on small files, and its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import benchmarks.studies.pipelines as study
from benchmarks import pipelines
from benchmarks.__main__ import main
from benchmarks.cohort import make_cohort
from benchmarks.model import Cohort, Job, Record, outcome
from benchmarks.peers import load
from benchmarks.pipelines import PIPELINES, Contestant, Pipeline
from benchmarks.pipelines.files import brain_files, brats_files, make_files
from benchmarks.pipelines.published import brats_roi, spleen_patch
from benchmarks.pipelines.report import write_pipelines
from benchmarks.report import write
from benchmarks.studies import STUDIES, run
from benchmarks.suite import Settings

HERE = "tests.benchmarks.contestants"
SHAPE = (56, 52, 50)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """A small subject, and a head as small."""
    made, _ = make_cohort(tmp_path_factory.mktemp("bench"), 1, SHAPE, source=None)
    make_files(made)
    return made


def test_what_a_study_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contestants = (
        Contestant("ours", f"{HERE}:Counts", prepares=True, ours=True),
        Contestant("fills", f"{HERE}:Fills", ((0, 0),)),
        Contestant("starves", f"{HERE}:Starves", ((0, 0),), prepares=True),
        Contestant("tires", f"{HERE}:Tires"),
    )
    monkeypatch.setitem(PIPELINES, "spleen", Pipeline("Numbers", "https://numbers", "a number", contestants))
    for name in set(PIPELINES) - {"spleen"}:
        monkeypatch.delitem(PIPELINES, name)
    monkeypatch.setattr(study, "make_files", lambda *_, **__: None)
    cohort = Cohort(tmp_path / "cohort", 9, (8, 8, 8))
    cohort.folder.mkdir()
    found = list(run("pipelines", cohort, full=False))
    ours, ours_too, fills, starves, tires, tires_too = found
    assert [record["name"] for record in found] == [
        *("ours, no workers", "ours, 2 workers", "fills, no workers", "starves, no workers"),
        *("tires, no workers", "tires, 2 workers"),
    ]
    assert ours["rounds"].keys() >= {"preparation", "first_batch", "rate", "cpu_ms"}
    assert ours_too["rounds"].keys() >= {"rate"}
    assert not ours_too["rounds"].keys() & {"preparation", "first_batch"}  # of the process, told once
    for record in (ours, ours_too, fills, tires):
        assert record["lowest"] <= record["value"] <= record["highest"]
        assert record["unit"] == "batches/s"
        assert "numpy" in record["versions"]
    assert [record["filled"] for record in (ours, fills)] == [False, True]
    assert len(fills["rounds"]["preparation"]) == 1
    assert starves["error"] == "its preparation failed: RuntimeError: out of disk"
    assert tires_too["error"] == "RuntimeError: gave no batch"
    assert not list(cohort.folder.iterdir())  # what was prepared is gone


@pytest.mark.filterwarnings("ignore:The maximum displacement is larger")  # in mm, and the heads are small
@pytest.mark.parametrize(
    ("pipeline", "contestant"),
    [
        ("spleen", "radioloader.monai.Dataset"),
        ("spleen", "CacheDataset"),
        ("brats", "PersistentDataset"),
        ("brain", "radioloader.torchio.Queue"),
        ("brain", "radioloader.torchio.Queue, augmentation as patch_transform"),
        ("brain", "tio.Queue"),
        ("subjects", "tio.SubjectsDataset"),
    ],
)
def test_contestants(pipeline: str, contestant: str, cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """They give batches of the shape that their pipeline says."""
    pytest.importorskip("monai" if pipeline in ("spleen", "brats") else "torchio")
    monkeypatch.setattr("radioloader.adapters.prepare.available_cores", lambda: 1)
    if pipeline in ("brain", "subjects"):
        monkeypatch.setattr("benchmarks.pipelines.torchio.MAX_LENGTH", 16)
        monkeypatch.setattr("benchmarks.pipelines.torchio.FEW", 1)
    [one] = [each for each in PIPELINES[pipeline].contestants if each.title == contestant]
    peer: Any = load(one.peer)(cohort)
    job = Job(one.peer, "pipeline", threads=one.ways[0][1], detail=f"{pipeline}:prepare")
    if one.prepares:
        assert peer.pipeline(job, {})["value"] > 0
        assert any(peer.kept(pipeline).iterdir())
    batch = next(iter(peer.loader(pipeline, peer.dataset(pipeline), job).batches))
    if pipeline in ("spleen", "brats"):
        shapes = {"spleen": ((8, 1, 8, 8, 8),) * 2, "brats": ((1, 4, 52, 48, 46), (1, 3, 52, 48, 46))}[pipeline]
        assert (batch["image"].shape, batch["label"].shape) == shapes
    else:
        shape = (16, 1, 24, 24, 24) if pipeline == "brain" else (1, 1, 48, 60, 48)
        assert batch["mri"]["data"].shape == batch["brain"]["data"].shape == shape


@pytest.mark.parametrize("pipeline", ["spleen", "brats"])
def test_samples_leave_the_cache_as_it_is(pipeline: str, cohort: Cohort) -> None:
    pytest.importorskip("monai")
    peer: Any = load("benchmarks.pipelines.monai:Cache")(cohort)
    dataset = peer.dataset(pipeline)
    before = dataset._cache[0]["image"].clone()
    for _ in range(8):  # where flips make no copy
        dataset[0]
    assert bool((dataset._cache[0]["image"] == before).all())


def test_files(cohort: Cohort) -> None:
    [first] = brats_files(cohort)
    image, label = (np.asarray(nib.load(first[name]).dataobj) for name in ("image", "label"))
    assert (image.shape, image.dtype, label.shape, label.dtype) == ((*SHAPE, 4), np.int16, SHAPE, np.uint8)
    assert set(np.unique(label)) == {0, 1, 2, 3}
    assert 0.1 < (image[..., 0] > 0).mean() < 0.9  # there is nothing around the head
    files = brain_files(cohort)
    mri, brain = (np.asarray(nib.load(files[name][0]).dataobj) for name in ("mri", "brain"))
    np.testing.assert_array_equal(mri[brain > 0], image[..., 0][brain > 0])
    np.testing.assert_array_equal(brain > 0, image[..., 0] > 0)
    assert (mri[brain == 0] > 0).mean() > 0.5
    before = files["mri"][0].stat().st_mtime_ns
    make_files(cohort)
    assert files["mri"][0].stat().st_mtime_ns == before


def test_published_sizes() -> None:
    assert spleen_patch((512, 512, 280)) == (96, 96, 96)
    assert spleen_patch(SHAPE) == (8, 8, 8)
    assert brats_roi((240, 240, 155)) == (224, 224, 144)


def test_only_some_studies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = Settings(full=True, root=tmp_path, out=tmp_path, studies=("pipelines",))
    [block] = chosen.blocks
    assert [(job.workload, job.detail) for job in block.jobs] == [("study", "pipelines")]
    assert study.__name__.rpartition(".")[2] in STUDIES
    with pytest.raises(SystemExit):
        main(["full", "--studies", "nothing"])
    assert "there is no study 'nothing'" in capsys.readouterr().err


def test_table_and_picture(tmp_path: Path) -> None:
    job = Job("radioloader-uniform", "study", detail="pipelines")

    def record(name: str, rates: list[float], ours: bool = False, **more: Any) -> Record:
        rounds = {"rate": rates, "cpu_ms": [250.0], **more.pop("rounds", {})}
        fields = {"value": sorted(rates)[len(rates) // 2], "unit": "batches/s", "rounds": rounds, "filled": False}
        names = {"what": "spleen", "name": f"{name}, no workers", "contestant": name, "versions": {"numpy": "2"}}
        return outcome(job, **{**names, **fields, "ours": ours, "same": True, "subjects": 4, **more})

    records = [
        record("a", [8, 10, 12], True, rounds={"preparation": [20.0], "first_batch": [1.5], "peak_pss_mib": [300]}),
        record("another thing", [40], True, same=False),
        record("b", [4, 2, 5], filled=True, rounds={"preparation": [9.0, 8.0, 7.0], "first_batch": [9.5]}),
        record("c", [0.1]),
        outcome(
            job,
            what="spleen",
            name="d, 2 workers",
            contestant="d",
            ours=False,
            same=True,
            subjects=4,
            error="OSError: no",
        ),
        outcome(Job("radioloader-uniform", "study", detail="threads"), error="OSError: gone"),
    ]
    facts: dict[str, Any] = {
        "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 8.0, "system": "Linux", "python": "3.12"},
        "cohort": {"subjects": 4, "shape": [5, 6, 7], "source": "a.nii.gz"},
        "commit": "abc",
        "date": "2026-01-01",
        "load_before": 0.1,
    }
    write(tmp_path, facts, records)
    text = (tmp_path / "pipelines.md").read_text()
    assert "a CPU, 2 cores" in text
    assert "4 subjects in each pipeline" in text
    assert f"## {pipelines.PIPELINES['spleen'].title}" in text
    for line in (
        "| a, no workers | 10.0 | 8.00-12.0 | 1.00 | 0.25 | 20.0 | 1.50 | 300 |",
        "| another thing, no workers | 40.0 | once |  | 0.25 |  |  |  |",
        "| b, no workers | 4.00 | 2.00-5.00 | 2.50 (2.00-5.00) | 0.25 | 8.00, in each process | 9.50 |  |",
        "| c, no workers | 0.10 | once | 100 | 0.25 |  |  |  |",
        "- d, 2 workers: failed: OSError: no",
        "Versions: numpy 2",
    ):
        assert line in text.splitlines()
    content = json.loads((tmp_path / "pipelines.json").read_text())
    assert content["run"] == facts
    assert [r["name"] for r in content["pipelines"]["spleen"]][-1] == "d, 2 workers"
    assert (tmp_path / "pipelines.png").stat().st_size > 1000
    write_pipelines(tmp_path / "none", facts, "", records[-1:])
    assert not (tmp_path / "none").exists()
