"""``report.html``: one self-contained page that says what was done and what came out."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from radioloader.demo.progress import megabytes

__all__ = ["write_report"]

_STYLE = """
:root { color-scheme: light }
body { margin: 0; background: #f4f6f9; color: #1f2937; font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif }
main { max-width: 960px; margin: 0 auto; padding: 0 20px 60px }
header { background: #10141a; color: #e8ecf1; padding: 40px 20px 34px }
header > div { max-width: 960px; margin: 0 auto; padding: 0 20px }
h1 { margin: 0 0 6px; font-size: 30px; letter-spacing: -.01em }
header p { margin: 0; color: #aab4c2; max-width: 46em }
h2 { margin: 44px 0 10px; font-size: 21px }
.note { background: #fff4db; border-left: 4px solid #e3a008; padding: 10px 16px; margin: 24px 0 0; border-radius: 4px }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; margin: 24px 0 0 }
.card { background: #fff; border: 1px solid #e3e8ef; border-radius: 10px; padding: 16px 18px }
.card b { display: block; font-size: 27px; line-height: 1.25; color: #0f4fb3 }
.card span { color: #5b6675; font-size: 14px; line-height: 1.4; display: block }
figure { margin: 16px 0 0 }
figure img { width: 100%; border-radius: 10px; border: 1px solid #e3e8ef; display: block }
figcaption { color: #5b6675; font-size: 14px; margin-top: 6px }
table { border-collapse: collapse; width: 100%; background: #fff; border: 1px solid #e3e8ef; margin: 16px 0 0;
  font-size: 14.5px }
th, td { padding: 7px 12px; text-align: left; border-bottom: 1px solid #edf0f4; vertical-align: top }
th { background: #f8fafc; font-weight: 600 }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
th.n { white-space: normal }
tr.us td { background: #eef5ff }
td:first-child { white-space: nowrap }
td:last-child { overflow-wrap: anywhere }
.scroll { overflow-x: auto }
pre { background: #10141a; color: #e8ecf1; padding: 16px 18px; border-radius: 10px; overflow-x: auto; font-size: 13.5px;
  line-height: 1.5 }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
.small { color: #5b6675; font-size: 14px }
"""

_CODE = """import radioloader as rl

rl.ingest("store", images={"T1w": "cohort/images", "seg": "cohort/labels"}, labels=["seg"],
          obs_meta="cohort/participants.tsv", orientation="RAS")

data = rl.lightning.PatchDataModule(
    "store", image=["T1w"], label="seg", patch_size=(64, 64, 64), patches_per_volume=8,
    batch_size=4, split=(0.7, 0.1, 0.2), seed=0)
trainer.fit(model, datamodule=data)          # your LightningModule, unchanged

volume = rl.open("store").T1w.loc["sub-01"]  # lazy; nothing is read yet
volume[60:124, 60:124, 60:124]               # reads these voxels only
volume.save_on_source_grid(labels, "sub-01_pred.nii.gz")  # overlays the source file"""


def write_report(path: Path, *, metrics: Mapping[str, Any], pictures: Mapping[str, Path]) -> None:
    """Write the page.

    Args:
        path: The HTML file; every picture is embedded in it.
        metrics: What ``metrics.json`` holds.
        pictures: Name -> PNG: ``cohort``, ``training``, ``speeds`` and one for each test subject.
    """
    data, dice, speed = metrics["data"], metrics["dice"], metrics["speed"]
    ours, *others = speed["ways"]
    slowest, fastest = max(o["ratio"] for o in others), min(o["ratio"] for o in others)
    cards = [
        (f"{dice['mean']:.3f}", f"mean Dice of grey and white matter on {len(dice['subjects'])} held-out subjects"),
        (f"{ours['patches_per_s']:.0f} / s", f"patches of {_cube(metrics)} from the store, image and label"),
        (f"{fastest:.0f} to {slowest:.0f}×", "the speed of MONAI and TorchIO on the same .nii.gz files (part 5)"),
        (
            f"{data['store_bytes'] / data['nii_gz_bytes']:.0%}",
            "of the size of the .nii.gz files, for the store on disk",
        ),
    ]
    body = [
        f"<p class=note><b>These subjects are simulated.</b> {escape(data['statement'])}</p>",
        "<div class=cards>" + "".join(f"<div class=card><b>{b}</b><span>{t}</span></div>" for b, t in cards) + "</div>",
        "<h2>1. The cohort</h2>",
        f"<p>{data['n_subjects']} subjects, each an image and a label map in ordinary <code>.nii.gz</code> files that "
        "differ in shape, voxel size, tilt and storage orientation, as files from different scanners do.</p>",
        _figure(
            pictures["cohort"], "One axial slice of each subject, from the store; below it, what its file is like."
        ),
        "<h2>2. From files to the store</h2>",
        f"<p>{data['volumes']} volumes were ingested, turned to RAS axes. {data['volumes_equal']} of {data['volumes']} "
        "are equal to nibabel's reading of their source file, voxel for voxel. The files take "
        f"{megabytes(data['nii_gz_bytes'])}, the store {megabytes(data['store_bytes'])}.</p>",
        "<h2>3. Training</h2>",
        f"<p>{escape(metrics['training']['statement'])}</p>",
        _figure(pictures["training"], "Training loss, and Dice on whole validation volumes."),
        "<h2>4. Held-out subjects</h2>",
        "<p>Predicted by sliding window over the whole volume. Each prediction is written as NIfTI on the grid of its "
        "source file (same shape, affine and orientation; checked), and Dice is computed between the files.</p>",
        _dice_table(dice),
        *(
            _figure(pictures[s], f"{s}: slices through the middle of the brain; R right, A anterior, S superior.")
            for s in dice["subjects"]
        ),
        "<h2>5. Speed of loading patches</h2>",
        f"<p>{escape(speed['statement'])}</p>",
        _figure(pictures["speeds"], "Medians of the repetitions below."),
        _speed_table(speed["ways"]),
        "<h2>6. The code</h2>",
        f"<pre><code>{escape(_CODE)}</code></pre>",
        "<h2>7. This run</h2>",
        f"<p>{escape(metrics['reproduced'])}</p>",
        _run_table(metrics),
    ]
    page = (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'><title>radioloader demo</title>"
        f"<style>{_STYLE}</style></head><body><header><div><h1>radioloader demo</h1>"
        "<p>From a folder of brain images to a trained segmentation model: ingest, train, predict, compare. Everything "
        f"here was computed on this machine in {metrics['total_s']:.0f} seconds.</p></div></header><main>"
    )
    path.write_text(page + "\n".join(body) + "</main></body></html>\n", encoding="utf-8")


def _figure(png: Path, caption: str) -> str:
    data = base64.b64encode(png.read_bytes()).decode()
    text = escape(caption)
    return f"<figure><img alt='{text}' src='data:image/png;base64,{data}'><figcaption>{text}</figcaption></figure>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int], first: str = "") -> str:
    def line(cells: Sequence[str], tag: str, attributes: str = "") -> str:
        parts = (f"<{tag}{' class=n' if i in numbers else ''}>{escape(c)}</{tag}>" for i, c in enumerate(cells))
        return f"<tr{attributes}>{''.join(parts)}</tr>"

    lines = [line(row, "td", first if i == 0 else "") for i, row in enumerate(rows)]
    return f"<div class=scroll><table>{line(head, 'th')}{''.join(lines)}</table></div>"


def _dice_table(dice: Mapping[str, Any]) -> str:
    rows = [[s, *(f"{v:.4f}" for v in scores.values())] for s, scores in dice["subjects"].items()]
    rows.append(["mean", *(f"{v:.4f}" for v in dice["classes"].values()), f"{dice['mean']:.4f}"])
    return _table(["subject", *dice["classes"], "mean"], rows, numbers=(1, 2, 3))


def _speed_table(ways: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            w["name"],
            f"{w['patches_per_s']:.1f}",
            f"{w['ratio']:.1f}",
            f"{w['cpu_ms_per_patch']:.1f}",
            f"{w['how']}; repetitions {', '.join(f'{r:.0f}' for r in w['repetitions'])}",
        ]
        for w in ways
    ]
    head = ["", "patches/s", "radioloader: times as fast", "CPU ms / patch", "how"]
    return _table(head, rows, numbers=(1, 2, 3), first=" class=us")


def _run_table(metrics: Mapping[str, Any]) -> str:
    rows = [[f"time of step: {name}", f"{seconds:.1f} s"] for name, seconds in metrics["seconds"].items()]
    rows += [["seed", str(metrics["seed"])], ["machine", metrics["machine"]]]
    rows += [["versions", ", ".join(f"{name} {version}" for name, version in metrics["versions"].items())]]
    rows += [["files", "metrics.json, cohort/, store/, predictions/, pictures/, training/model.pt beside this page"]]
    return _table(["", ""], rows, numbers=())


def _cube(metrics: Mapping[str, Any]) -> str:
    return "×".join([str(metrics["patch_size"])] * 3)
