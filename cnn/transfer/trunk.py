"""A model cut in two before its head, and whether its trunk can be computed once."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn import augment
from cnn.data.images import Images
from cnn.errors import UserError
from cnn.task import Task

if TYPE_CHECKING:
    from cnn.config import Config

HEAD = "head"


class HeadAlone(nn.Module):
    """A model of nothing but a head; takes what the whole model's head is given."""

    head: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, **rates: Any) -> jax.Array:
        """Map features [N, …] to logits [N, K]."""
        del train, rates
        return self.head(x)


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A model cut in two before its head.

    Attributes:
        head: the head as a model of its own, with the same parameters.
        shape: of one image's features.
    """

    head: HeadAlone
    shape: tuple[int, ...]


def choose_cache(
    config: "Config", task: Task, images: Images, image_shape: tuple[int, int, int]
) -> tuple[Trunk | None, str]:
    """Decide whether a phase works on cached features.

    Args:
        config: every option.
        task: of the phase.
        images: the training set.
        image_shape: (H, W, C) of what the model sees.

    Returns:
        The trunk whose features are cached, None to work on images; and a line on it
        for the person, empty where more than the head trains.

    Raises:
        UserError: `--cache_features=always`, and the first phase cannot.
    """
    wish, phase = config.transfer.cache_features, task.phase
    is_head = phase is not None and {x.split("/")[0] for x in phase.trained} == {HEAD}
    if not is_head:
        if wish == "always" and (phase is None or phase.first_epoch == 0):
            raise UserError(
                "--cache_features=always: more than the head trains from the "
                "beginning; give --train_only=head"
            )
        return None, ""
    if wish == "never":
        return None, ""
    trunk = cut_before_head(task, image_shape)
    obstacle = _find_obstacle(config, trunk, images.shape)
    if trunk is None or obstacle:
        if wish == "always":
            raise UserError(f"--cache_features=always is not possible: {obstacle}")
        return None, f"features  are not cached: {obstacle}"
    views = max(1, config.transfer.cached_views)
    size = 4 * int(np.prod(trunk.shape)) * len(images) * views
    if wish == "auto" and not config.data.keeps_in_memory(size):
        return None, f"features  are not cached: they would take {size:,} bytes"
    return trunk, f"features  are computed once: {views} view(s), {size:,} bytes"


def cut_before_head(task: Task, image_shape: tuple[int, int, int]) -> Trunk | None:
    """Cut a model before its head.

    Returns:
        None where the head is not the last that the model computes.
    """
    seen: dict[str, Any] = {}

    def run() -> None:
        images = jnp.zeros((1, *image_shape), jnp.float32)
        with nn.intercept_methods(watch_head(seen)):
            logits, _ = task.model.init_with_output(jax.random.key(0), images)
        seen["is_last"] = seen.get("output") is logits

    jax.eval_shape(run)
    if not seen["is_last"]:
        return None
    head = HeadAlone(seen["module"].clone(parent=None, name=None))
    return Trunk(head, seen["features"].shape[1:])


def _find_obstacle(
    config: "Config", trunk: Trunk | None, stored: tuple[int, int, int]
) -> str:
    """Say why the head's features cannot be computed once.

    Args:
        config: every option.
        trunk: of the model.
        stored: (H, W, C) of the stored images.

    Returns:
        The reason; empty when they can.
    """
    options, size = config.augment, config.data.image_size
    if trunk is None:
        return f"--model={config.model.model} computes on after its head"
    if config.model.dropout_rate or config.model.stochastic_depth_rate:
        return "dropout differs from step to step"
    if options.mixup_alpha or options.cutmix_alpha:
        return "mixing differs from step to step"
    if options.augment_repeats > 1:
        return "--augment_repeats varies an image several times an epoch"
    if options.tta != "none":
        return "--tta averages several views"
    if not config.transfer.cached_views and augment.varies(options, stored, size):
        return "images vary from epoch to epoch; --cached_views=K caches K views"
    return ""


def watch_head(seen: dict[str, Any]) -> Callable[..., Any]:
    """Make an interceptor that notes the head, what it is given and what it returns."""

    def note(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        output = call(*args, **kwargs)
        if context.module.path == (HEAD,) and context.method_name == "__call__":
            seen.update(module=context.module, features=args[0], output=output)
        return output

    return note
