import numpy as np
import pytest

from cnn.data import images, statistics
from cnn.errors import UserError


@pytest.fixture
def examples():
    pixels = np.random.RandomState(0).randint(0, 256, (37, 5, 4, 3), dtype=np.uint8)
    pixels[..., 1] = 51
    return images.from_array(pixels, np.zeros(37, int))


def test_mean_and_std_are_those_of_numpy(examples, monkeypatch):
    monkeypatch.setattr(statistics, "_CHUNK_BYTES", 5 * 4 * 3 * 10)
    mean, std = statistics.compute_mean_std(examples)
    pixels = examples.read(np.arange(37)) / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(
        np.array(std)[[0, 2]], pixels.std((0, 1, 2))[[0, 2]], rtol=1e-12
    )


def test_constant_channel_has_std_one(examples):
    mean, std = statistics.compute_mean_std(examples)
    assert mean[1] == pytest.approx(0.2) and std[1] == 1.0


def test_order_does_not_matter(examples):
    turned = examples.take(np.arange(37)[::-1])
    assert statistics.compute_mean_std(examples) == statistics.compute_mean_std(turned)


def test_scalings(examples):
    scale = statistics.compute_scaling
    assert scale("unit", (), (), examples) == ((0.0,) * 3, (1.0,) * 3)
    assert scale("symmetric", (), (), examples) == ((0.5,) * 3, (0.5,) * 3)
    computed = statistics.compute_mean_std(examples)
    assert scale("standardize", (), (), examples) == computed
    given = (0.1, 0.2, 0.3), (1.0, 2.0, 3.0)
    assert scale("standardize", *given, examples) == given
    assert scale("standardize", given[0], (), examples) == (given[0], computed[1])
    assert scale("standardize", (0.5,), (0.25,), examples) == ((0.5,) * 3, (0.25,) * 3)


def test_wrong_number_of_channels(examples):
    with pytest.raises(UserError, match="--std=1.0,2.0: .*give 3 numbers"):
        statistics.compute_scaling("standardize", (), (1.0, 2.0), examples)
