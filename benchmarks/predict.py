"""Image files a second through --mode=predict, beside PyTorch's DataLoader.

    python benchmarks/predict.py --torch_python=PYTHON [--model=resnet18] [--size=224]
        [--images=5000] [--rounds=3] [--workers=2] [--batch_size=64]
        [--torch_layout=default] [--folder=DIR] [--json=FILE]

JPEG files of 500x375 pixels are made, unless a folder is given. Both classify them with
the same weights, which torchvision draws, and write a CSV file; what counts are the
seconds of the whole process, its start included, in turns, on the cores that this one
may use. PyTorch reads with `DataLoader` and torchvision's `Resize` and `CenterCrop` of
Pillow's images. The peak of memory is the main process's; PyTorch's workers come on top
of it. Of how many images both find the same class is printed too.
"""

import argparse
import csv
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import flags
import photos

from cnn.errors import UserError

WIDTH, HEIGHT, CONTENTS = 500, 375, 64


def make_folder(folder: Path, count: int) -> None:
    """Write JPEG files of 64 different contents."""
    folder.mkdir()
    contents = [photos.make_waves(WIDTH, HEIGHT, seed) for seed in range(CONTENTS)]
    for number in range(count):
        (folder / f"{number:06}.jpg").write_bytes(contents[number % CONTENTS])


@dataclasses.dataclass(frozen=True)
class Round:
    """What a process took: seconds, those of all cores, and its peak in GB."""

    seconds: float
    cpu_seconds: float
    peak: float


def run(command: list[str]) -> Round:
    """Run a command; its workers' seconds are counted, their memory is not."""
    started = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise UserError(f"{' '.join(command)} failed; its error is above")
    seconds, cpu = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
    return Round(seconds, cpu, usage.ru_maxrss * 1024 / 1e9)


def make_commands(options: argparse.Namespace, place: Path) -> dict[str, list[str]]:
    """Draw the weights, make a run of them, and return a command for each contender."""
    torch_script = str(Path(__file__).with_name("torch_predict.py"))
    torch, weights = [options.torch_python, torch_script], str(place / "weights.pth")
    main = [sys.executable, str(flags.ROOT / "main.py")]
    run([*torch, "draw", options.model, weights])
    sizes = [f"--image_size={options.size}", f"--resize_size={options.size * 8 // 7}"]
    convert = ["--mode=convert", f"--source={weights}", f"--model={options.model}"]
    means = ["--mean=0.485,0.456,0.406", "--std=0.229,0.224,0.225", "--channels=3"]
    workdir = f"--workdir={place / 'run'}"
    run([*main, *convert, *sizes, *means, workdir])
    batch = str(options.batch_size)
    arguments = [options.model, weights, str(options.folder), str(place / "torch.csv")]
    numbers = [options.size, options.workers, batch, options.torch_layout]
    return {
        "ours": [
            *main, "--mode=predict", workdir, f"--predict_batch_size={batch}",
            f"--predict_images={options.folder}",
        ],
        "PyTorch": [*torch, "classify", *arguments, *map(str, numbers)],
    }  # fmt: skip


def take_turns(
    commands: dict[str, list[str]], rounds: int, note: Callable[[str], None]
) -> dict[str, list[Round]]:
    """Run the commands in turns; return the rounds of each."""
    found: dict[str, list[Round]] = {name: [] for name in commands}
    for number in range(rounds):
        for name in [*commands][:: -1 if number % 2 else 1]:
            note(f"round {number + 1} of {rounds}: {name}")
            found[name].append(run(commands[name]))
    return found


def count_equal(place: Path) -> tuple[int, int]:
    """Count the files of which both find the same class, and all files."""
    with open(place / "run/predictions.csv", newline="") as file:
        ours = {Path(row["path"]).name: row["class"] for row in csv.DictReader(file)}
    with open(place / "torch.csv", newline="") as file:
        theirs = {Path(path).name: name for path, name, *_ in csv.reader(file)}
    if ours.keys() != theirs.keys():
        raise UserError("the CSV files are not of the same images")
    return sum(ours[name] == theirs[name] for name in ours), len(ours)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch_python", type=flags.python_with_torch, required=True)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=flags.positive, default=224)
    parser.add_argument("--images", type=flags.positive, default=5000)
    parser.add_argument("--rounds", type=flags.positive, default=3)
    parser.add_argument("--workers", type=flags.positive, default=2)
    parser.add_argument("--batch_size", type=flags.positive, default=64)
    layouts = ("default", "channels_last")
    parser.add_argument("--torch_layout", choices=layouts, default="default")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=flags.new_file)
    return parser.parse_args()


def main() -> None:
    """Measure both and print the table."""
    options = parse()
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        if not options.folder:
            options.folder = place / "images"
            make_folder(options.folder, options.images)
        commands = make_commands(options, place)
        found = take_turns(commands, options.rounds, flags.report)
        same, count = count_equal(place)
    print(f"{options.model}, {count} files, {len(os.sched_getaffinity(0))} cores")
    print("| who | images/s of each round | median | by CPU second | peak |")
    print("|---|---|---|---|---|")
    for name, rounds in found.items():
        speeds = [count / x.seconds for x in rounds]
        by_cpu = statistics.median(count / x.cpu_seconds for x in rounds)
        shown, peak = ", ".join(f"{x:.1f}" for x in speeds), max(x.peak for x in rounds)
        middle = statistics.median(speeds)
        print(f"| {name} | {shown} | {middle:.1f} | {by_cpu:.1f} | {peak:.2f} GB |")
    pairs = zip(found["ours"], found["PyTorch"], strict=True)
    ratios = [theirs.seconds / ours.seconds for ours, theirs in pairs]
    spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
    print(f"ours / PyTorch: {statistics.median(ratios):.2f} ({spread})")
    print(f"same class: {same} of {count}")
    about = {"model": options.model, "images": count, "same_class": same}
    seen = {n: [dataclasses.asdict(x) for x in rounds] for n, rounds in found.items()}
    flags.write_json(options.json, about | {"ratios": ratios, "rounds": seen})


if __name__ == "__main__":
    flags.run(main)
