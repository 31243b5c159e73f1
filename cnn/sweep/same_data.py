"""Whether the trials of a sweep that is resumed see what those before them saw.

`dataset.json` in the sweep's directory holds, for each choice of data, of weights to
start from and of a teacher that its trials make (`""` where they all share one), the
record of the data (see `cnn.data.identity`) and the digests of the weights. A table
must not mix two data sets, so that there is no flag to let changed ones pass.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn.checkpoints import atomic, form, workdir
from cnn.config import Config
from cnn.data import identity
from cnn.data.images import BadFile
from cnn.errors import UserError
from cnn.training.same_data import DATASET_FILE, write_bad
from cnn.training.setup import Setup


class SharedData:
    """What the trials of a sweep have seen so far, as far as it is known."""

    def __init__(self, config: Config, home: Path) -> None:
        """Read `dataset.json` of a sweep in `home`, if there is one."""
        self._config, self._home = config, home
        path = home / DATASET_FILE
        self._known: dict[str, Any] = _read(path) if path.exists() else {}
        self._is_unnoted = not path.exists() and any(home.rglob("trials.jsonl"))
        self.respelled: Mapping[str, str] = {}
        self._excluded: dict[str, BadFile] = {}

    def check(self, setup: Setup) -> None:
        """Refuse a setup whose data, or weights to start from, are not those seen.

        Raises:
            UserError: naming what has changed, or an option whose meaning then is not
                known.
        """
        self._excluded |= {bad.path: bad for bad in setup.dataset.excluded}
        own = setup.config.select_run_options()
        shared = self._config.select_run_options()
        names = [*vars(setup.config.data), "init_from", "teacher"]
        varied = {n: own[n] for n in names if n in own and own[n] != shared[n]}
        key = json.dumps(varied) if varied else ""
        found = {
            **setup.seen.record,
            "source_sha256": setup.plan.about.get("source_sha256", ""),
        }
        if setup.teacher is not None:
            found["teacher_sha256"] = setup.teacher.about["sha256"]
        old = self._known.get(key)
        if old is None:
            self._check_noted(setup)
            self._known[key] = found
            return
        lines = identity.list_changes(old, found)
        if old["source_sha256"] != found["source_sha256"]:
            lines.append(
                f"--init_from={own['init_from']} holds other weights than then"
            )
        if old.get("teacher_sha256", "") != found.get("teacher_sha256", ""):
            lines.append(f"--teacher={own['teacher']} holds other weights than then")
        if lines:
            raise UserError(
                f"{self._home} holds trials on other data, --dataset={old['dataset']} "
                f"(fingerprint {old['fingerprint'][:12]}), than are there now, "
                f"--dataset={found['dataset']} ({found['fingerprint'][:12]}): "
                f"{'; '.join(lines)}. Put them back, or give another --workdir"
            )

    def _check_noted(self, setup: Setup) -> None:
        """Refuse to add to trials that did not note what they saw, where in doubt."""
        if not self._is_unnoted:
            return
        for name, before in self.respelled.items():
            raise UserError(
                f"{self._home} holds trials of --{name}={before} by an earlier version "
                "of the code, which did not note what it holds; give the option as it "
                "was, or another --workdir"
            )
        if setup.dataset.is_named:
            raise UserError(
                f"{self._home} holds trials of an earlier version of the code, which "
                "did not note their files and split them otherwise; give another "
                "--workdir"
            )

    def write(self) -> None:
        """Write `dataset.json`, and the files that were left out."""
        atomic.write_text(self._home / DATASET_FILE, json.dumps(self._known))
        write_bad(self._home, self._config.data.dataset, [*self._excluded.values()])


def _read(path: Path) -> dict[str, Any]:
    """Read what trials have seen.

    Raises:
        UserError: it is not what was written.
    """
    found = workdir.read_json(path)
    texts = {"dataset": str, "source_sha256": str, "teacher_sha256?": str, "*": object}
    problem = form.find_problem(found, {"*": texts})
    if problem or not all(map(identity.is_whole, found.values())):
        raise UserError(
            f"{path} is damaged: {problem or 'fingerprints are not of its lists'}; put "
            "a whole one back, or give another --workdir"
        )
    return found
