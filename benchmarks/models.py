"""Print the table of docs/models.md: counts, and the differences from PyTorch.

    python benchmarks/models.py [--torch_python=PATH] [MODEL …]

A row is printed when it is finished; without names, one for every model that has an
entry in cnn/models/published.py or golden values in tests/golden/parity.npz. Counts are
of the published image size and classes, the rest of hashed weights and 10 classes:

- published: whether parameters and multiply-accumulates are those of the entry.
- logits, 20 losses: differences from the golden values, over the largest logit and over
  each loss. Training deep nets takes minutes each on a CPU.
- strict: PATH's Python, which has PyTorch and torchvision, loads the exported state
  dict into its class with `strict=True`; the difference of the logits.

A dash: there is nothing to compare with. The exit code is 1 where the counts differ,
logits by more than 1e-5 or losses by more than 1e-3.
"""

import argparse
import collections
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests/golden")]
LOGITS, LOSSES = 1e-5, 1e-3  # the largest differences that are allowed
COLUMNS = "model | parameters | batch statistics | GMACs | published | logits"
COLUMNS += " | 20 losses | strict"

# Behind the names of golden values: the options that they are of.
CHOICES = {"_project": {"resnet_shortcut": "project"}, "_cifar": {"stem": "cifar"}}


def split(name: str) -> tuple[str, dict[str, str]]:
    """Split a name of golden values into the model's and its options."""
    for ending, choices in CHOICES.items():
        if name.endswith(ending):
            return name.removesuffix(ending), choices
    return name, {}


class Row:
    """One model, measured cell by cell."""

    def __init__(self, name: str, golden: dict, torch_python: str | None) -> None:
        """Take its name, golden values by name, and a Python with PyTorch if any."""
        self.name, self.golden, self.torch_python = name, golden, torch_python
        self.good = True

    def measure(self) -> list[str]:
        """Return the cells."""
        cells = [self.name, *self.count(), self.compare_logits(), self.compare_losses()]
        return [*cells, self.load_strictly()]

    def count(self) -> list[str]:
        """Count, and compare with what was published."""
        from cnn import models
        from cnn.models import summary
        from cnn.models.family import CIFAR
        from cnn.models.options import ModelOptions
        from cnn.models.published import PUBLISHED

        name, choices = split(self.name)
        size, channels, classes = models.get_published_input(name)
        if choices.get("stem") == "cifar":
            size, channels, classes = CIFAR
        module = models.create_model(ModelOptions(model=name, **choices), classes)
        found = summary.describe_model(module, (size, size, channels))
        entry, gmacs = PUBLISHED.get(self.name), found["macs"] / 1e9
        same = "—"
        if entry:
            digits = len(str(entry.gmacs).partition(".")[2])
            is_same = entry.parameters == found["num_parameters"]
            is_same &= entry.gmacs in (None, round(gmacs, digits))
            self.good &= is_same
            same = "equal" if is_same else f"{entry.parameters:,}, {entry.gmacs}"
        numbers = f"{found['num_parameters']:,}", f"{found['num_batch_stats']:,}"
        return [*numbers, f"{gmacs:.3f}", same]

    def compare_logits(self) -> str:
        """Compare the logits of evaluation with the golden ones."""
        from tests.golden import ours

        wanted = self.golden.get(f"{self.name}/logits")
        if wanted is None:
            return "—"
        return self.write(compare(ours.compute_logits(self.name), wanted), LOGITS)

    def compare_losses(self) -> str:
        """Compare the losses of 20 steps with the golden ones."""
        import numpy as np

        from tests.golden import ours

        wanted = self.golden.get(f"{self.name}/losses")
        if wanted is None:
            return "—"
        found = ours.train(self.name)["losses"]
        return self.write(np.max(np.abs(found - wanted) / wanted), LOSSES)

    def load_strictly(self) -> str:
        """Have the library load what is exported, and compare its logits."""
        import jax
        import numpy as np

        from cnn.weights import exchange, safetensors_file
        from tests.golden import ours

        if not self.torch_python or self.name not in self.list_classes():
            return "—"
        model, variables, _ = ours.create(self.name)
        images = ours.make_batch("export", 2, ours.get_sizes(self.name)[0])
        logits = jax.jit(lambda v, x: model.apply(v, x))(variables, images)
        tensors = exchange.export_state_dict(split(self.name)[0], variables, 7)
        with tempfile.TemporaryDirectory() as place:
            safetensors_file.save_safetensors(Path(place) / "w.safetensors", tensors)
            np.save(Path(place) / "images.npy", images)
            self.call_torch(self.name, place)
            theirs = np.load(Path(place) / "logits.npy")
        return self.write(compare(np.asarray(logits), theirs), LOGITS)

    def list_classes(self) -> list[str]:
        """List the models that PyTorch's side has."""
        return self.call_torch("--list").split()

    def call_torch(self, *arguments: str) -> str:
        """Run this file under the other Python; returns what it prints."""
        command = [self.torch_python, __file__, "--in_torch", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.name}: {done.stderr.strip()}")
        return done.stdout

    def write(self, difference: float, limit: float) -> str:
        """Write a difference, and note whether it is allowed."""
        self.good &= bool(difference <= limit)
        return f"{difference:.1e}"


def compare(found, wanted) -> float:  # noqa: ANN001
    """Return the largest difference over the largest number."""
    return abs(found - wanted).max() / abs(wanted).max()


def run_in_torch(arguments: list[str]) -> None:
    """Do what `Row.call_torch` asks for, in the Python that has PyTorch."""
    import hashed
    import numpy as np
    import safetensors.torch
    import torch
    import torch_models

    if arguments == ["--list"]:
        print(*torch_models.TORCHVISION, *torch_models.OTHERS)
        return
    name, place = arguments[0], Path(arguments[1])
    model = torch_models.create(name, hashed.NUM_CLASSES)
    tensors = safetensors.torch.load_file(place / "w.safetensors")
    tensors = collections.OrderedDict(tensors)
    tensors._metadata = {"": {"version": 2}}  # MNASNet asks; safetensors hold none
    model.load_state_dict(tensors, strict=True)
    images = torch.from_numpy(np.load(place / "images.npy")).permute(0, 3, 1, 2)
    with torch.no_grad():
        np.save(place / "logits.npy", model.eval()(images.contiguous()).numpy())


def exists(name: str) -> bool:
    """Return whether there is a model of an entry or of golden values."""
    from cnn import models

    return any(family.find(split(name)[0]) for family in models.FAMILIES)


def main() -> None:
    """Print the rows."""
    import flags
    import jax
    import numpy as np

    from cnn import models
    from cnn.models.published import PUBLISHED

    golden = dict(np.load(ROOT / "tests/golden/parity.npz"))
    known = dict.fromkeys([*PUBLISHED, *(name.split("/")[0] for name in golden)])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch_python", type=flags.python_with_torch)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    options = parser.parse_args()
    for name in options.models:
        models.find_family(split(name)[0])  # or refused
    jax.config.update("jax_compilation_cache_dir", "/tmp/cnn-parity")
    print(f"| {COLUMNS} |")
    print("|---" * len(COLUMNS.split("|")) + "|")
    good = True
    for name in options.models or filter(exists, known):
        row = Row(name, golden, options.torch_python)
        print(f"| {' | '.join(row.measure())} |", flush=True)
        good &= row.good
    raise SystemExit(not good)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in_torch"]:
        run_in_torch(sys.argv[2:])
    else:
        import flags

        flags.run(main)
