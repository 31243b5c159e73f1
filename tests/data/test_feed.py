import numpy as np
import pytest

from cnn.data import decode, feed
from cnn.data.feed import FeedOptions


@pytest.mark.parametrize("channels", [1, 3])
def test_files_are_of_their_size(channels):
    content = feed.make_jpeg(40, channels)
    pixels = decode.decode(content, decode.Layout())
    assert pixels.shape == (40, 40, channels) and 10 < pixels.std() < 80
    assert content == feed.make_jpeg(40, channels) != feed.make_jpeg(40, channels, 1)


def test_density_is_that_of_a_photograph():
    """ImageNet's files have about 5 bits a pixel, at about 400x500 pixels."""
    bits = 8 * len(feed.make_jpeg(224, 3)) / 224**2
    assert 1.5 < bits < 5


@pytest.mark.parametrize(
    "step, decoded, cores", [(100, 50, 2), (101, 50, 3), (1, 50, 1)]
)
def test_cores(step, decoded, cores):
    assert feed.count_cores(step, decoded) == cores
    lines, found = feed.describe_cores(FeedOptions(step, decoded), 32, 3)
    assert found == {"feed": {"decode_images_per_second": decoded, "cores": cores}}
    assert f"{cores} feed a step of {step} images/s" in lines[0]


def test_a_core_is_measured_when_its_rate_is_not_told(monkeypatch):
    monkeypatch.setattr(feed, "_SECONDS", 0.02)
    lines, found = feed.describe_cores(FeedOptions(1000.0), 16, 1)
    rate = found["feed"]["decode_images_per_second"]
    assert rate > 100 and found["feed"]["cores"] == np.ceil(1000 / rate)
    assert "synthetic 16x16 JPEG" in lines[0]
    assert feed.describe_cores(FeedOptions(), 16, 1) == ([], {})
