"""What pictures are of: trained runs, the images they see, and what they answer.

Everything is loaded when it is first asked for, and once.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnn import evaluate, predict
from cnn.data import load_dataset
from cnn.data.images import Dataset, Images
from cnn.errors import UserError, suggest
from cnn.visualize.chosen import Chosen, choose_files, choose_positions
from cnn.visualize.features import Stage, list_stages
from cnn.visualize.named_run import NamedRun, load_run, name_runs
from cnn.visualize.picture import Picture
from cnn.visualize.searched import Searched

if TYPE_CHECKING:
    from cnn.config import Config

_READ_AT_ONCE = 2000


class Subject:
    """What the pictures of one call are of; `note` says what cannot be drawn."""

    def __init__(self, config: "Config", directories: list[Path]) -> None:
        """Look at the runs of some directories; nothing is loaded yet."""
        self.config, self.directories = config, directories
        self._notes: list[str] = []
        self._logits: dict[str, np.ndarray] = {}
        self._stages: dict[str, tuple[Stage, ...]] = {}

    def note(self, text: str) -> None:
        """Say, in one sentence, what is not drawn and why."""
        if text not in self._notes:
            self._notes.append(text)

    def take_notes(self) -> tuple[str, ...]:
        """Return the notes since the last call."""
        notes, self._notes = tuple(self._notes), []
        return notes

    @functools.cached_property
    def runs(self) -> tuple[NamedRun, ...]:
        """Return the trained runs, whatever images they take; the others are noted.

        Raises:
            UserError: no directory holds a whole checkpoint.
        """
        loaded, errors = [], []
        names, which = name_runs(self.directories), self.config.checkpoint.checkpoint
        for name, directory in zip(names, self.directories, strict=True):
            try:
                run = load_run(directory, which)
            except UserError as error:
                errors.append(str(error))
                continue
            loaded.append(dataclasses.replace(run, name=name))
        if not loaded:
            raise UserError("; ".join(errors))
        for error in errors:
            self.note(error)
        return tuple(loaded)

    @property
    def fitting_runs(self) -> tuple[NamedRun, ...]:
        """Return the runs that take the images; the others are noted.

        Raises:
            UserError: none does.
        """

        def check(run: NamedRun) -> None:
            try:
                predict.check_image_shape(run.trained, self.image_shape)
            except UserError as error:
                raise UserError(f"{run.name}: {error}") from None

        return self._select(self.runs, check)

    @property
    def comparable_runs(self) -> tuple[NamedRun, ...]:
        """Return the runs that take the images and know their classes.

        The others are noted.

        Raises:
            UserError: none does.
        """
        return self._select(self.fitting_runs, self.check_classes)

    def _select(
        self, runs: Sequence[NamedRun], check: Callable[[NamedRun], None]
    ) -> tuple[NamedRun, ...]:
        """Return the runs that pass a check; the others are noted."""
        selected, errors = [], []
        for run in runs:
            try:
                check(run)
                selected.append(run)
            except UserError as error:
                errors.append(str(error))
        if not selected:
            raise UserError("; ".join(errors))
        for error in errors:
            self.note(error)
        return tuple(selected)

    def draw_runs(
        self, draw: Callable[[NamedRun], list[Picture]], runs: Sequence[NamedRun]
    ) -> list[Picture]:
        """Draw pictures of each run; what prevents those of one is noted."""
        pictures = []
        for run in runs:
            try:
                pictures += draw(run)
            except UserError as error:
                self.note(f"{run.name}: {error}")
        return pictures

    def name_file(self, folder: Path, run: NamedRun, *parts: str) -> Path:
        """Name a run's PNG, after the run too when there are several."""
        names = [run.name, *parts] if len(self.directories) > 1 else list(parts)
        return folder / ("_".join(names).replace("/", ".") + ".png")

    def get_stages(self, run: NamedRun) -> tuple[Stage, ...]:
        """Return a run's stages for the images that are looked at."""
        if run.name not in self._stages:
            self._stages[run.name] = list_stages(run.function, self.image_shape)
        return self._stages[run.name]

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

    @functools.cached_property
    def dataset(self) -> Dataset:
        """Return the dataset of the first run, or the one that the flags name."""
        return load_dataset(self.config.data)

    @functools.cached_property
    def split(self) -> Images:
        """Return the images of `--split`."""
        return evaluate.get_split(self.dataset, self.config.evaluate.split)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return (H, W, C) of what the models see."""
        size = self.config.data.image_size
        return (size, size, self.split.shape[2]) if size else self.split.shape

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Read the centre of images of the split: uint8 [n, H, W, C]."""
        images = self.split.read(np.asarray(positions))
        height, width, _ = self.image_shape
        top = (images.shape[1] - height) // 2
        left = (images.shape[2] - width) // 2
        return images[:, top : top + height, left : left + width]

    def sample(self, count: int) -> np.ndarray:
        """Return `count` positions, or all, spread evenly over the split."""
        total = len(self.split)
        count = min(count, total)
        return np.arange(count, dtype=np.int64) * total // count

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
        options = self.config.visualize
        if options.picture_files:
            pattern, shape = options.picture_files, self.image_shape
            return choose_files(pattern, shape, self.config.data, self.note)
        labels, split = self.split.labels, self.config.evaluate.split
        positions = choose_positions(options.picture_examples, labels, split)
        names = [
            f"{self.dataset.class_names[labels[position]]}\n#{position}"
            for position in positions
        ]
        return Chosen(self.read(positions), labels[positions], tuple(names))

    def get_class_names(self, run: NamedRun) -> tuple[str, ...]:
        """Return the names of a run's classes, the dataset's where it has none."""
        known, here = run.trained.class_names, self.dataset.class_names
        is_same = len(known) == len(here) and not run.trained.classes_are_named
        return here if is_same else known

    def check_classes(self, run: NamedRun) -> None:
        """Refuse to compare a run's answers with labels of other classes.

        Raises:
            UserError: naming both.
        """
        known, here = self.get_class_names(run), self.dataset.class_names
        if known != here:
            raise UserError(
                f"{run.name} knows {len(known)} classes ({known[0]}, …), "
                f"{self.dataset.name} has {len(here)} ({here[0]}, …): its answers "
                "cannot be compared with the labels"
            )

    def compute_logits(self, run: NamedRun) -> np.ndarray:
        """Return a run's logits of the whole split, float32 [N, K]; computed once."""
        if run.name not in self._logits:
            count = -(-len(self.split) // _READ_AT_ONCE)
            pieces = np.array_split(np.arange(len(self.split)), count)
            logits = [run.predict(self.read(piece)) for piece in pieces]
            self._logits[run.name] = np.concatenate(logits)
        return self._logits[run.name]
