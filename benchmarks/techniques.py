"""What each technique of training is worth: a table and a plot.

    python benchmarks/techniques.py --data_dir=DIR --teacher=resnet20-12fca82f.th \\
        [--seeds=3] [--epochs=10] [--examples=50000] [--models=simple_cnn,resnet20]

Trains each model on tfds:cifar10_jpeg with the preset's recipe alone and with each
technique added, writes docs/techniques_MODEL.png and prints a Markdown table: test
accuracy, mean ± half of its 95 % interval over the seeds by Student's t, the paired
difference from the recipe alone likewise, and seconds a run. The teacher is the
published ResNet-20 of github.com/akamaster/pytorch_resnet_cifar10. A result that is in
--results is not made again, so that the command may be stopped.
"""

import argparse
import statistics
from pathlib import Path

import flags
import variants

TECHNIQUES = {
    "recipe": [],
    "SAM": ["--sam_rho=0.05"],
    "distillation": [
        "--teacher={teacher}",
        "--teacher_model=resnet20",
        "--teacher_mean=0.485,0.456,0.406",
        "--teacher_std=0.229,0.224,0.225",
    ],
    "BCE, mix-up": ["--loss=bce", "--loss_reduction=sum", "--mixup_alpha=0.2"],
    "EMA": ["--ema_decay=0.99"],
    "progressive sizes": ["--image_size_schedule={sizes}"],
}
PRESETS = {"simple_cnn": "cifar10_simple_cnn", "resnet20": "cifar10_resnet20"}


def measure(
    model: str, name: str, seed: int, options: argparse.Namespace
) -> tuple[float, float]:
    """Return test accuracy in percent, and seconds, of one run."""
    third = options.epochs // 3
    sizes = f"0:16,{third}:24,{2 * third}:32"
    given = [f"--config={PRESETS[model]}", "--dataset=tfds:cifar10_jpeg"]
    given += [f"--data_dir={options.data_dir}", f"--seed={seed}"]
    given += [f"--epochs={options.epochs}", f"--eval_every_epochs={options.epochs}"]
    given += ["--flip_probability=0.5"] if model == "simple_cnn" else []
    if options.examples < 50_000:
        given.append(f"--train_examples={options.examples}")
    for flag in TECHNIQUES[name]:
        given.append(flag.format(teacher=options.teacher, sizes=sizes))
    workdir = Path(options.results) / f"{model},{name.replace(', ', '_')},{seed}"
    result = variants.train(given, workdir)
    return 100 * result["test_accuracy"], result["seconds"]


def main() -> None:
    """Measure every technique on every model, print the tables, draw the plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="~/tensorflow_datasets")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--seeds", type=flags.positive, default=3)
    parser.add_argument("--epochs", type=flags.positive, default=10)
    parser.add_argument("--examples", type=flags.positive, default=50_000)
    parser.add_argument("--models", default="simple_cnn,resnet20")
    parser.add_argument("--results", default="runs/techniques")
    options = parser.parse_args()
    if options.epochs < 3:
        parser.error("--epochs: at least 3, one for each of the progressive sizes")
    for model in options.models.split(","):
        found: dict[str, list[float]] = {}
        print(
            f"| {model} | test accuracy, % | difference | seconds |\n|---|---|---|---|"
        )
        for name in TECHNIQUES:
            runs = [measure(model, name, s, options) for s in range(options.seeds)]
            found[name] = [accuracy for accuracy, _ in runs]
            mean, seconds = (
                statistics.mean(values) for values in zip(*runs, strict=True)
            )
            gains = [x - y for x, y in zip(found[name], found["recipe"], strict=True)]
            gain, half = statistics.mean(gains), variants.find_interval(gains)
            spread = variants.find_interval(found[name])
            print(
                f"| {name} | {mean:.2f} ± {spread:.2f} | {gain:+.2f} ± {half:.2f} "
                f"| {seconds:.0f} |",
                flush=True,
            )
        title = f"{model}, {options.examples:,} training images of cifar10_jpeg"
        path = variants.ROOT / "docs" / f"techniques_{model}.png"
        variants.draw(found, "recipe", title, path)


if __name__ == "__main__":
    flags.run(main)
