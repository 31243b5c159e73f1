"""Do nearby pixels matter? Train with and without one fixed permutation of pixels.

    python benchmarks/nearby_pixels.py [--seeds=3] [-- any flag of main.py …]

Prints a Markdown table: test accuracy of each model on images as they are and on
images whose pixels are all permuted alike; mean ± standard deviation over the seeds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODELS = ("logistic_regression", "mlp", "simple_cnn")


def measure(model: str, shuffle: bool, seed: int, flags: list[str]) -> float:
    """Train once and return the test accuracy in percent."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "main.py", f"--workdir={workdir}", f"--seed={seed}"]
        command += [f"--model={model}", f"--shuffle_pixels={shuffle}", *flags]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        result = json.loads((Path(workdir) / "result.json").read_text())
    return 100 * result["test_accuracy"]


def main() -> None:
    """Measure every model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    options, flags = parser.parse_known_args()
    flags = [flag for flag in flags if flag != "--"]
    print("| model | pixels in place, % | pixels permuted, % | difference |")
    print("|---|---|---|---|")
    for model in MODELS:
        plain, permuted = (
            [measure(model, shuffle, seed, flags) for seed in range(options.seeds)]
            for shuffle in (False, True)
        )
        difference = statistics.mean(permuted) - statistics.mean(plain)
        print(
            f"| {model} | {show(plain)} | {show(permuted)} | {difference:+.2f} |",
            flush=True,
        )


def show(values: list[float]) -> str:
    """Write mean ± standard deviation."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {spread:.2f}"


if __name__ == "__main__":
    main()
