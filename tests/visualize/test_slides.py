"""The slides show the lecture's numbers, at the step where they come up."""

import numpy as np
import pytest
import scipy.signal

from cnn.visualize.lecture import connections, lines, slides, slides_1d, slides_2d
from cnn.visualize.lecture.examples import (
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
        assert eval(left) == pytest.approx(float(right)), formulas[0]
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


FORMULAS = [
    *("alignment", "convolution_valid", "convolution_same", "convolution_full"),
    *("convolution_stride", "convolution_derivative", "convolution_2d"),
    *("convolution_2d_stride", "channels_1d", "layer_1d", "convolution_channels"),
    *("layer_2d", "max_pooling", "max_pooling_2d", "max_pooling_window"),
    *("average_pooling", "convolution_max_pooling"),
]


@pytest.mark.parametrize("name", FORMULAS)
def test_every_step_shows_what_its_lines_compute(name):
    make, _ = slides.SLIDES[name]
    numbers = np.ravel(lines.compute_number(name)).tolist()
    assert read_results(make()) == pytest.approx(numbers)


def test_image_scalings_show_the_lectures_numbers():
    drawing = slides.SLIDES["image_scalings"][0]()
    formulas = [drawing.list_texts(step)[-1] for step in range(3)]
    assert formulas[0] == "192 / 255 = 0.753"
    assert formulas[1] == "(192 / 255 − 0.5) / 0.5 = 0.506"
    for formula in formulas:
        left, right = formula.replace("−", "-").split(" = ")
        assert eval(left) == pytest.approx(float(right), abs=0.01)


def find_pixels(drawing, left, top, size):
    """Return the RGB of drawn pixels, blended as a browser does."""
    colours = {
        "ink": (0, 0, 0),
        "red": (1, 0, 0),
        "green": (0, 1, 0),
        "blue": (0, 0, 1),
    }
    shown = {}
    for e in drawing._elements:
        inside = e.numbers["x"] >= left and e.numbers["y"] >= top
        if e.style not in colours or not inside or e.numbers["width"] != size:
            continue
        place = (
            round((e.numbers["y"] - top) / size),
            round((e.numbers["x"] - left) / size),
        )
        below, own = np.array(shown.get(place, (1, 1, 1))), np.array(colours[e.style])
        blended = own if e.style == "ink" else below + own - below * own
        amount = e.numbers.get("fill-opacity", 1)
        shown[place] = amount * blended + (1 - amount) * below
    return shown


def test_colours_are_those_of_the_image():
    drawing = slides.SLIDES["image_channels"][0]()
    image = lines.image_channels()[0]
    found = find_pixels(drawing, 16, 74, 42)
    for (row, column), _ in np.ndenumerate(image[..., 0]):
        expected = image[row, column] / 255
        np.testing.assert_allclose(found[row, column], expected, atol=1e-6)
    assert "row 0, column 2: 255 red, 220 green, 60 blue" in drawing.list_texts(2)


def test_layouts_frame_the_three_numbers_of_a_pixel():
    drawing = slides.SLIDES["image_layouts"][0]()
    image, *_ = lines.image_layouts()
    text = "row 1, column 0 is at places 9, 10, 11 of NHWC, 3, 9, 15 of NCHW"
    assert text in drawing.list_texts(3)
    framed = [e.numbers for e in drawing._elements if e.style == "window"][3 * 7 + 1 :]
    written = {
        (e.numbers["x"], e.numbers["y"]): e.text
        for e in drawing._elements
        if e.style == "small"
    }
    numbers = [int(written[x["x"] + 19, x["y"] + 19]) for x in framed[:6]]
    assert numbers == [*image[0, 1, 0]] * 2


def test_a_bias_and_a_relu_leave_what_is_above_a_threshold():
    drawing = slides.SLIDES["feature_detectors"][0]()
    y, biased, detected = (np.asarray(x) for x in lines.feature_detectors()[-3:])
    np.testing.assert_array_equal(detected, np.where(y > 2, y - 2, 0))
    texts = [e for e in drawing._elements if e.tag == "text"]
    heads = ("1. convolution", "2. + bias", "3. ReLU")
    for step, (head, shown) in enumerate(
        zip(heads, (y, biased, detected), strict=True)
    ):
        (left,) = (e.numbers["x"] for e in texts if e.text == head)
        mine = [e for e in texts if left < e.numbers["x"] < left + 4 * 32]
        assert {e.during for e in mine} == {range(step, 3)}
        written = [float(e.text.replace("−", "-")) for e in mine]
        assert written == np.moveaxis(shown[0], -1, 0).ravel().tolist()


def test_any_size_takes_the_same_weights():
    drawing = slides.SLIDES["global_average_pooling"][0]()
    assert "75 / 49 = 1.5306" in drawing.list_texts(0)
    assert "class 1:  1.5306·(−1) + 3 = 1.47" in drawing.list_texts(0)
    assert "class 1:  2.1000·(−1) + 3 = 0.9" in drawing.list_texts(1)


def test_mixed_labels_have_bars_of_their_shares():
    drawing = slides.SLIDES["mix_up"][0]()
    images, mixed, targets = (np.asarray(x) for x in lines.mix_up())
    np.testing.assert_allclose(
        mixed, np.einsum("si,ihwc->shwc", targets, images), atol=1e-6
    )
    for step, target in enumerate(targets):
        bars = [
            e.numbers["width"]
            for e in drawing._elements
            if e.style == "bar" and e.during == range(step, step + 1)
        ]
        np.testing.assert_allclose(bars, 110 * target)
    cut = slides.SLIDES["cut_out"][0]()
    original, covered, _ = (np.asarray(x) for x in lines.cut_out())
    assert cut.steps == len(covered) == 3
    assert ((covered != original) <= (covered == 0.5)).all()
    assert len({x.tobytes() for x in covered}) == 3, "elsewhere in each epoch"


def test_every_slide_can_be_drawn_within_its_edges():
    for name, (make, caption) in slides.SLIDES.items():
        drawing = make()
        assert caption.endswith("."), name
        assert 16 + 10 * len(drawing.title) <= drawing.width, "bold, 17 px"
        for element in drawing._elements:
            numbers = element.numbers
            if element.tag == "rect":
                assert numbers["x"] + numbers["width"] <= drawing.width, name
                assert numbers["y"] + numbers["height"] <= drawing.height, name
            elif element.tag == "text":
                room = drawing.width - numbers["x"]
                room *= 1 if "left" in element.style else 2
                assert 6.5 * len(element.text) <= room, (name, element.text)
