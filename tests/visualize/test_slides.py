"""The slides show the lecture's numbers, at the step where they come up."""

import numpy as np
import pytest
import scipy.signal

from cnn.visualize.lecture import connections, demonstrations, slides_1d, slides_2d
from cnn.visualize.lecture.demonstrations import (
    ALIGNED,
    IMAGE,
    KERNEL,
    KERNEL_1D,
    SEQUENCE,
    WEIGHTS,
)
from cnn.visualize.lecture.svg import format_sum

VALID = [
    [-10, -11, -15, -20, -17],
    [-25, -16, 7, 1, -8],
    [24, 2, -17, -2, 12],
    [10, -6, -8, 4, 4],
    [-17, 0, 11, 3, -8],
]


def read_results(drawing):
    """Return the right side of the formula of every step; the left side equals it."""
    results = []
    for step in range(drawing.steps):
        formulas = [t for t in drawing.list_texts(step)[1:] if " = " in t]
        assert len(formulas) == 1, "one formula a step"
        left, right = formulas[0].replace("−", "-").replace("·", "*").split(" = ")
        assert eval(left) == float(right), formulas[0]
        results.append(float(right))
    return results


def test_lecture_window_of_one_dimension():
    drawing = slides_1d.convolve(SEQUENCE, KERNEL_1D)
    assert "5·(−1) + 7·3 + 0·(−1) = 16" in drawing.list_texts(3)
    assert read_results(drawing) == [4, 12, 1, 16, -9]


def test_lecture_alignment():
    drawing = slides_1d.align(ALIGNED, WEIGHTS)
    assert drawing.steps == 2
    assert "0.2·0.8 + 0.5·0.8 + 0.3·0.2 = 0.62" in drawing.list_texts(0)
    assert "0.7·0.8 + 0.3·0.8 + 1·0.2 = 1" in drawing.list_texts(1)
    (marked,) = (e for e in drawing._elements if "best match" in e.text)
    best = [e for e in drawing._elements if e.style == "new"][1]
    assert 0 < marked.numbers["x"] - best.numbers["x"] - best.numbers["width"] < 20


@pytest.mark.parametrize(
    "padding, length, formula",
    [("valid", 5, "7 − (3 − 1)"), ("same", 7, "7 inputs"), ("full", 9, "7 + (3 − 1)")],
)
def test_padding(padding, length, formula):
    drawing = slides_1d.convolve(SEQUENCE, KERNEL_1D, padding)
    expected = np.convolve(SEQUENCE, KERNEL_1D[::-1], padding)
    assert read_results(drawing) == expected.tolist()
    assert drawing.steps == length
    assert drawing.title.endswith(f"{formula} = {length} outputs")
    drawn = drawing.to_svg(0).count('class="padding"')
    assert drawn == length + 2 - 7


def test_stride_keeps_every_other_answer():
    drawing = slides_1d.convolve(SEQUENCE, KERNEL_1D, stride=2)
    assert read_results(drawing) == [4, 1, -9]
    assert "⌈(7 − (3 − 1)) / 2⌉ = 3 outputs" in drawing.title


def test_answers_appear_one_by_one_and_stay():
    drawing = slides_1d.convolve(SEQUENCE, KERNEL_1D)
    for step in range(drawing.steps):
        assert drawing.to_svg(step).count('class="output"') == step + 1


def test_derivative_is_the_full_convolution_with_the_flipped_kernel():
    kernel, gradient = (-1, 3, 2), (1, -2, 0, 3, 1)
    drawing = slides_1d.differentiate(SEQUENCE, kernel, gradient)
    assert read_results(drawing) == np.convolve(gradient, kernel, "full").tolist()
    assert drawing.list_texts(0)[:4] == [drawing.title, *drawing.list_texts(1)[1:4]]
    assert "0·2 + 0·3 + 1·(−1) = −1" in drawing.list_texts(0)


def test_lecture_pooling():
    drawing = slides_1d.max_pool((1, 4, 7, 5, 2, 0, 3), 3, 2)
    assert "max(1, 4, 7) = 7" in drawing.list_texts(0)
    assert read_results(drawing) == [7, 7, 3]
    drawing = slides_2d.max_pool(IMAGE, 3, 2)
    assert read_results(drawing) == [9, 9, 7, 7, 5, 4, 7, 6, 6]
    assert "max(1, 1, 7, 2, 1, −2, 5, 4, −2) = 7" in slides_2d.max_pool(
        IMAGE, 3, 1
    ).list_texts(1 * 5 + 3)


