"""What the page says above its table, as plain values for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.overview.charts import histogram, histogram_svg, share_svg
from radioloader.overview.facts import CollectionFacts, class_names, region_ml
from radioloader.overview.measure import PERCENTILES, Measured
from radioloader.overview.pairing import Place
from radioloader.overview.pictures import class_colours
from radioloader.overview.wording import figure, isolated, listed, shape_text, spacing_text, tally

__all__ = ["collection_rows", "duplicate_groups", "intensities", "labels", "legend", "named"]

_CLASSES_SHOWN = 60
_MEMBERS_SHOWN = 20


def named(cohort: Mapping[str, CollectionFacts], place: Place) -> str:
    """A volume in words: its collection and id."""
    name, number = place
    return f"{isolated(name)}: {isolated(str(cohort[name].index.obs_ids[number]))}"


def collection_rows(
    cohort: Mapping[str, CollectionFacts], lacking: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """One row for each collection: what its volumes are like, each as (value, how many)."""
    return [
        {
            "name": facts.name,
            "kind": f"{facts.kind}s, computed" if facts.info.computed else f"{facts.kind}s",
            "volumes": len(facts),
            "lacking": len(lacking[facts.name]),
            "shapes": tally((shape_text(shape) for shape in facts.index.shapes.tolist()), 3),
            "spacings": tally((spacing_text(spacing) for spacing in facts.spacings.tolist()), 3),
            "axes": tally(facts.axcodes.tolist(), 4),
            "dtypes": tally(facts.dtypes.tolist(), 4),
            "geometry": tally((verdict.status for verdict in facts.verdicts if verdict is not None), 4),
        }
        for facts in cohort.values()
    ]


def intensities(cohort: Mapping[str, CollectionFacts], measured: Mapping[Place, Measured]) -> list[dict[str, Any]]:
    """Of each image collection: range, percentiles over its volumes (median, lowest and highest), and a histogram."""
    result = []
    for facts in cohort.values():
        if facts.kind != "image" or not len(facts):
            continue
        found = [values for (name, _), values in measured.items() if name == facts.name and values.percentiles]
        table = np.array([values.percentiles for values in found]).reshape(-1, len(PERCENTILES))
        shares, edges, beyond, outside = histogram([values.sample for values in found])
        result.append(
            {
                "name": facts.name,
                "low": _least(facts.low),
                "high": _greatest(facts.high),
                "mean": _middle(facts.mean),
                "looked": len(found),
                "beyond": beyond,
                "volumes": len(facts),
                "rows": [
                    (percent, *map(figure, (np.median(column), column.min(), column.max())))
                    for percent, column in zip(PERCENTILES, table.T, strict=True)
                    if column.size
                ],
                "chart": histogram_svg(shares, edges, isolated(facts.name), outside) if found else None,
            }
        )
    return result


def labels(cohort: Mapping[str, CollectionFacts]) -> list[dict[str, Any]]:
    """Of each label collection: its classes and named regions, how many volumes have them, how large they are, and their shares."""
    return [_label(facts) for facts in cohort.values() if facts.kind == "label" and len(facts)]


def _label(facts: CollectionFacts) -> dict[str, Any]:
    voxels = float(
        (np.prod(facts.index.shapes[:, :3].astype(np.float64), axis=1) * facts.time_points)[facts.indexed].sum()
    )
    names, colours = class_names(facts), class_colours(facts.class_values)
    sums = {value: facts.class_sum(value) for value in names}
    foreground = sum(sums.values())
    rows = [
        _class(name, facts.class_ml(value), sums[value], foreground, voxels, colours.get(value))
        for value, name in list(names.items())[:_CLASSES_SHOWN]
    ]
    for name, values, ml in region_ml(facts):
        total = sum(sums.get(value, 0.0) for value in values)
        rows.append(_class(name, ml, total, foreground, voxels, None))
    return {
        "name": facts.name,
        "volumes": len(facts),
        "empty": int((facts.nonzero == 0).sum()),
        "uncounted": int((~facts.indexed).sum()),
        "background": f"{1 - foreground / voxels:.2%}" if voxels else "-",
        "rows": rows,
        "more": max(0, len(names) - _CLASSES_SHOWN),
    }


def _class(
    name: str, ml: npt.NDArray[np.float64], voxels: float, foreground: float, every: float, colour: str | None
) -> dict[str, Any]:
    there = ml[ml > 0]
    share = voxels / foreground if foreground else 0.0
    return {
        "name": name,
        "colour": colour,
        "volumes": len(there),
        "median": _middle(there),
        "low": _least(there),
        "high": _greatest(there),
        "foreground": f"{share:.1%}",
        "bar": share_svg(share, colour or "#888888"),
        "all": f"{voxels / every:.3%}" if every else "-",
    }


def legend(facts: CollectionFacts) -> dict[int, tuple[str, str]]:
    """Name and colour of each class that occurs in a label collection."""
    names = class_names(facts)
    return {value: (names[value], colour) for value, colour in class_colours(facts.class_values).items()}


def duplicate_groups(cohort: Mapping[str, CollectionFacts], groups: Sequence[Sequence[Place]]) -> list[dict[str, Any]]:
    """Groups of volumes that hold the same, with the subjects that they belong to."""
    return [
        {
            "subjects": listed(
                sorted({isolated(str(cohort[name].index.subject_ids[number])) for name, number in group}), 20
            ),
            "volumes": [named(cohort, place) for place in group[:_MEMBERS_SHOWN]],
            "more": max(0, len(group) - _MEMBERS_SHOWN),
        }
        for group in groups
    ]


def _finite(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values[np.isfinite(values)]


def _least(values: npt.NDArray[np.float64]) -> str:
    return figure(float(_finite(values).min())) if _finite(values).size else "-"


def _greatest(values: npt.NDArray[np.float64]) -> str:
    return figure(float(_finite(values).max())) if _finite(values).size else "-"


def _middle(values: npt.NDArray[np.float64]) -> str:
    return figure(float(np.median(_finite(values)))) if _finite(values).size else "-"
