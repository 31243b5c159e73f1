"""Faults of checkpoints on disk: what is deleted, what is damaged."""

from faulty import fault


@fault(
    injected="a file is cut to half its size",
    holds="that checkpoint is left out and named, the run goes on from the one before",
    without=[
        (
            "cnn/checkpoints/manifest.py",
            '            return f"{path / name} has changed since it was written"',
            "            continue",
        )
    ],
)
def test_the_newest_checkpoint_is_cut_off(room):
    room.train("run").check_done()
    newest = max((room.path / "run/checkpoints").iterdir(), key=lambda x: int(x.name))
    file = max(
        (x for x in newest.rglob("*") if x.is_file()), key=lambda x: x.stat().st_size
    )
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (room.path / "run/result.json").unlink()
    ended = room.train("run").check_done()
    assert f"checkpoint {newest.name} is left out" in ended.out, ended
