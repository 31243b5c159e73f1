"""What files beside weights say of images."""

import json

import pytest

from cnn.errors import UserError
from cnn.weights import beside

TIMM = {"input_size": [3, 224, 224], "mean": [0.5], "std": [0.25]}
SCALED = {"mean": (0.5,), "std": (0.25,)}


def read(folder, config, processor=None, name="model.safetensors", is_theirs=False):
    (folder / "config.json").write_text(json.dumps(config))
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return beside.read(folder / name, is_theirs)


def sizes(image_size, mode, resize_size, interpolation):
    names = ("image_size", "resize_mode", "resize_size", "resize_interpolation")
    return dict(zip(names, (image_size, mode, resize_size, interpolation), strict=True))


@pytest.mark.parametrize(
    "more, expected",
    [
        ({}, sizes(224, "crop", 256, "bilinear")),
        (
            {"crop_pct": 0.95, "interpolation": "bicubic"},
            sizes(224, "crop", 235, "bicubic"),
        ),
        ({"crop_pct": 1.0, "crop_mode": "squash"}, sizes(224, "squash", 0, "bilinear")),
        ({"crop_mode": "border"}, {}),
        ({"input_size": [3, 224, 240]}, {}),
        ({"interpolation": "lanczos"}, {}),
    ],
)
def test_timm(tmp_path, more, expected):
    config = {"architecture": "resnet18", "pretrained_cfg": TIMM | more}
    found = read(tmp_path, config)
    assert found.options == expected | SCALED | ({"channels": 3} if expected else {})
    assert found.architecture == "resnet18" and found.class_names == ()


@pytest.mark.parametrize(
    "processor, expected",
    [
        (
            {
                "image_processor_type": "ConvNextImageProcessor",
                "size": {"shortest_edge": 224},
                "resample": 3,
            },
            sizes(224, "crop", 256, "bicubic"),
        ),
        (
            {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 384},
            sizes(384, "squash", 0, "bilinear"),
        ),
        (
            {
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 224},
                "size": {"shortest_edge": 256},
                "resample": 2,
            },
            sizes(224, "crop", 256, "bilinear"),
        ),
        (
            {"size": {"height": 224, "width": 224}, "resample": 0},
            sizes(224, "squash", 0, "nearest"),
        ),
        ({"size": {"shortest_edge": 256}}, {}),
        ({"size": 224, "resample": 1}, {}),
        ({}, {}),
    ],
)
def test_transformers(tmp_path, processor, expected):
    labels = {"1": "dog", "0": "cat", "10": "fox"}
    config = {"architectures": ["ResNetForImageClassification"], "id2label": labels}
    scaled = {"image_mean": [0.5], "image_std": [0.25]}
    found = read(tmp_path, config, scaled | processor)
    assert found.options == expected | SCALED
    assert found.class_names == ("cat", "dog", "fox")


@pytest.mark.parametrize(
    ("more", "scaled", "is_sized"),
    [
        ({}, {"mean": (0.5,), "std": (0.25,)}, True),  # divided by std twice
        ({"include_top": False}, {"mean": (0.5,), "std": (0.5,)}, True),
        ({"rescale_offset": True}, {}, True),
        ({"do_normalize": False}, {}, True),
        ({"do_resize": False}, {"mean": (0.5,), "std": (0.25,)}, False),
    ],
)
def test_efficientnet_of_transformers(tmp_path, more, scaled, is_sized):
    processor = {"image_processor_type": "EfficientNetImageProcessor", "size": 224}
    processor |= {"image_mean": [0.5], "image_std": [0.5]} | more
    found = read(tmp_path, {"architectures": ["EfficientNet"]}, processor)
    expected = sizes(224, "squash", 0, "bilinear") if is_sized else {}
    assert found.options == expected | scaled


def test_numbers_as_labels_are_no_names(tmp_path):
    labels = {"0": "LABEL_0", "1": "LABEL_1"}
    found = read(tmp_path, {"architectures": ["x"], "id2label": labels})
    assert found.class_names == () and found.options == {}


def test_a_config_of_something_else_says_nothing(tmp_path):
    config = {"architecture": "resnet18", "pretrained_cfg": TIMM}
    assert read(tmp_path, {"model": "mlp"}) is None
    assert read(tmp_path, ["no mapping"]) is None
    unsure = read(tmp_path, config, name="mine.pth")
    assert unsure.architecture == "resnet18" and not unsure.options
    assert read(tmp_path, config, name="mine.pth", is_theirs=True) is not None


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "x", "pretrained_cfg": {"input_size": [3]}},
        {"architecture": "x", "pretrained_cfg": {"mean": 3, "std": 2}},
        {"architectures": ["x"], "id2label": {"a": "b"}},
        {"architectures": ["x"], "id2label": {"0": "=1+1"}},
        {"architecture": ["x"], "pretrained_cfg": TIMM},
        {"architecture": "x", "pretrained_cfg": TIMM | {"crop_pct": 1e-300}},
        {"architecture": "x", "pretrained_cfg": TIMM | {"input_size": [3, -4, -4]}},
        {"architecture": "x", "pretrained_cfg": TIMM | {"input_size": [9, 8, 8]}},
        {"architecture": "x", "pretrained_cfg": TIMM | {"std": [float("nan")]}},
        {"architecture": "x", "pretrained_cfg": TIMM | {"mean": [123.7]}},
    ],
)
def test_a_config_that_makes_no_sense_is_named(tmp_path, config):
    with pytest.raises(UserError, match="config.json, beside the weights"):
        read(tmp_path, config)


def test_classes_of_an_export_are_text(tmp_path):
    seen = {"image_size": [8, 9], "mean": [0.5], "std": [0.5]}
    found = {"files": {"w": "torch"}, "input": seen, "classes_are_named": True}
    (tmp_path / "model.json").write_text(json.dumps(found | {"classes": ["a", 3]}))
    with pytest.raises(UserError, match="model.json, beside the weights.*no text"):
        beside.read(tmp_path / "w", is_theirs=False)


@pytest.mark.parametrize("name", ["config", "preprocessor_config", "model"])
@pytest.mark.parametrize("content", ["[" * 100_000, '{"a": '])
def test_a_damaged_file_is_named_once_with_what_to_do(name, content, tmp_path):
    known = {"architectures": ["x"]}
    (tmp_path / "config.json").write_text(json.dumps(known))
    path = tmp_path / f"{name}.json"
    path.write_text(content)
    with pytest.raises(UserError, match="is damaged.*mend it or move it away") as error:
        beside.read(tmp_path / "w", is_theirs=False)
    assert (
        str(error.value).startswith(str(path)) and str(error.value).count(".json") == 1
    )


def test_a_model_json_of_other_files_says_nothing(tmp_path):
    for files in ({"other": "torch"}, 3, None, "w", ["w"]):
        (tmp_path / "model.json").write_text(json.dumps({"files": files}))
        assert beside.read(tmp_path / "w", is_theirs=False) is None
