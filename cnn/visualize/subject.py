"""What pictures are of: trained runs, the images they see, and what they answer.

Everything is loaded when it is first asked for, and once.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.checkpoints import naming
from cnn.config import Config
from cnn.data import find_own_classes, load_dataset, load_evaluated
from cnn.data import labels as labelled
from cnn.data.files import decode_files, describe_bad
from cnn.data.images import BadFile, Dataset, Evaluated, Images, get_part
from cnn.data.named_files import find_files
from cnn.data.options import find_centre
from cnn.errors import UserError, suggest
from cnn.runtime import interrupt
from cnn.text import name_file, show_line
from cnn.training import same_data
from cnn.training.tasks import MULTILABEL
from cnn.training.trained import check_image_shape, get_class_names, match_labels
from cnn.visualize.compute import patches
from cnn.visualize.compute.features import Stage, list_stages, map_batches
from cnn.visualize.draw import lettering
from cnn.visualize.draw.picture import Picture
from cnn.visualize.named_run import NamedRun, load_run

_READ_AT_ONCE, _MOST_CHOSEN = 2000, 10


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A few images that are looked at one by one.

    Attributes:
        images: uint8 [n, H, W, C].
        names: n labels that say which they are.
    """

    images: np.ndarray
    names: tuple[str, ...]


class Searched:
    """Images in which each channel's strongest answer is searched.

    Attributes:
        images: uint8 [N, H, W, C].
    """

    def __init__(self, images: np.ndarray) -> None:
        """Take the images; nothing is computed yet."""
        self.images = images
        self._peaks: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}

    def find_peaks(self, run: NamedRun) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Find a run's peaks by stage, [N, channels]; see `patches.find_peaks`."""
        if run.name not in self._peaks:
            self._peaks[run.name] = map_batches(
                lambda batch: patches.find_peaks(run.function, run.scale(batch)),
                self.images,
                pixels=self.images[0, :, :, 0].size,
            )
        return self._peaks[run.name]

    def find_silent(
        self, run: NamedRun, stages: Sequence[Stage]
    ) -> dict[str, np.ndarray]:
        """Find the channels that never fire: the ReLU lets nothing through anywhere.

        Args:
            run: the run.
            stages: its stages. Of one that does not end in a ReLU, no channel is
                silent: there negative values count too.

        Returns:
            By stage, bool [channels].
        """
        peaks = self.find_peaks(run)
        return {
            stage.name: stage.is_thresholded & (peaks[stage.name][0].max(axis=0) <= 0)
            for stage in stages
        }


