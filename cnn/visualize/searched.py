"""Where each channel answers strongest among many images, and which never answer."""

from collections.abc import Sequence

import numpy as np

from cnn.visualize import patches
from cnn.visualize.batches import map_batches
from cnn.visualize.features import Stage
from cnn.visualize.named_run import NamedRun


class Searched:
    """Images that peaks are searched in; what was found of a run is kept.

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
