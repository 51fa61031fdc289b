"""What nnU-Net's and the decathlon's folders have in common: ``imagesTr``, ``labelsTr``, ``imagesTs``, classes by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from radioloader.errors import ConfigError
from radioloader.exporting.headers import FileGrid
from radioloader.exporting.names import unique_names
from radioloader.exporting.plan import SUFFIX, Layout, PlannedFile, Unit
from radioloader.exporting.selection import Member
from radioloader.exporting.table import PARTICIPANTS, Table, participants
from radioloader.ingestion.layouts._challenge import IMAGES, LABELS
from radioloader.ingestion.splits import SPLIT

__all__ = ["Case", "ChallengeLayout"]


@dataclass(frozen=True, slots=True)
class Case:
    """A subject with all that is needed.

    Attributes:
        subject: Who.
        name: What its files are called.
        images: Its volumes, one of each image collection in their order.
        label: Its label, or None.
        test: Whether it is no training case.
    """

    subject: str
    name: str
    images: tuple[Member, ...]
    label: Member | None
    test: bool

    @property
    def image_folder(self) -> str:
        """The folder of its images: ``imagesTr``, and ``imagesTs`` of a test case."""
        return IMAGES[self.test]

    @property
    def label_folder(self) -> str:
        """The folder of its label: ``labelsTr`` or ``labelsTs``."""
        return LABELS[self.test]


class ChallengeLayout(Layout):
    """Cases for training with labels, and cases for testing."""

    counted = "cases"
    label_by_itself = True
    kind: str
    """The layout's name."""
    channels: str
    """What several images are there."""
    channel_digits: int
    """Digits of a channel's number."""

    @property
    def label(self) -> str:
        """The label collection."""
        return self.selection.labels[0]

    def units(self) -> list[Unit]:
        """One for each case: its files are written all or not at all."""
        chosen = self.selection
        if len(chosen.labels) != 1:
            found = ", ".join(chosen.labels) or "none"
            raise ConfigError(
                f"{chosen.store.uri}: {self.kind} has labels of one kind, and there are {len(chosen.labels)} label collections ({found}); "
                "choose one with labels=[...] (--label)"
            )
        if not chosen.images:
            raise ConfigError(
                f"{chosen.store.uri}: {self.kind} needs an image collection; name one with images=[...] (--image)"
            )
        if len(chosen.images) > 1 and not chosen.ordered:
            order = ", ".join(
                f"{i:0{self.channel_digits}d} {chosen.name(name)}" for i, name in enumerate(chosen.images)
            )
            self.notes.append(f"{self.channels}: {order} (sorted by name; --image in the order you want)")
        names = unique_names(chosen.subjects)
        self.cases: dict[str, Case] = {}
        nothing = 0
        for subject in chosen.subjects:
            volumes = {name: chosen.of(name, subject) for name in chosen.collections}
            if not any(volumes.values()):
                nothing += 1
                continue
            case = self._case(subject, names[subject], volumes)
            if case is not None:
                self.cases[subject] = case
        if nothing:
            self.notes.append(
                f"{nothing} subjects have no volume in {', '.join(chosen.collections)}; they were left out"
            )
        self.renamed = {subject: case.name for subject, case in self.cases.items() if subject != case.name}
        without = [case.subject for case in self.cases.values() if case.label is None]
        if without:
            self.notes.append(
                f"{len(without)} subjects have no label, such as {without[0]!r}; their images are in imagesTs"
            )
        return [
            Unit(
                case.subject,
                (
                    *self.image_files(case),
                    *([PlannedFile(f"{case.label_folder}/{case.name}{SUFFIX}", (case.label,))] if case.label else ()),
                ),
            )
            for case in self.cases.values()
        ]

    @abstractmethod
    def image_files(self, case: Case) -> list[PlannedFile]:
        """The files of a case's images."""

    @abstractmethod
    def problem(self, images: Mapping[Member, FileGrid]) -> tuple[str, str] | None:
        """The collection that does not fit the others of a subject, and why; None when all fit.

        Args:
            images: What the files of a subject's images will hold, in their order.
        """

    def _case(self, subject: str, name: str, volumes: dict[str, list[Member]]) -> Case | None:
        for collection, members in volumes.items():
            if len(members) > 1:
                ids = ", ".join(member.obs_id for member in members[:3])
                self.fail(
                    subject, collection, f"it has {len(members)} volumes there ({ids}), and {self.kind} takes one"
                )
                return None
            if not members and collection != self.label:
                self.fail(subject, collection, f"it has no volume there, and {self.kind} needs every image of a case")
                return None
        images = [volumes[collection][0] for collection in self.selection.images]
        label = next(iter(volumes[self.label]), None)
        try:
            grids = {member: self.selection.grid(member) for member in [*images, *([label] if label else [])]}
        except ConfigError as error:
            self.fail(subject, "", str(error))
            return None
        problem = _off_grid(grids)
        if problem is None and label is not None:
            problem = _series(label, grids.pop(label))
        if problem is None:
            problem = self.problem(grids)
        if problem is not None:
            self.fail(subject, *problem)
            return None
        split = self.selection.value(subject, SPLIT)
        test = label is None or (isinstance(split, str) and split.casefold() == "test")
        return Case(subject, name, tuple(images), label, test)

    def done_cases(self, done: Sequence[Unit]) -> list[Case]:
        """The cases that were written."""
        return [self.cases[unit.subject] for unit in done]

    def tables(self, done: Sequence[Unit]) -> list[Table]:
        """The subjects' columns, where there are any. The split is what the folders say."""
        cases = self.done_cases(done)
        names = {case.subject: case.name for case in cases}
        without = [SPLIT] if len({case.test for case in cases}) > 1 else []
        renamed = {subject: name for subject, name in self.renamed.items() if subject in names}
        table = participants(self.selection, names, key="obs_subject_id", renamed=renamed, without=without)
        return [table] if table.columns else []

    def split_notes(self, cases: Sequence[Case]) -> list[str]:
        """What the folders do not say of the split."""
        other = [
            (case.subject, value)
            for case in cases
            if (value := self.selection.value(case.subject, SPLIT)) is not None
            and value != ("test" if case.test else "train")
        ]
        if not other or len({case.test for case in cases}) < 2:
            return []
        subject, value = other[0]
        return [
            f"the folders tell train from test, no more: what the column {SPLIT!r} says of {len(other)} subjects, such as {value!r} of "
            f"{subject!r}, is not kept"
        ]

    def class_values(self) -> dict[str, tuple[int, ...]]:
        """Values by name, other ones than the background: the named ones, and ``class_<n>`` for values that occur without a name."""
        named = self.selection.classes(self.label)
        result = {name: values for name, values in named.items() if set(values) != {0}}
        zero = [name for name, values in named.items() if set(values) == {0} and name != "background"]
        if zero:
            self.notes.append(f"class 0 is called {zero[0]!r} in the store, and background in the folder")
        covered = {0}.union(*result.values())
        for value in self.selection.occurring(self.label):
            if value not in covered:
                name = f"class_{value}"
                result[name if name not in result else f"class_{value}_"] = (value,)
        if "background" in result:
            result["background_"] = result.pop("background")
        return result

    def command(self, out: str, done: Sequence[Unit], tables: Sequence[Table]) -> list[str]:
        """The folder as it is; the label collection is then called ``label``."""
        words = ["radioloader", "ingest", "STORE", out, "--layout", self.kind]
        if tables:
            words += ["--obs-meta", f"{out}/{PARTICIPANTS}"]
        return words


def _off_grid(grids: Mapping[Member, FileGrid]) -> tuple[str, str] | None:
    """The collection that is not on the grid of the first one, and why."""
    (first, grid), *others = grids.items()
    for member, other in others:
        problem = grid.problem(other)
        if problem is not None:
            return member.collection, f"it is not on the grid of {first.collection!r}: {problem}"
    return None


def _series(label: Member, grid: FileGrid) -> tuple[str, str] | None:
    if len(grid.shape) < 4:
        return None
    return label.collection, f"it is 4D with {grid.shape[3]} volumes, and labels are 3D"
