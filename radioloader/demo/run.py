"""Run the demo: make a cohort, ingest, train, predict, compare the speeds, write the report."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from radioloader._optional import require
from radioloader.demo.check import StoreCheck, check_store, tree_bytes
from radioloader.demo.cohort import make_cohort
from radioloader.demo.folder import claim_folder, replace_file
from radioloader.demo.metrics import compare_with_last_run, dice_facts, speed_facts, training_facts, versions
from radioloader.demo.pictures import draw_cohort, draw_prediction, draw_speeds, draw_training
from radioloader.demo.predict import Prediction, predict
from radioloader.demo.progress import Steps, megabytes, print_dice, print_speeds
from radioloader.demo.report import write_report
from radioloader.demo.speed import WAYS, Speed, measure_speeds
from radioloader.demo.train import Training, train
from radioloader.errors import ReadError

__all__ = ["DemoResult", "run_demo"]

STATEMENT = (
    "Every subject is made from one real brain, the MNI152 T1-weighted template that nilearn carries, by a "
    "random smooth deformation, a bias field and noise; labels come from the template's grey and white matter maps. "
    "Nobody was scanned, ages and sexes are random, and the Dice says that the pipeline works, not how well "
    "a model would do on patients."
)


@dataclass(frozen=True)
class DemoResult:
    """What the demo left behind.

    Attributes:
        folder: Holds everything.
        report: ``report.html`` in it.
        mean_dice: Mean of grey and white matter over the held-out subjects.
        metrics: What ``metrics.json`` holds.
    """

    folder: Path
    report: Path
    mean_dice: float
    metrics: dict[str, Any]


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    n_subjects: int = 14,
    resolution: float = 1.0,
    patch_size: int = 64,
    max_steps: int = 300,
    repetitions: int = 5,
    workers: int = 2,
    console: Console | None = None,
) -> DemoResult:
    """Run the whole demo in `out`; a second run with the same settings uses what is there and gives the same result.

    Args:
        out: A folder that does not exist, is empty, or was made by a demo with the same seed.
        seed: Of the cohort, the split, the patches and the weights.
        n_subjects: Size of the cohort.
        resolution: Factor on the voxel size of about 1 mm; 4 and a `patch_size` of 32 make a quick test.
        patch_size: Edge of the patches in voxels, a multiple of 4.
        max_steps: Training steps.
        repetitions: Repetitions of the timing.
        workers: Processes for making and ingesting the cohort.
        console: Where progress is shown; standard output by default.

    Raises:
        ConfigError: `out` holds something that this demo did not make. Nothing was changed.
        MissingDependencyError: A package of the ``demo`` extra is missing; the message says how to install it.
    """
    out = Path(out)
    console = console or Console()
    settings = {"seed": seed, "n_subjects": n_subjects, "resolution": resolution}
    claim_folder(out, settings=settings)
    console.print(f"[yellow]These subjects are simulated.[/] {STATEMENT}", highlight=False)
    start = time.perf_counter()
    steps = Steps(console, count=8)

    with steps.step("imports", "Load MONAI, Lightning, TorchIO, nilearn, matplotlib"):
        import radioloader as rl

        for name in ("nilearn.datasets", "monai.networks.nets", "lightning", "torchio", "matplotlib.figure"):
            require(name, extra="demo")

    with steps.step("cohort", f"Simulate {n_subjects} subjects from one real template", total=n_subjects) as step:
        cohort = make_cohort(
            out / "cohort",
            n_subjects=n_subjects,
            resolution=resolution,
            seed=seed,
            workers=workers,
            on_subject=lambda subject, made: step.advance(subject),
        )
        kept = n_subjects - len(cohort.made)
        step.summary = f"{len(cohort.made)} made, {kept} already there and unchanged; {megabytes(cohort.nbytes)}"

    uri = str(out / "store")
    with steps.step("ingest", "Ingest the files") as step:
        report = rl.ingest(
            uri,
            images={"T1w": str(cohort.folder / "images"), "seg": str(cohort.folder / "labels")},
            labels=["seg"],
            obs_meta=str(cohort.participants),
            orientation="RAS",
            workers=workers,
            progress=True,
        )
        if not report.ok:
            raise ReadError(f"the cohort was not ingested whole; failed: {report.failed}")
        step.summary = f"{len(report.ingested)} ingested, {len(report.skipped)} already there"

    with steps.step("check", "Compare every voxel in the store with the source files", total=n_subjects) as step:
        store = rl.open(uri)
        checked = check_store(store, cohort=cohort, on_subject=step.advance)
        store_bytes = tree_bytes(out / "store")
        step.summary = (
            f"{checked.equal} volumes are equal; store {megabytes(store_bytes)}, .nii.gz {megabytes(cohort.nbytes)}"
        )

    with steps.step("train", f"Train a 3D U-Net, {max_steps} steps", total=max_steps) as step:
        training = train(
            uri,
            brain_means=checked.brain_means,
            folder=out / "training",
            patch_size=patch_size,
            max_steps=max_steps,
            seed=seed,
            on_step=lambda loss: step.advance(f"loss {loss:.2f}"),
        )
        step.summary = f"{len(training.train)} subjects, loss {statistics.mean(training.model.train_losses[-20:]):.2f}"

    with steps.step("predict", "Predict the held-out subjects", total=len(training.test)) as step:
        predictions = predict(
            store,
            training,
            cohort=cohort,
            folder=out / "predictions",
            on_subject=lambda p: step.advance(f"{p.subject} Dice {statistics.mean(p.dice.values()):.3f}"),
        )
        step.summary = f"{len(predictions)} NIfTI files, each on the grid of its source file (checked)"
    dice = dice_facts(predictions)
    print_dice(console, dice)

    with steps.step("speed", "Time loading of patches, side by side", total=WAYS * repetitions) as step:
        speeds = measure_speeds(
            store,
            cohort=cohort,
            patch_size=patch_size,
            repetitions=repetitions,
            seed=seed,
            on_repetition=step.advance,
        )
    speed = speed_facts(speeds, patch_size=patch_size)
    print_speeds(console, speed)

    with steps.step("report", "Draw the pictures and write the report") as step:
        pictures = _draw(out / "pictures", checked=checked, training=training, predictions=predictions, speeds=speeds)
    metrics: dict[str, Any] = {
        "made_by": "radioloader demo",
        "simulated": True,
        "seed": seed,
        "patch_size": patch_size,
        "max_steps": max_steps,
        "data": {
            "statement": STATEMENT,
            "n_subjects": n_subjects,
            "resolution": resolution,
            "volumes": 2 * n_subjects,
            "volumes_equal": checked.equal,
            "nii_gz_bytes": cohort.nbytes,
            "store_bytes": store_bytes,
        },
        "training": training_facts(training, patch_size=patch_size),
        "dice": dice,
        "prediction_sha256": {p.subject: p.sha256 for p in predictions},
        "speed": speed,
        "seconds": steps.seconds,
        "total_s": round(time.perf_counter() - start, 1),
        "machine": f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
        "versions": versions(),
    }
    metrics["reproduced"] = compare_with_last_run(out / "metrics.json", metrics)
    write_report(out / "report.html", metrics=metrics, pictures=pictures)
    replace_file(out / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())
    console.print(metrics["reproduced"], highlight=False)
    console.print(f"[bold]Finished in {metrics['total_s']:.0f} s.[/] Open this file in a browser:", highlight=False)
    console.print(str((out / "report.html").resolve()), soft_wrap=True, highlight=False)
    return DemoResult(out, out / "report.html", dice["mean"], metrics)


def _draw(
    folder: Path,
    *,
    checked: StoreCheck,
    training: Training,
    predictions: Sequence[Prediction],
    speeds: Sequence[Speed],
) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {name: folder / f"{name}.png" for name in ("cohort", "training", "speeds")}
    draw_cohort(checked.slices, test=training.test, path=pictures["cohort"])
    draw_training(training.model.train_losses, training.model.val_dice, path=pictures["training"])
    draw_speeds(speeds, path=pictures["speeds"])
    for prediction in predictions:
        pictures[prediction.subject] = folder / f"{prediction.subject}.png"
        draw_prediction(prediction, path=pictures[prediction.subject])
    return pictures