def test_lecture_image():
    drawing = slides_2d.convolve(IMAGE, KERNEL)
    assert read_results(drawing) == np.ravel(VALID).tolist()
    step = 1 * 5 + 3
    assert "1·(−1) + 1·(−2) + 7·(−1) + 5·1 + 4·2 + (−2)·1 = 1" in drawing.list_texts(
        step
    )
    strided = slides_2d.convolve(IMAGE, KERNEL, 2)
    assert read_results(strided) == np.array(VALID)[::2, ::2].ravel().tolist()


def test_channels_are_summed():
    random = np.random.default_rng(0)
    x, kernel = random.integers(-5, 6, (4, 4, 3)), random.integers(-2, 3, (3, 3, 3))
    parts = np.stack(
        [scipy.signal.correlate2d(x[..., c], kernel[..., c], "valid") for c in range(3)]
    )
    drawing = slides_2d.convolve_channels(x, kernel)
    assert read_results(drawing) == parts.sum(axis=0).ravel().tolist()
    assert format_sum(parts[:, 0, 1], parts.sum(axis=0)[0, 1]) in drawing.list_texts(1)


def test_shuffling_moves_every_number_once():
    x = np.arange(16).reshape(4, 4)
    drawing = slides_2d.shuffle(x)
    last = drawing.list_texts(3)
    for number in range(16):
        assert last.count(str(number)) == 2, "once in the image, once in a channel"
    first = drawing.list_texts(0)
    assert [n for n in range(16) if first.count(str(n)) == 2] == [0, 1, 4, 5]
    inverse = slides_2d.shuffle(x, inverse=True)
    first = inverse.list_texts(0)
    assert [n for n in range(16) if first.count(str(n)) == 2] == [0, 1, 4, 5]
    for slide in (drawing, inverse):
        styles = [e.style for e in slide._elements]
        first = min(styles.index("new"), styles.index("window"))
        assert set(styles[first:]) == {"new", "window"}, "no cell covers a frame"
        places = {
            (e.text, e.numbers["x"], e.numbers["y"])
            for e in slide._elements
            if e.tag == "text"
        }
        frames = [e for e in slide._elements if e.style in ("new", "window")]
        left, top = (min(e.numbers[axis] for e in frames) for axis in "xy")
        at_left = {e.style for e in frames if e.numbers["x"] == left}
        assert at_left == {"window"}, "what is read stands left"
        (image,) = (e for e in slide._elements if e.text == ("xy"[slide is inverse]))
        left = image.numbers["x"]
        for (row, column), number in np.ndenumerate(x):
            spot = (left + (column + 0.5) * slides_2d._CELL,)
            spot += (top + (row + 0.5) * slides_2d._CELL,)
            assert (str(number), *spot) in places
    assert "4×4×1 → 2×2×4" in drawing.title and "2×2×4 → 4×4×1" in inverse.title


def test_connections_of_the_three_layers():
    dense, local, convolution = connections.find_layers(length=6, size=3)
    counts = [(x.num_connections, x.num_weights) for x in (dense, local, convolution)]
    assert counts == [(24, 24), (12, 12), (12, 3)]
    np.testing.assert_array_equal(
        convolution.weights,
        [
            [1, 2, 3, 0, 0, 0],
            [0, 1, 2, 3, 0, 0],
            [0, 0, 1, 2, 3, 0],
            [0, 0, 0, 1, 2, 3],
        ],
    )
    assert np.array_equal(local.weights > 0, convolution.weights > 0)


def test_shared_weights_look_alike():
    layers = connections.find_layers()
    drawn = [connections.draw(layer).to_svg() for layer in layers]
    assert [text.count("<line") for text in drawn] == [24, 12, 12 + 3]
    for place in range(3):
        assert drawn[2].count(f'class="weight{place}"') == 4 + 1
        assert f'class="weight{place}"' not in drawn[0] + drawn[1]
    assert "12 connections, 3 weights" in drawn[2]


def test_every_demonstration_can_be_drawn_within_its_edges():
    for name, (make, caption) in demonstrations.SLIDES.items():
        drawing = make()
        assert caption.endswith("."), name
        assert 16 + 10 * len(drawing.title) <= drawing.width, "bold, 17 px"
        for element in drawing._elements:
            numbers = element.numbers
            if element.tag == "rect":
                assert numbers["x"] + numbers["width"] <= drawing.width, name
                assert numbers["y"] + numbers["height"] <= drawing.height, name
