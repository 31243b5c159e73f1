"""Finding prepared tensorflow-datasets on disk by their directories alone.

No dataset's code is asked, because that may try the network for minutes.
"""

import os
import pathlib
import re

from cnn.errors import UserError, suggest

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def find_directory(rest: str, data_dir: str) -> pathlib.Path:
    """Return the directory of a prepared dataset, of its newest version by default.

    Args:
        rest: NAME[/CONFIG][:VERSION]; a single prepared configuration need not be
            named.
        data_dir: `--data_dir`; empty: where tensorflow-datasets puts them.

    Raises:
        UserError: it is not prepared there, with what to type.
    """
    root = pathlib.Path(
        data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    ).expanduser()
    name, _, version = rest.partition(":")
    if not re.fullmatch(r"\w+(/[\w.+-]+)?", name):
        raise UserError(
            f"--dataset=tfds:{rest}: write tfds:NAME, tfds:NAME/CONFIG or "
            "tfds:NAME:VERSION"
        )
    configs = _list_prepared(root)
    dataset, _, config = name.partition("/")
    if not config and name not in configs:
        inside = sorted(known for known in configs if known.startswith(f"{dataset}/"))
        if len(inside) == 1:
            name = inside[0]
        elif inside:
            raise UserError(
                f"--dataset=tfds:{rest}: choose one of its configurations, "
                f"{', '.join('tfds:' + known for known in inside)}"
            )
    if name not in configs:
        raise UserError(how_to_prepare(rest, root, configs))
    versions = configs[name]
    if version and version not in versions:
        raise UserError(
            f"--dataset=tfds:{rest}: version {version} is not prepared in {root}; "
            f"prepared: {', '.join(versions)}"
        )
    return root / name / (version or versions[-1])


def _list_prepared(root: pathlib.Path) -> dict[str, list[str]]:
    """Map each prepared NAME or NAME/CONFIG to its versions, oldest first."""
    found: dict[str, list[str]] = {}
    for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json"):
        for info in root.glob(pattern):
            version = info.parent.name
            if _VERSION.fullmatch(version) and (info.parent / "features.json").exists():
                name = info.parent.parent.relative_to(root).as_posix()
                found.setdefault(name, []).append(version)
    for versions in found.values():
        versions.sort(key=lambda version: [int(part) for part in version.split(".")])
    return found


def how_to_prepare(
    rest: str, root: pathlib.Path, configs: dict[str, list[str]] | None = None
) -> str:
    """Say how to prepare a dataset, and which prepared one has a similar name."""
    near = suggest(rest.partition(":")[0], configs) if configs else ""
    near = near.replace("did you mean ", "did you mean tfds:").rstrip("?")
    near = near.replace("known: ", "prepared there: ")
    return (
        f"--dataset=tfds:{rest} is not prepared in --data_dir={root}{near}. To prepare "
        "it (needs the network, and TensorFlow beside tensorflow-datasets): "
        f"tfds build {rest} --data_dir={root} --file_format=array_record"
    )
