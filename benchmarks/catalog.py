"""``python -m benchmarks.catalog``: how opening, selecting and filtering grow with the number of subjects, from 10 to 100,000 with four
collections each, and how much memory that takes.

Makes the stores the first time: their tables are real, with a row for each subject and each volume; the voxels of all volumes of a
collection are one array. Measures each in a process of its own; prints a table, and draws a picture of it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radioloader.config import get_config
from radioloader.formats.nifti import make_header
from radioloader.ingestion.subject import recipe_of
from radioloader.storage.catalog import COLLECTION_TABLES, columns_of, obs_row, pack_occupied
from radioloader.storage.store import Store, Transaction
from radioloader.storage.table import Column
from radioloader.storage.writer import write_volume

__all__ = ["COLLECTIONS", "main", "make_store", "measure"]

COLLECTIONS = ("T1w", "T2w", "FLAIR", "seg")
EXPRESSION = "age > 40 and sex == 'F'"
_ROWS = 20_000
_COLUMNS = [
    Column("user.age", "int", nullable=True),
    Column("user.sex", "str", nullable=True),
    Column("user.score", "float"),
    Column("user.diagnosis", "str", nullable=True),
]


def make_store(uri: Path, ids: Sequence[str], shape: tuple[int, int, int] = (8, 8, 8)) -> None:
    """A store of subjects with four collections, whose volumes of ``shape`` (X, Y, Z) share one array for each collection."""
    store, rng = Store.open_or_create(uri), np.random.default_rng(0)
    with store.write() as transaction:
        table = store.table("obs_meta")
        table.add_columns(_COLUMNS)
        values = {
            "obs_subject_id": list(ids),
            "user.age": rng.integers(18, 90, len(ids)).tolist(),
            "user.sex": rng.choice(["F", "M"], len(ids)).tolist(),
            "user.score": rng.random(len(ids)).tolist(),
            "user.diagnosis": rng.choice(["tumor", "healthy", "stroke"], len(ids)).tolist(),
        }
        transaction.append(table, values)
        for number, name in enumerate(COLLECTIONS):
            _make_collection(store, transaction, f"{number:016x}", name, ids, shape, rng)
        names = [column.name.removeprefix("user.") for column in _COLUMNS]
        transaction.commit(f"made of {len(ids)} subjects", {"columns": names})


def _make_collection(
    store: Store,
    transaction: Transaction,
    id_: str,
    name: str,
    ids: Sequence[str],
    shape: tuple[int, int, int],
    rng: np.random.Generator,
) -> None:
    store.create_collection(id_, COLLECTION_TABLES)
    voxels = rng.integers(0, 3 if name == "seg" else 1000, shape).astype(np.uint8 if name == "seg" else np.int16)
    path = write_volume(store.collection_uri(id_), voxels, codes="RAS", config=get_config(), owner=name)
    header, recipe = make_header(shape, voxels.dtype, np.eye(4)), recipe_of(None, get_config())
    numbers = {"stat_min": float(voxels.min()), "stat_max": float(voxels.max()), "stat_mean": 1.0, "stat_std": 1.0}
    for start in range(0, len(ids), _ROWS):
        rows = []
        for subject in ids[start : start + _ROWS]:
            affine = np.eye(4)
            affine[:3, 3] = rng.random(3)
            rows.append(
                obs_row(
                    obs_id=f"{subject}_{name}",
                    obs_subject_id=subject,
                    uri=path,
                    shape=shape,
                    dtype=voxels.dtype.name,
                    slope=1.0,
                    intercept=0.0,
                    affine=affine,
                    spacing=(1.0, 1.0, 1.0),
                    axcodes="RAS",
                    source_axcodes="RAS",
                    header=header,
                    source=f"/data/cohort/images/{subject}_{name}.nii.gz",
                    source_hash=rng.bytes(32).hex(),
                    content_hash=rng.bytes(32).hex(),
                    recipe=recipe,
                    occupied=pack_occupied([np.ones(n, np.bool_) for n in shape]),
                    statistics={**numbers, "nonfinite": 0, "nonzero": int(np.count_nonzero(voxels))},
                )
            )
        transaction.append(store.table("c", id_, "obs"), columns_of(rows))
    row = {"collection_id": [id_], "name": [name], "kind": ["label" if name == "seg" else "image"], "recipe": ["{}"]}
    transaction.append(store.table("collections"), row)


def _memory_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def measure(uri: Path, ids: Sequence[str]) -> dict[str, float]:
    """Milliseconds of each operation, in the order of a session, and MB of memory; the median where it is repeated."""
    import pandas  # noqa: F401 - takes its time, whatever the table

    import radioloader as rl
    from radioloader.container import radiobject  # noqa: F401 - likewise

    found: dict[str, float] = {"memory before (MB)": _memory_mb()}

    def take(name: str, what: Callable[[], Any], repeat: int = 1) -> Any:
        times = []
        for _ in range(repeat):
            started = time.perf_counter()
            result = what()
            times.append(1e3 * (time.perf_counter() - started))
        found[name] = float(np.median(times))
        return result

    middle, some = len(ids) // 2, ids[len(ids) // 2]
    store = take("open, and count subjects", lambda: _opened(uri))
    take("iloc", lambda: store.iloc[middle], 101)
    take("first loc", lambda: store.loc[some])
    take("loc", lambda: store.loc[some], 101)
    take("first filter", lambda: store.filter(EXPRESSION))
    view = take("filter", lambda: store.filter(EXPRESSION), 9)
    take("filter of a filter", lambda: view.filter("score < 0.5"), 9)
    take("iterate over ids", lambda: sum(len(subject) for subject in store), 5)
    take("obs_meta, two columns", lambda: rl.open(uri).obs_meta.read(["obs_subject_id", "age"]))
    found["memory with subjects (MB)"] = _memory_mb()
    take("first volume of a collection", lambda: store.loc[some].T1w.iloc[0])
    take("volume", lambda: store.loc[some].T1w.iloc[0], 101)
    take("voxels", lambda: store.loc[some].T1w.iloc[0].to_numpy(), 9)
    found["memory with a collection (MB)"] = _memory_mb()
    take("three more collections", lambda: [len(store[name]) for name in COLLECTIONS])
    found["memory with four collections (MB)"] = _memory_mb()
    return found


def _opened(uri: Path) -> Any:
    import radioloader as rl

    store = rl.open(uri)
    len(store)
    return store


def subject_ids(count: int) -> list[str]:
    """Ids in the order in which a store has them."""
    return [f"sub-{number:06d}" for number in range(count)]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalog", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent / ".cache")
    parser.add_argument("--subjects", type=int, nargs="+", default=[10, 100, 1_000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, help="Folder for catalog.md and catalog.png")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, subject_ids(options.subjects[0]))))
        return
    columns: dict[int, dict[str, float]] = {}
    for count in options.subjects:
        uri = options.root / f"catalog-{count}"
        if not uri.exists():
            make_store(uri, subject_ids(count))
        command = [sys.executable, "-m", "benchmarks.catalog", "--measure", str(uri), "--subjects", str(count)]
        columns[count] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    lines = _table(columns)
    print("\n".join(lines))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "catalog.md").write_text("\n".join(lines) + "\n")
        _picture(options.out / "catalog.png", columns)


def _table(columns: dict[int, dict[str, float]]) -> list[str]:
    counts = list(columns)
    lines = [f"| | {' | '.join(f'{count:,}' for count in counts)} |", "|---" * (len(counts) + 1) + "|"]
    for name in columns[counts[0]]:
        unit = "" if name.endswith("(MB)") else " (ms)"
        lines.append(f"| {name}{unit} | {' | '.join(f'{columns[count][name]:.3g}' for count in counts)} |")
    return lines


def _picture(path: Path, columns: dict[int, dict[str, float]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), facecolor="white", layout="constrained")
    for ax, memory, title in zip(figure.subplots(1, 2), (False, True), ("milliseconds", "MB of memory"), strict=True):
        for name in next(iter(columns.values())):
            if name.endswith("(MB)") == memory:
                label = name.removeprefix("memory ").removesuffix(" (MB)")
                ax.plot(
                    list(columns), [found[name] for found in columns.values()], marker="o", markersize=3, label=label
                )
        ax.set_xscale("log")
        if not memory:
            ax.set_yscale("log")
        ax.set_title(title, fontsize=9, loc="left")
        ax.set_xlabel("subjects with four volumes each", fontsize=8)
        ax.tick_params(labelsize=7.5)
        ax.legend(fontsize=6.5, frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
