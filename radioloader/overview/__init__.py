"""What a cohort is like, for people to look at: the report page, and pictures of single subjects."""

from __future__ import annotations

__all__: list[str] = []
