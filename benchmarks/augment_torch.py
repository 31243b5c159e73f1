"""The part of benchmarks/augment.py that needs torch: measures what stdin names.

  python benchmarks/augment_torch.py SIZE BATCH   then lines `PEER CASE`

torchvision draws once a call, hence image by image; kornia draws for each image of a
batch. Both get float or uint8 images as their documentation prefers, and scale.
"""

import json
import sys
import time

import torch


def make_torchvision(case, size):
    """Return (image transforms, batch transform) or None."""
    from torchvision.transforms import v2

    affine = v2.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), 10, interpolation=BILINEAR)
    jitter = v2.ColorJitter(0.2, 0.2, 0.2)
    crop = v2.RandomCrop(size, padding=4)
    flip, resized = v2.RandomHorizontalFlip(), v2.RandomResizedCrop(size)
    normalize = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.25])]
    cutout = v2.RandomErasing(1.0, scale=(64 / size**2,) * 2, ratio=(1.0, 1.0))
    mixup = v2.MixUp(alpha=0.2, num_classes=10)
    jitter_strong = v2.ColorJitter(0.4, 0.4, 0.4)
    before = {
        "cifar_standard": [crop, flip],
        "cifar_strong": [crop, flip, affine, jitter],
        "imagenet": [resized, flip, jitter_strong, v2.RandAugment()],
        "flip": [flip],
        "crop": [crop],
        "crop_reflect": [v2.RandomCrop(size, padding=4, padding_mode="reflect")],
        "random_resized_crop": [resized],
        "rotation": [v2.RandomRotation(15, interpolation=BILINEAR)],
        "affine": [v2.RandomAffine(15, (0.1, 0.1), None, 10, interpolation=BILINEAR)],
        "brightness": [v2.ColorJitter(brightness=0.4)],
        "contrast": [v2.ColorJitter(contrast=0.4)],
        "saturation": [v2.ColorJitter(saturation=0.4)],
        "hue": [v2.ColorJitter(hue=0.1)],
        "posterize": [v2.RandomPosterize(4, 1.0)],
        "solarize": [v2.RandomSolarize(128, 1.0)],
        "autocontrast": [v2.RandomAutocontrast(1.0)],
        "equalize": [v2.RandomEqualize(1.0)],
        "sharpness": [v2.RandomAdjustSharpness(1.5, 1.0)],
        "blur": [v2.GaussianBlur(9, (0.1, 1.0))],
        "randaugment": [v2.RandAugment()],
        "trivialaugment": [v2.TrivialAugmentWide()],
        "augmix": [v2.AugMix()],
    }
    after = {"cifar_strong": [cutout], "cutout": [cutout]}
    after["erasing"] = [v2.RandomErasing(1.0)]
    mixes = {"cifar_strong": mixup, "mixup": mixup}
    mixes["cutmix"] = v2.CutMix(num_classes=10)
    if case not in before and case not in after and case not in mixes:
        return None
    steps = before.get(case, []) + normalize + after.get(case, [])
    mix = mixes.get(case)

    def run(images, labels):
        done = []
        for image in images:
            for step in steps:
                image = step(image)
            done.append(image)
        batch = torch.stack(done)
        return mix(batch, labels) if mix else batch

    return run


def make_kornia(case, size):
    """Return a function of the batch, or None."""
    import kornia.augmentation as K

    crop = K.RandomCrop((size, size), padding=4)
    flip = K.RandomHorizontalFlip()
    resized = K.RandomResizedCrop((size, size))
    affine = K.RandomAffine(15.0, (0.1, 0.1), (0.9, 1.1), 10.0)
    cutout = K.RandomErasing((64 / size**2,) * 2, (1.0, 1.0), p=1.0)
    mixup = K.RandomMixUpV2(p=1.0, data_keys=["input", "class"])
    jitter = K.ColorJiggle(0.2, 0.2, 0.2)
    auto = K.auto.RandAugment(2, 9)
    cases = {
        "cifar_standard": [crop, flip],
        "cifar_strong": [crop, flip, affine, jitter, cutout],
        "imagenet": [resized, flip, K.ColorJiggle(0.4, 0.4, 0.4), auto],
        "flip": [flip],
        "crop": [crop],
        "crop_reflect": [K.RandomCrop((size, size), padding=4, padding_mode="reflect")],
        "random_resized_crop": [resized],
        "rotation": [K.RandomRotation(15.0, p=1.0)],
        "affine": [K.RandomAffine(15.0, (0.1, 0.1), None, 10.0, p=1.0)],
        "brightness": [K.RandomBrightness((0.6, 1.4), p=1.0)],
        "contrast": [K.RandomContrast((0.6, 1.4), p=1.0)],
        "saturation": [K.RandomSaturation((0.6, 1.4), p=1.0)],
        "hue": [K.RandomHue((-0.1, 0.1), p=1.0)],
        "posterize": [K.RandomPosterize(4, p=1.0)],
        "solarize": [K.RandomSolarize(0.5, p=1.0)],
        "autocontrast": [K.RandomAutoContrast(p=1.0)],
        "equalize": [K.RandomEqualize(p=1.0)],
        "sharpness": [K.RandomSharpness(0.5, p=1.0)],
        "blur": [K.RandomGaussianBlur((9, 9), (0.1, 1.0), p=1.0)],
        "cutout": [cutout],
        "erasing": [K.RandomErasing(p=1.0)],
        "mixup": [mixup],
        "cutmix": [K.RandomCutMixV2(p=1.0)],
        "randaugment": [auto],
        "trivialaugment": [K.auto.TrivialAugment()],
    }
    if case not in cases:
        return None
    sequence = K.AugmentationSequential(*cases[case], data_keys=["input"])
    mixes = case in ("mixup", "cutmix")
    if mixes:
        sequence = K.AugmentationSequential(*cases[case], data_keys=["input", "class"])

    def run(images, labels):
        floats = images.float() / 255
        done = sequence(floats, labels) if mixes else sequence(floats)
        batch = done[0] if mixes else done
        if case == "cifar_strong":
            batch = mixup(batch, labels)[0]
        return (batch - 0.5) / 0.25

    return run


def main():
    """Answer each line with the CPU seconds that a batch took, or null."""
    global BILINEAR
    from torchvision.transforms import InterpolationMode

    BILINEAR = InterpolationMode.BILINEAR
    size, batch = map(int, sys.argv[1:])
    torch.manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    labels, known = torch.randint(0, 10, (batch,)), {}
    makers = {"torchvision": make_torchvision, "kornia": make_kornia}
    for line in sys.stdin:
        peer, case = line.split()
        try:
            if (peer, case) not in known:
                known[peer, case] = makers[peer](case, size)
            run = known[peer, case]
            if run is None:
                print("null", flush=True)
                continue
            started, count = time.process_time(), 0
            while time.process_time() - started < 0.1 or count < 2:
                run(images, labels)
                count += 1
            print(json.dumps((time.process_time() - started) / count), flush=True)
        except Exception as error:
            print(f"{peer} {case}: {type(error).__name__}: {error}", file=sys.stderr)
            known[peer, case] = None
            print("null", flush=True)


if __name__ == "__main__":
    main()
