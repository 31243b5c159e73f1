import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.ops import pixel_rows, scaling
from cnn.training import epoch

PIXELS = np.random.default_rng(5).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)


def test_split_undoes_join():
    rows = pixel_rows.join(PIXELS)
    np.testing.assert_array_equal(rows[1, 2, 0], PIXELS[1, 2].ravel())
    np.testing.assert_array_equal(pixel_rows.split(rows, 3), PIXELS)


@pytest.mark.parametrize("mean, std", [(0.5, 0.25), ((0.4, 0.5, 0.6), (0.2, 0.3, 0.1))])
def test_a_batch_is_scaled_as_each_image_to_the_bit(mean, std):
    scale = jax.jit(lambda x: scaling.scale_images(x, mean, std))
    found = scale(PIXELS)
    alone = [scale(image) for image in PIXELS]
    np.testing.assert_array_equal(found, np.stack(alone))
    whole = np.stack([PIXELS] * 2)
    np.testing.assert_array_equal(scale(whole)[1], found)


def test_batches_of_a_chunk_are_taken_whole():
    chunk = {"images": np.stack([PIXELS, PIXELS[::-1]]), "ids": jnp.arange(6)}
    chunk["ids"] = chunk["ids"].reshape(2, 3)
    taken = epoch.take_batch(chunk, 1)
    np.testing.assert_array_equal(taken["images"], PIXELS[::-1])
    np.testing.assert_array_equal(taken["ids"], [3, 4, 5])
