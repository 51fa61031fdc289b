"""``python -m benchmarks``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cohort import SHAPE
from benchmarks.peers import PEERS
from benchmarks.studies import STUDIES

__all__ = ["main"]

_HERE = Path(__file__).resolve().parent


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="radioloader beside its peers, on the same files"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("quick", "the lines of the verdict table"), ("full", "every peer and every table")):
        command = commands.add_parser(name, help=text)
        full = name == "full"
        command.add_argument(
            "--root", type=Path, default=_HERE / ".cache", help="where cohorts are kept (default: %(default)s)"
        )
        command.add_argument(
            "--out", type=Path, default=_HERE / "results" / name, help="where results go (default: %(default)s)"
        )
        command.add_argument("--python", default=sys.executable, help="interpreter of the peers' environment")
        command.add_argument("--subjects", type=int, default=12 if full else 4)
        command.add_argument("--shape", type=_shape, default=SHAPE, help="voxels x,y,z of each (default: 512,512,280)")
        command.add_argument("--repetitions", type=int, default=3)
        command.add_argument(
            "--seconds", type=float, default=4.0 if full else 2.0, help="of each steady rate, at least"
        )
        command.add_argument(
            "--hang", type=float, default=300.0 if full else 120.0, help="seconds of silence that end a process"
        )
        budget = None if full else 26.0
        command.add_argument(
            "--budget", type=float, default=budget, help="minutes; a repetition that would end later is not begun"
        )
        command.add_argument("--peers", type=_names, help="only these, separated by commas")
        command.add_argument("--workloads", type=_names, help="only these, separated by commas")
        if full:
            command.add_argument("--studies", type=_studies, help=f"only these and nothing else: {', '.join(STUDIES)}")
        command.add_argument("--no-cold", action="store_true", help="never empty the page cache, not even as root")
    report = commands.add_parser("report", help="tables and pictures of records that are there already")
    report.add_argument("out", type=Path, help="folder with records.jsonl and run.json")
    report.add_argument("--to", type=Path, help="where tables and pictures go (default: into the same folder)")
    commands.add_parser("peers", help="list the contestants")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _studies(text: str) -> tuple[str, ...]:
    names = _names(text)
    unknown = [name for name in names if name not in STUDIES]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no study {unknown[0]!r}")
    return names


def _shape(text: str) -> tuple[int, int, int]:
    x, y, z = (int(part) for part in text.split(","))
    return x, y, z


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command == "peers":
        print("\n".join(PEERS))
        return 0
    if given.command == "report" and not (given.out / "records.jsonl").is_file():
        parser.error(f"{given.out} holds no records.jsonl: give a folder that `quick` or `full` left results in")
    from benchmarks.report import read, write

    if given.command == "quick" or given.command == "full":
        from benchmarks.suite import Settings, run

        run(
            Settings(
                full=given.command == "full",
                root=given.root.resolve(),
                out=given.out.resolve(),
                python=given.python,
                subjects=given.subjects,
                shape=given.shape,
                repetitions=given.repetitions,
                seconds=given.seconds,
                hang_s=given.hang,
                budget_min=float("inf") if given.budget is None else given.budget,
                peers=given.peers,
                workloads=given.workloads,
                studies=getattr(given, "studies", None),
                cold=not given.no_cold,
            )
        )
    to = (given.command == "report" and given.to) or given.out
    to.mkdir(parents=True, exist_ok=True)
    print(write(to, *read(given.out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
