"""Mode inspect: a look at the data before training, which trains nothing.

Files are listed, and each image is read once; bad ones never stop it. It writes
`dataset.json`, the record that a run on these data would write with all that was found
in its entry `inspection`, and `inspect.html`, a page with pictures of it.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn.checkpoints import atomic, workdir
from cnn.config import Config
from cnn.data import decode, identity, list_dataset
from cnn.data.images import BadFile, Dataset, Images
from cnn.data.options import DataOptions
from cnn.errors import UserError
from cnn.inspection import page, summary
from cnn.inspection.findings import (
    Findings,
    describe,
    find_pairs,
    summarise_counts,
)
from cnn.inspection.read import Look, read_part
from cnn.runtime.terminal import Terminal
from cnn.training import same_data

_ENTRY = "inspection"


def inspect(config: Config, directory: Path, terminal: Terminal) -> dict[str, Any]:
    """Look at the images of `--dataset`, print what was found and write it.

    Args:
        directory: of the two files; made if need be.

    Returns:
        `inspection` of `dataset.json`, see `findings.describe`.

    Raises:
        UserError: there are no such data, or the directory holds a run.
    """
    with workdir.lock(directory):
        _check_directory(directory)
        dataset = list_dataset(config.data)
        found = {name: getattr(dataset, name) for name in identity.PARTS}
        parts = {name: part for name, part in found.items() if part is not None}
        findings = _look(dataset, parts, config.data)
        described = describe(findings)
        lines = summary.list_lines(findings, described, config.data)
        for line in [*dataset.notes, *lines]:
            terminal.say(line)
        readable = _keep_readable(dataset, parts, findings)
        text = json.dumps({**identity.make_record(readable), _ENTRY: described})
        atomic.write_text(directory / same_data.DATASET_FILE, text)
        path = page.write_page(directory, parts, findings, described, lines)
        terminal.say_written(directory / same_data.DATASET_FILE, path)
        (directory / same_data.BAD_FILE).unlink(missing_ok=True)
        same_data.write_bad(directory, dataset.name, readable.excluded)
    return described


def _check_directory(directory: Path) -> None:
    """Refuse a directory whose `dataset.json` is not of an inspection."""
    path = directory / same_data.DATASET_FILE
    if not path.exists() and not (directory / workdir.CONFIG_FILE).exists():
        return
    try:
        is_own = _ENTRY in workdir.read_json(path)
    except (UserError, TypeError):
        is_own = False
    if not is_own or (directory / workdir.CONFIG_FILE).exists():
        raise UserError(
            f"--workdir={directory} holds a run, whose {path.name} says what it has "
            "seen; give another --workdir to inspect into"
        )


def _look(
    dataset: Dataset, parts: Mapping[str, Images], options: DataOptions
) -> Findings:
    """Look at every image, and compare all."""
    looks: list[Look] = []
    counts = {}
    for name, part in parts.items():
        channels = part.shape[2] or options.channels
        layout = dataclasses.replace(decode.make_layout(options), channels=channels)
        seen, counts[name] = read_part(part, layout)
        looks += seen
    is_grey = all(set(found) <= {1} for found in counts.values())
    scaling = {
        name: summarise_counts(found, 1 if is_grey else 3)
        for name, found in counts.items()
    }
    labels = np.concatenate([part.labels for part in parts.values()])
    names = np.concatenate([part.names for part in parts.values()])
    part_of = np.repeat(
        np.array(list(parts), object), [len(part) for part in parts.values()]
    )
    pairs, flat, crowded = find_pairs(looks, part_of, labels)
    return Findings(
        class_names=dataset.class_names,
        parts=part_of,
        names=names,
        labels=labels,
        looks=looks,
        pairs=pairs,
        scaling=scaling,
        flat=flat,
        crowded=crowded,
    )


def _keep_readable(
    dataset: Dataset, parts: Mapping[str, Images], findings: Findings
) -> Dataset:
    """Return the data without what cannot be read, and with stamps."""
    kept, bad = {}, []
    for name, part in parts.items():
        (places,) = np.nonzero(findings.parts == name)
        if part.stamps is None:
            stamps = np.array([findings.looks[i].stamp for i in places], object)
            part = dataclasses.replace(part, stamps=stamps)
        kept[name] = part.take(np.flatnonzero(findings.readable[places]))
        paths = part.names if part.paths is None else part.paths
        for image, path in zip(places, paths, strict=True):
            if reason := findings.looks[image].problem:
                bad.append(BadFile(findings.names[image], str(path), name, reason))
    return dataclasses.replace(dataset, excluded=tuple(bad), **kept)
