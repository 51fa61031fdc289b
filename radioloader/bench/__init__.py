"""Measures a user's own store: how fast it gives samples, what limits that, and which setting to change."""

from radioloader.bench.model import BenchReport
from radioloader.bench.run import run_bench

__all__ = ["BenchReport", "run_bench"]
