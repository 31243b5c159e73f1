import numpy as np
import pytest
import scipy.ndimage

from cnn.visualize.lecture import photograph


@pytest.fixture(scope="module")
def image():
    return photograph.load_photograph()


def test_photograph_is_there_without_a_network(image):
    assert image.shape == (320, 320, 3) and image.dtype == np.float32
    assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.1


def test_filters_equal_scipy(image):
    grey = image.mean(axis=-1)
    answers = photograph.apply_filters(image)
    assert list(answers) == list(photograph.FILTERS) and len(answers) == 8
    for name, kernel in photograph.FILTERS.items():
        expected = scipy.ndimage.correlate(grey, kernel, mode="nearest")
        np.testing.assert_allclose(answers[name], expected, atol=1e-5, err_msg=name)


def test_shrinking_equals_numpy(image):
    shrunk = photograph.shrink(image, 8)
    blocks = image.reshape(40, 8, 40, 8, 3)
    np.testing.assert_array_equal(shrunk["stride"], image[::8, ::8])
    np.testing.assert_array_equal(shrunk["max_pool"], blocks.max(axis=(1, 3)))
    averages = blocks.mean(axis=(1, 3))
    np.testing.assert_allclose(shrunk["avg_pool"], averages, atol=1e-5)
    assert shrunk["blur, then stride"].shape == (40, 40, 3)
    deep = shrunk["space_to_depth"]
    np.testing.assert_array_equal(deep[..., :3], image[::8, ::8])
    assert np.array_equal(np.sort(deep, axis=None), np.sort(image, axis=None))