class Subject:
    """What the pictures of one call are of; `note` says what cannot be drawn.

    Attributes:
        excluded: files that could not be read and were left out, by path.
        faults: errors of the program that kept a picture from being drawn.
    """

    def __init__(self, config: Config, directories: list[Path]) -> None:
        """Look at the runs of some directories; nothing is loaded yet."""
        self.config, self.directories = config, directories
        self._data = config.data.for_evaluation()
        self.excluded: dict[str, BadFile] = {}
        self.faults: list[Exception] = []
        self._notes: list[str] = []
        self._logits: dict[str, np.ndarray] = {}
        self._stages: dict[str, tuple[Stage, ...]] = {}
        self._problems: dict[str, str] = {}

    def note(self, text: str) -> None:
        """Say, in one sentence, what is not drawn and why."""
        if text not in self._notes:
            self._notes.append(text)

    def take_notes(self) -> tuple[str, ...]:
        """Return the notes since the last call."""
        notes, self._notes = tuple(self._notes), []
        return notes

    def collect(self, function: Callable[[Any], Any], items: Iterable) -> tuple:
        """Return what a function makes of each item; those that it refuses are noted.

        Raises:
            UserError: it refuses all.
        """
        found, errors = [], []
        for item in items:
            try:
                found.append(function(item))
            except UserError as error:
                errors.append(str(error))
        if not found:
            raise UserError("; ".join(errors))
        for error in errors:
            self.note(error)
        return tuple(found)

    @functools.cached_property
    def runs(self) -> tuple[NamedRun, ...]:
        """Return the trained runs, whatever images they take; the others are noted.

        Raises:
            UserError: no directory holds a whole checkpoint.
        """
        names, which = (
            naming.label_runs(self.directories),
            self.config.checkpoint.checkpoint,
        )
        pairs = zip(self.directories, names, strict=True)
        return self.collect(lambda pair: load_run(pair[0], which, pair[1]), pairs)

    @property
    def fitting_runs(self) -> tuple[NamedRun, ...]:
        """Return the runs that take the images; the others are noted.

        Raises:
            UserError: none does.
        """

        def check(run: NamedRun) -> NamedRun:
            if run.name not in self._problems:
                self._problems[run.name] = self._find_problem(run)
            if problem := self._problems[run.name]:
                raise UserError(problem)
            return run

        return self.collect(check, self.runs)

    def _find_problem(self, run: NamedRun) -> str:
        """Say why a run does not take the images; empty: it does."""
        try:
            check_image_shape(run.trained, self.image_shape)
        except UserError as error:
            return f"{run.name}: {error}"
        return ""

    @property
    def comparable_runs(self) -> tuple[NamedRun, ...]:
        """Return the runs that take the images and know their classes.

        The others are noted.

        Raises:
            UserError: none does.
        """
        return self.collect(self.check_classes, self.fitting_runs)

    def draw_runs(
        self, draw: Callable[[NamedRun], list[Picture]], runs: Sequence[NamedRun]
    ) -> list[Picture]:
        """Draw pictures of each run; what prevents those of one is noted."""
        return [x for run in runs for x in self.attempt(run.name, draw, run)]

    def attempt(
        self, what: str, draw: Callable[..., list[Picture]], *given: Any
    ) -> list[Picture]:
        """Draw pictures; what prevents it is noted, and there are none.

        A fault of the program is kept in `faults` too, to be raised when all else is
        drawn.

        Args:
            what: the note begins with.
            draw: is called with what is given.
            *given: that.

        Raises:
            OSError: of a disk that is full, or the like.
        """
        try:
            return draw(*given)
        except UserError as error:
            self.note(f"{what}: {error}")
        except (OSError, interrupt.Interrupted):
            raise
        except Exception as error:
            about = f"{type(error).__name__}: {error}".rstrip(": ")
            self.note(f"{what}: not drawn, for a fault of the program: {about}")
            self.faults.append(error)
        return []

    def entitle(self, run: NamedRun, text: str) -> str:
        """Return a title that names the run where there are several.

        Args:
            run: that it is about.
            text: what of it is shown, without a capital.
        """
        if len(self.directories) > 1:
            return f"{run.name}: {text}"
        is_word = text.split()[0].isalpha()
        return text[0].upper() + text[1:] if is_word else text

    def name_file(self, folder: Path, run: NamedRun, *parts: str) -> Path:
        """Name a run's PNG, after the run too when there are several."""
        names = [run.name, *parts] if len(self.directories) > 1 else list(parts)
        name = "_".join(names).replace("/", ".")
        return folder / f"{name_file(name, parts[0])}.png"

    def get_stages(self, run: NamedRun) -> tuple[Stage, ...]:
        """Return a run's stages for the images that are looked at."""
        if run.name not in self._stages:
            self._stages[run.name] = list_stages(run.function, self.image_shape)
        return self._stages[run.name]

    def describe(self, run: NamedRun, stage: Stage) -> str:
        """Say which stage this is; operations that hide what it sees are noted."""
        if stage.is_map and stage.field.unknown:
            names = sorted(f"`{name}`" for name in stage.field.unknown)
            verb = "is" if len(names) == 1 else "are"
            self.note(
                f"{run.name}: receptive fields: {', '.join(names)} {verb} not known, "
                "what comes after is taken to see the whole image"
            )
        return f"{run.name}, {stage.describe()}"

    def choose_layers(self, run: NamedRun, known: Sequence[str]) -> list[str]:
        """Return those of a run's layers or stages that --picture_layers names.

        Args:
            run: the run.
            known: the names to choose from; all are chosen without the flag.

        Raises:
            UserError: the run has no stage and no kernel of a name.
        """
        asked = self.config.visualize.picture_layers
        names = [*run.stage_names, *run.kernels] if asked else []
        for name in asked:
            if name not in names:
                raise UserError(
                    f"--picture_layers={name} is no stage or kernel of this "
                    f"model{suggest(name, names)}"
                )
        return [name for name in known if not asked or name in asked]

    def choose_channels(self, total: int) -> np.ndarray:
        """Return the --picture_channels of so many that are shown, evenly spread."""
        return spread(total, self.config.visualize.picture_channels)

    @functools.cached_property
    def dataset(self) -> Dataset:
        """Return the dataset of the first run, or the one that the flags name."""
        found = load_dataset(self.config.data)
        self._take_bad(found.name, found.excluded)
        return found

    @functools.cached_property
    def evaluated(self) -> Evaluated:
        """Return the images of `--split`, with the names of their classes."""
        options, split = self._data, self.config.evaluate.split
        stored = same_data.find_moved(self.directories[0], options)
        own_classes = find_own_classes(stored, options)
        is_alike = options == self.config.data
        if is_alike and own_classes == options.classes and split != "all":
            return get_part(self.dataset, split)
        found = load_evaluated(options, split, own_classes)
        self._take_bad(found.name, found.excluded)
        return found

    def _take_bad(self, source: str, excluded: Sequence[BadFile]) -> None:
        """Note files of a dataset that were left out, and keep them to be written."""
        self.excluded |= {bad.path: bad for bad in excluded}
        for note in describe_bad(excluded):
            self.note(f"{source}: {note}")

    @property
    def split(self) -> Images:
        """Return the images of `--split`."""
        return self.evaluated.images

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return (H, W, C) of what the models see."""
        size = self._data.image_size
        return (size, size, self.split.shape[2]) if size else self.split.shape

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Read the centre of images of the split: uint8 [n, H, W, C]."""
        return self._cut(self.split.read(np.asarray(positions)))

    def _cut(self, images: np.ndarray) -> np.ndarray:
        """Cut what the models see out of images as they are stored."""
        height, width, _ = self.image_shape
        top = find_centre(images.shape[1], height)
        left = find_centre(images.shape[2], width)
        return images[:, top : top + height, left : left + width]

    def sample(self, count: int) -> np.ndarray:
        """Return `count` positions, or all, spread evenly over the split."""
        return spread(len(self.split), count)

    @functools.cached_property
    def searched(self) -> Searched:
        """Return the `--picture_sample` images that channels' peaks are searched in."""
        return Searched(self.read(self.sample(self.config.visualize.picture_sample)))

    @functools.cached_property
    def chosen(self) -> Chosen:
        """Return the images that flags choose, else the first of each class.

        Raises:
            UserError: a position or a pattern of files leads nowhere.
        """
        if self.config.visualize.picture_files:
            return self._read_files(self.config.visualize.picture_files)
        positions = self._choose_positions(self.config.visualize.picture_examples)
        names = lettering.make_labels(self.evaluated.class_names)
        labels = labelled.to_lists(self.split.labels[positions])
        written = [labelled.write(x, names) or labelled.NONE for x in labels]
        own = map(lettering.make_label, self.name_examples(positions))
        names = [f"{x}\n{name}" for x, name in zip(written, own, strict=True)]
        return Chosen(self.read(positions), tuple(names))

    def list_files(self, positions: Sequence[int]) -> list[str]:
        """List the files of images of the split; `#3` for what lies in no file."""
        paths = self.split.paths
        return [f"#{i}" if paths is None else str(paths[i]) for i in positions]

    def name_examples(self, positions: Sequence[int]) -> list[str]:
        """Name images of the split after their files, without folders; else `#3`."""
        return [show_line(Path(file).name) for file in self.list_files(positions)]

    def _read_files(self, pattern: str) -> Chosen:
        """Read image files, the first ten that `--picture_files` names."""
        files, notes = find_files("picture_files", pattern)
        for note in notes:
            self.note(note)
        if len(files) > _MOST_CHOSEN:
            self.note(
                f"--picture_files={pattern} matches {len(files)} files; the first "
                f"{_MOST_CHOSEN} are shown"
            )
        files = files[:_MOST_CHOSEN]
        problems: dict[Path, str] = {}
        files, images = decode_files(files, self.split.shape, self._data, problems)
        bad = [BadFile(str(x), str(x), "", why) for x, why in problems.items()]
        self._take_bad("--picture_files", bad)
        if not files:
            raise UserError(f"--picture_files={pattern}: none can be read")
        return Chosen(
            self._cut(images),
            tuple(lettering.make_label(Path(file).name) for file in files),
        )

    def _choose_positions(self, given: Sequence[int]) -> np.ndarray:
        """Return positions in the split; none given: the first of each class."""
        labels = self.split.labels
        for position in given:
            if position >= len(labels):
                raise UserError(
                    f"--picture_examples={position}: the {self.config.evaluate.split} "
                    f"set has examples 0 to {len(labels) - 1}"
                )
        if given:
            return np.asarray(given, np.int64)
        return labelled.find_first(labels)[:_MOST_CHOSEN]

    def get_class_names(self, run: NamedRun) -> tuple[str, ...]:
        """Return the names of a run's classes, the data's where it has none."""
        return get_class_names(run.trained, self.evaluated.class_names)

    def label_classes(self, run: NamedRun) -> tuple[str, ...]:
        """Return the names of a run's classes as pictures show them."""
        return lettering.make_labels(self.get_class_names(run))

    def get_labels(self, run: NamedRun) -> np.ndarray:
        """Return the labels of the split as a run numbers its classes.

        They are as of `cnn.data.labels`.

        Raises:
            UserError: it does not know the class of an image.
        """
        try:
            return match_labels(run.trained, self.evaluated, self.config.data.classes)
        except UserError as error:
            known = self.get_class_names(run)
            raise UserError(
                f"{run.name} knows {len(known)} classes ({show_line(known[0])}, …): "
                f"its answers cannot be compared with the labels. {error}"
            ) from None

    def check_classes(self, run: NamedRun) -> NamedRun:
        """Return the run unless its answers cannot be compared with the labels.

        Raises:
            UserError: as `get_labels`.
        """
        self.get_labels(run)
        return run

    @property
    def single_class_runs(self) -> tuple[NamedRun, ...]:
        """Return those of `comparable_runs` for which an image has one class.

        The others are noted.

        Raises:
            UserError: there is none.
        """

        def check(run: NamedRun) -> NamedRun:
            if run.trained.structure.task is MULTILABEL:
                raise UserError(
                    f"{run.name}: its images may have several labels, and this is "
                    "about the only right class"
                )
            return run

        return self.collect(check, self.comparable_runs)

    def compute_logits(self, run: NamedRun) -> np.ndarray:
        """Return a run's logits of the whole split, float32 [N, K]; computed once."""
        if run.name not in self._logits:
            count = -(-len(self.split) // _READ_AT_ONCE)
            pieces = np.array_split(np.arange(len(self.split)), count)
            logits = [run.predict(self.read(piece)) for piece in pieces]
            self._logits[run.name] = np.concatenate(logits)
        return self._logits[run.name]


def spread(total: int, count: int) -> np.ndarray:
    """Return `count` of `total` positions, or all, evenly spread: int64 [n]."""
    count = min(count, total)
    return np.arange(count, dtype=np.int64) * total // count
