"""Invariance: which changes of an image leave the prediction alone."""

from pathlib import Path

from cnn.checkpoints import atomic
from cnn.visualize.compute import invariance
from cnn.visualize.draw import lettering, picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.subject import Subject

_COLUMNS = 4
_LABELS = {
    "accuracy": "accuracy, %",
    "agreement": "agreement with\nthe unchanged image, %",
}
_CAPTIONS = {
    "accuracy": "Each line is a model's share of right predictions as the images "
    "change more and more; the dotted line is the strength that changes nothing.",
    "agreement": "Each line is the share of a model's predictions that stay what they "
    "were on the unchanged images.",
}


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw accuracy and agreement under each change of `invariance_images` images.

    The numbers go into `invariance.json`, beside the folder.

    Raises:
        UserError: no run takes the images and knows their class.
    """
    positions = subject.sample(subject.config.visualize.invariance_images)
    images = subject.read(positions)
    strengths = {
        name: invariance.choose_strengths(name, subject.image_shape)
        for name in invariance.CHANGES
    }
    strengths = {name: values for name, values in strengths.items() if values}
    options = subject.config.augment
    outside = {"mode": options.crop_mode, "fill": options.geometry_fill}
    results = {
        run.name: invariance.measure(
            run.predict,
            images,
            subject.get_labels(run)[positions],
            strengths,
            **outside,
        )
        for run in subject.single_class_runs
    }
    about = {
        "dataset": subject.evaluated.name,
        "split": subject.config.evaluate.split,
        "images": len(images),
        "outside": options.crop_mode,
        "units": {name: invariance.CHANGES[name].unit for name in strengths},
    }
    atomic.write_json(folder.parent / "invariance.json", about | {"runs": results})
    return [
        _draw_curves(results, what, len(images), folder)
        for what in ("accuracy", "agreement")
    ]


def _draw_curves(results: dict, what: str, count: int, folder: Path) -> Picture:
    """Draw a panel a change, with one line a run."""
    changes = list(next(iter(results.values())))
    columns = min(_COLUMNS, len(changes))
    rows = -(-len(changes) // columns)
    figure = picture.make_figure(2.9 * columns, 2.5 * rows + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax in axes[len(changes) :]:
        ax.set_axis_off()
    for ax, name in zip(axes, changes, strict=False):
        change = invariance.CHANGES[name]
        for number, (run, found) in enumerate(results.items()):
            shares = [100 * share for share in found[name][what]]
            style = picture.style_line(number)
            label = lettering.make_label(run, 0)
            ax.plot(found[name]["strength"], shares, label=label, **style)
        ax.axvline(change.nothing, color="grey", linestyle=":", linewidth=1)
        ax.set(title=name, xlabel=change.unit, ylim=(0, 102))
        ax.grid(alpha=0.3)
    for ax in axes[::columns]:
        ax.set_ylabel(_LABELS[what])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    title = f"{what.capitalize()} under changes of the image"
    figure.suptitle(f"{title}, {count} images")
    path = folder / f"invariance_{what}.png"
    return picture.save(figure, path, title, _CAPTIONS[what], is_line_art=True)
