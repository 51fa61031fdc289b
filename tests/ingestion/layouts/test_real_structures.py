"""Structures of published datasets, and what people put beside them: the right thing is taken, or the user is asked. Nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.ingestion.layouts.recognise import recognise
from tests.ingestion.dicom_files import series
from tests.ingestion.layouts import trees

ASKED = {
    "LiTS": {"": ["volume-0.nii", "volume-1.nii", "segmentation-0.nii", "segmentation-1.nii"]},
    "labels beside": {"": ["case0.nii.gz", "case0_seg.nii.gz", "case1.nii.gz", "case1_seg.nii.gz"]},
    "labels beside, without a word": {"": ["case0.nii.gz", "case0_x.nii.gz", "case1.nii.gz"]},
    "IXI": {"": ["IXI002-Guys-0828-T1.nii.gz", "IXI002-Guys-0828-T2.nii.gz", "IXI012-HH-1211-T1.nii.gz"]},
    "channels": {"": ["a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"]},
    "visits": {"P003/20210303": ["t1.nii.gz"], "P004/20210303": ["t1.nii.gz"]},
    "visits by name": {"P1/baseline": ["t1.nii.gz", "seg.nii.gz"], "P2/baseline": ["t1.nii.gz", "seg.nii.gz"]},
    "splits": {"train/case0": ["ct.nii.gz", "seg.nii.gz"], "test/case0": ["ct.nii.gz", "seg.nii.gz"]},
    "groups": {
        "covid": ["001.nii.gz", "002.nii.gz", "007.nii.gz"],
        "normal": ["007.nii.gz", "008.nii.gz", "009.nii.gz"],
    },
    "groups with masks": {"AD": ["001.nii.gz", "001_mask.nii.gz"], "CN": ["001.nii.gz", "001_mask.nii.gz"]},
    "ACDC": {
        "patient001": ["patient001_frame01.nii.gz", "patient001_frame01_gt.nii.gz", "patient001_frame12.nii.gz"],
        "patient002": ["patient002_frame02.nii.gz", "patient002_frame02_gt.nii.gz", "patient002_frame09.nii.gz"],
    },
    "BTCV": {"img": ["img0001.nii.gz", "img0002.nii.gz"], "label": ["label0001.nii.gz", "label0002.nii.gz"]},
    "TotalSegmentator": {f"s{i}/segmentations": ["liver.nii.gz", "spleen.nii.gz"] for i in (1, 2)}
    | {f"s{i}": ["ct.nii.gz"] for i in (1, 2)},
}


@pytest.mark.parametrize("kind", ASKED)
def test_what_is_unclear_is_asked(tmp_path: Path, kind: str) -> None:
    root = trees.plain(tmp_path / "data", ASKED[kind])
    with pytest.raises(ConfigError) as caught:
        recognise(root)
    assert "radioloader ingest STORE" in str(caught.value) or "--layout" in str(caught.value)


def test_examples_are_made_of_what_is_there(tmp_path: Path) -> None:
    root = trees.plain(tmp_path / "data", ASKED["TotalSegmentator"])
    with pytest.raises(ConfigError) as caught:
        recognise(root)
    assert f"--image ct='{root}/**/ct.nii.gz'" in str(caught.value)


TAKEN = {
    "KiTS19": (
        {f"case_0000{i}": ["imaging.nii.gz", "segmentation.nii.gz"] for i in (0, 1)},
        (["imaging"], ["segmentation"], ["case_00000", "case_00001"]),
    ),
    "BraTS23": (
        {
            f"BraTS-GLI-0000{i}-000": [f"BraTS-GLI-0000{i}-000-{k}.nii.gz" for k in ("t1c", "t2f", "seg")]
            for i in (0, 1)
        },
        (["t1c", "t2f"], ["seg"], ["BraTS-GLI-00000-000", "BraTS-GLI-00001-000"]),
    ),
    "images and segmentations": (
        {"images": ["1.nii.gz", "2.nii.gz"], "segmentations": ["1.nii.gz", "2.nii.gz"]},
        (["images"], ["segmentations"], ["1", "2"]),
    ),
    "one kind": ({"": ["a_T1w.nii.gz", "b_T1w.nii.gz"]}, (["data"], [], ["a_T1w", "b_T1w"])),
    "numbers": ({"": ["case_1.nii.gz", "case_2.nii.gz"]}, (["data"], [], ["case_1", "case_2"])),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_what_is_clear_is_taken(tmp_path: Path, kind: str) -> None:
    names, expected = TAKEN[kind]
    plan = recognise(trees.plain(tmp_path / "data", names))
    assert (list(plan.images), list(plan.labels), plan.subjects) == expected


def test_the_name_of_the_root_makes_no_labels_of_images(tmp_path: Path) -> None:
    assert list(recognise(trees.plain(tmp_path / "seg_study", {"": ["a.nii.gz"]})).images) == ["seg_study"]
    assert list(recognise(trees.plain(tmp_path / "labels", {"": ["a.nii.gz"]})).labels) == ["labels"]


def test_two_bids_datasets_are_not_one(tmp_path: Path) -> None:
    trees.bids(tmp_path / "all" / "ds1")
    trees.bids(tmp_path / "all" / "ds2")
    with pytest.raises(ConfigError, match="there are some in it; give one of them"):
        recognise(tmp_path / "all")


def test_derivatives_without_a_pipeline_and_off_the_grid_do_not_touch_the_raw_data(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    anat = root / "derivatives" / "sub-02" / "anat"
    trees.write(anat / "sub-02_desc-preproc_T1w.nii.gz", trees.voxels(30))
    trees.write(anat / "sub-02_space-MNI152_mask.nii.gz", trees.classes(31))
    good = trees.write(anat / "sub-02_desc-good_mask.nii.gz", trees.classes(32))
    off = trees.write(anat / "sub-02_desc-off_mask.nii.gz", trees.classes(33), np.diag([1.0, 1.5, 2.0, 1.0]))
    broken = anat / "sub-02_desc-broken_mask.nii.gz"
    broken.write_bytes(b"no gzip")
    plan = recognise(root)
    assert {name: list(files) for name, files in plan.labels.items()} == {  # type: ignore[arg-type]
        "desc-good_mask": ["sub-02"],
        "dseg": ["sub-01_ses-a"],
    }
    assert plan.labels["desc-good_mask"] == {"sub-02": [str(good)]}
    reasons = dict(plan.left_out)
    assert reasons[str(off)] == "it lies on the grid of no image of its subject"
    assert reasons[str(broken)].startswith("it cannot be read: ")
    assert rl.ingest_layout(tmp_path / "store", root, workers=1).ok


def test_dicom_beside_nifti_is_asked(tmp_path: Path) -> None:
    series(tmp_path / "x", 0)
    trees.write(tmp_path / "x" / "mask.nii.gz", trees.classes(1))
    with pytest.raises(ConfigError, match="it holds DICOM files and 1 NIfTI files"):
        recognise(tmp_path / "x")
    series(tmp_path / "y" / "dicom", 0)
    trees.write(tmp_path / "y" / "mask.nii.gz", trees.classes(1))
    with pytest.raises(ConfigError, match=r"give one of them:\n  .*/y/dicom: dicom"):
        recognise(tmp_path / "y")


def test_names_of_other_files_and_folders_are_not_kept(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    for name in ("DOE^JOHN_19600101", "DOE.19600101", "notes.doe"):
        path = root / "sourcedata" / "DOE_JOHN" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert "DOE" not in f"{report} {rl.open(tmp_path / 'store').problems()}".upper().replace("DOES", "")
    assert any("3 others" in note for note in report.notes)


def test_a_store_within_the_folder_is_no_part_of_it(tmp_path: Path) -> None:
    root = trees.nnunet(tmp_path / "x")
    rl.ingest_layout(root / "store", root, workers=1)
    plan = recognise(root)
    assert plan.strangers == {}
    assert len(rl.ingest_layout(root / "store", root, workers=1).skipped) == 4


def test_names_that_are_not_utf8_lose_no_report(tmp_path: Path) -> None:
    root = trees.nnunet(tmp_path / "x")
    (root / "imagesTr" / b"caf\xe9.nii.gz".decode("utf-8", "surrogateescape")).write_bytes(b"x")
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert report.ok
    assert [p.source for p in rl.open(tmp_path / "store").problems()] == [f"{root}/imagesTr/caf\\udce9.nii.gz"]


def test_equal_names_of_two_datasets_are_not_taken_for_one_patient(tmp_path: Path) -> None:
    one = trees.plain(tmp_path / "one", {"T1w": ["c0.nii.gz", "c1.nii.gz"]})
    two = tmp_path / "two"
    for i in range(2):
        trees.write(two / "T1w" / f"c{i}.nii.gz", trees.voxels(70 + i))
    rl.ingest_layout(tmp_path / "store", one, workers=1)
    before = rl.open(tmp_path / "store")["T1w"].loc["c0"].to_numpy()
    report = rl.ingest_layout(tmp_path / "store", two, workers=1)
    assert [item.subject for item in report.failed] == ["c0", "c1"]
    assert (
        f"from {one}/T1w/c0.nii.gz, which still exists, and {two}/T1w/c0.nii.gz is another file"
        in report.failed[0].reason
    )
    np.testing.assert_array_equal(rl.open(tmp_path / "store")["T1w"].loc["c0"].to_numpy(), before)
    # Who names both means it; and a folder that was moved is the same one.
    named = {"T1w": {f"c{i}": two / "T1w" / f"c{i}.nii.gz" for i in range(2)}}
    assert len(rl.ingest(tmp_path / "store", named, workers=1).ingested) == 2
    two.rename(tmp_path / "moved")
    assert len(rl.ingest_layout(tmp_path / "store", tmp_path / "moved", workers=1).skipped) == 2


def test_ids_are_found_by_a_regular_expression_whatever_the_layout(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    rl.ingest_layout(tmp_path / "store", root, workers=1, subject_regex=r"(sub-\d+(?:_ses-.)?)_", images=["pet"])
    assert rl.open(tmp_path / "store").obs_subject_ids == ["sub-02"]
    rl.ingest_layout(tmp_path / "other", root, workers=1, subject_regex=r"sub-0(?P<subject>\d)", images=["pet"])
    assert rl.open(tmp_path / "other").obs_subject_ids == ["2"]
    (tmp_path / "t.csv").write_text(f"subject,pet\na,{root}/sub-02/pet/sub-02_pet.nii.gz\n")
    with pytest.raises(ConfigError, match="finds ids in file names, and manifest has ids of its own"):
        rl.ingest_layout(tmp_path / "third", tmp_path / "t.csv", subject_regex="x")


def test_columns_that_no_longer_fit_stop_no_images(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    rl.ingest_layout(tmp_path / "store", root, workers=1)
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t34\nsub-02\t89+\nsub-03\t1\n")
    trees.write(root / "sub-03" / "anat" / "sub-03_T1w.nii.gz", trees.voxels(40))
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert [item.subject for item in report.ingested] == ["sub-03"]
    assert any("the subjects' columns were left out" in note and "89+" in note for note in report.notes)


def test_labels_alone_and_their_splits(tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "x")
    assert rl.ingest_layout(tmp_path / "store", root, labels=["label"], workers=1).ok
    assert rl.open(tmp_path / "store").collection_names == ["label"]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("subject;T1w;age\na;i.nii.gz;30\n", {"age": 30}),
        ("subject,T1w,age\r\na,i.nii.gz,30,\r\n\r\n", {"age": 30}),
        ("\ufeffsubject,T1w,age,\na,i.nii.gz,30,\n", {"age": 30}),
        ('subject,T1w,site\na,i.nii.gz,"x, y"\n', {"site": "x, y"}),
        ("subject,T1w,seg\na,i.nii.gz,s.nrrd\n", {}),
        ("subject,T1w,type\na,i.nii.gz,HGG\n", {"type": "HGG"}),
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path: Path, text: str, columns: dict[str, object]) -> None:
    trees.write(tmp_path / "i.nii.gz", trees.voxels(1))
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    assert rl.ingest_layout(tmp_path / "store", tmp_path / "t.csv", workers=1).ok
    store = rl.open(tmp_path / "store")
    assert store.collection_names == ["T1w"]
    assert store.obs_meta.read().to_dict("records") == [{"obs_subject_id": "a", **columns}]


def test_an_id_may_be_called_na(tmp_path: Path) -> None:
    trees.write(tmp_path / "i.nii.gz", trees.voxels(1))
    (tmp_path / "t.csv").write_text("subject,T1w\nNA,i.nii.gz\nNone,i.nii.gz\n")
    assert recognise(tmp_path / "t.csv").subjects == ["NA", "None"]


def test_rows_and_columns_that_are_left_out_are_told(tmp_path: Path) -> None:
    trees.write(tmp_path / "i.nii.gz", trees.voxels(1))
    (tmp_path / "t.csv").write_text(
        "subject,modality,path,mask\na,T1w,i.nii.gz,m.nrrd\nb,,i.nii.gz,m.nrrd\na,T1w,i.nii.gz,m.nrrd\n"
    )
    plan = recognise(tmp_path / "t.csv")
    assert plan.images == {"T1w": {"a": [str(tmp_path / "i.nii.gz")]}}
    assert plan.notes == [
        "1 rows have a path and no modality, and were left out; the first is row 2",
        "column 'mask' holds files that are not NIfTI, such as m.nrrd, and was left out; convert them, and name the new ones",
    ]


def test_cells_that_are_no_local_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("subject,T1w\na,s3://b/i.nii.gz\n")
    with pytest.raises(ConfigError, match="files are read from local folders; copy them, or mount the bucket"):
        recognise(tmp_path / "t.csv")


def test_nnunet_with_labels_that_are_named_as_channels_is_asked(tmp_path: Path) -> None:
    root = trees.nnunet(tmp_path / "x", tested=False)
    for path in (root / "labelsTr").iterdir():
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    with pytest.raises(ConfigError, match="is of no layout that is known"):
        recognise(root)


def test_parts_of_a_dataset_point_to_it(tmp_path: Path) -> None:
    root = trees.nnunet(tmp_path / "x", channels=("T1w", "T2w"))
    with pytest.raises(ConfigError, match=f"the folder above, {root}, is a dataset: nnunet"):
        recognise(root / "imagesTr")
    single = trees.decathlon(tmp_path / "y", described=False)
    assert recognise(single / "imagesTr").notes[-1] == f"the folder above, {single}, is a dataset: decathlon"
    with pytest.raises(ConfigError, match="does not look like nnunet; it looks like decathlon: it holds"):
        recognise(single, "nnunet")


def test_all_kinds_of_datasets_in_a_folder_are_listed(tmp_path: Path) -> None:
    series(tmp_path / "all" / "clinic", 0)
    trees.bids(tmp_path / "all" / "study")
    trees.plain(tmp_path / "all" / "other", {"T1w": ["a.nii.gz"], "seg": ["a.nii.gz"]})
    with pytest.raises(ConfigError) as caught:
        recognise(tmp_path / "all")
    for name, layout in (("clinic", "dicom"), ("study", "bids"), ("other", "folders")):
        assert f"{tmp_path}/all/{name}: {layout}" in str(caught.value)


def test_python_spells_its_options_out(tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "x", described=False, tested=False)
    said: list[str] = []
    rl.ingest_layout(
        tmp_path / "s", root, orientation="RAS", grid_tolerance_mm=0.0, workers=1, strict=True, say=said.append
    )
    assert sorted(said[-1].split(" --")[-4:]) == ["grid-tolerance 0.0", "orientation RAS", "strict", "workers 1"]


def test_a_changed_kind_is_told_and_one_name_is_enough(tmp_path: Path) -> None:
    root = trees.plain(tmp_path / "x", {"T1w": ["a.nii.gz"], "seg": ["a.nii.gz"]})
    plan = rl.plan_layout(root, images="seg")
    assert plan.notes[-1] == "'seg' holds labels, going by its name or the layout, and is taken as images, as told"
    assert list(plan.images) == ["seg"]
