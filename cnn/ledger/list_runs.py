"""Mode list: what runs and sweeps there are, and what of them can be deleted."""

from collections.abc import Sequence
from pathlib import Path

from cnn.checkpoints import atomic
from cnn.config import Config
from cnn.errors import UserError
from cnn.ledger import pool, prune
from cnn.ledger.find import list_places
from cnn.ledger.formats import format_bytes, format_table
from cnn.ledger.options import LedgerOptions
from cnn.ledger.read import Entry, read_entries
from cnn.ledger.where import parse_where
from cnn.runtime.terminal import Terminal


def list_runs(config: Config, text: str, terminal: Terminal) -> None:
    """List the runs and sweeps of directories, or prune them.

    Args:
        text: the directories, as of `find.list_places`.

    Raises:
        UserError: a directory is not there, or an option or a condition is wrong.
    """
    options = config.ledger
    if options.prune:
        _prune(_find_entries(options, text), options, terminal)
        return
    columns, rows = find_rows(options, text)
    table = format_table(options.format, columns, rows)
    if not rows and options.format == "text":
        table = "nothing to list\n"
    if config.visualize.output:
        path = Path(config.visualize.output)
        atomic.write_text(path, table)
        terminal.say_written(path)
    else:
        if options.format == "text" and rows:
            if terminal.is_too_narrow(max(map(len, table.splitlines()))):
                table = format_table("records", columns, rows)
        terminal.say(table.removesuffix("\n"))


def find_rows(options: LedgerOptions, text: str) -> tuple[list[str], list[pool.Row]]:
    """Find the rows of the runs and sweeps of directories.

    Args:
        text: as of `list_runs`.

    Returns:
        The names of the columns, and the rows by column.

    Raises:
        UserError: as `list_runs`.
    """
    entries = _find_entries(options, text)
    if options.group_by:
        return pool.pool(entries, options.group_by)
    return pool.make_rows(entries)


def _find_entries(options: LedgerOptions, text: str) -> list[Entry]:
    places = list_places(text)
    found = [x for place in places for x in read_entries(place, options.list_trials)]
    return _select(found, options.where)


def _select(entries: Sequence[Entry], where: str) -> list[Entry]:
    """Return the entries that fulfil the conditions."""
    conditions = parse_where(where, pool.list_names(entries) if where else [])
    defaults = Config().to_flat()
    return [
        entry
        for entry in entries
        if all(
            one.holds(pool.find_value(entry, one.name, defaults)) for one in conditions
        )
    ]


def _prune(
    entries: Sequence[Entry], options: LedgerOptions, terminal: Terminal
) -> None:
    """Show what can be deleted, and delete it where that is confirmed."""
    found = []
    for entry in entries:
        try:
            found += prune.find_leftovers(entry)
        except (UserError, OSError) as error:
            terminal.say(f"{entry.name} is left alone: {error}")
    rows = [one.to_row() for one in found]
    if found:
        table = format_table("text", prune.COLUMNS, rows)
        terminal.say(table.removesuffix("\n"))
    if not options.yes:
        size = format_bytes(sum(one.size for one in found))
        ending = "; --yes deletes it" if found else ""
        terminal.say(f"{len(found)} can be deleted, which frees {size}{ending}")
        return
    gone, kept = prune.delete(found)
    for line in kept:
        terminal.say(line)
    size = format_bytes(sum(one.size for one in gone))
    terminal.say(f"{len(gone)} of {len(found)} deleted, which frees {size}")
