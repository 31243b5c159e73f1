"""Whether a model takes every size of image that a run shows it, known from shapes."""

import jax

from cnn import models
from cnn.config import Config
from cnn.errors import UserError
from cnn.models import own
from cnn.models.variables import create_variables


def check(config: Config) -> None:
    """Refuse sizes of images that a model does not take with the same parameters.

    Raises:
        UserError: naming the model and the sizes, or the smallest that it takes.
    """
    options = config.data
    evaluated = options.for_evaluation().image_size
    sizes = sorted({size for _, size in options.sizes} | {evaluated})
    if len(sizes) < 2:
        return
    # Neither the number of classes nor that of channels decides it.
    static, channels = config.make_static().model, options.channels or 3
    model = models.create_model(static, options.num_classes or 10)
    flag = "image_size_schedule" if options.image_size_schedule else "eval_image_size"
    shapes = []
    for size in sizes:
        shape = size, size, channels
        own.check_call(static, model, options.num_classes or 10, shape)
        try:
            found = jax.eval_shape(lambda s=shape: create_variables(model, 0, s))
        except UserError as error:
            raise UserError(
                f"--{flag} shows images of {size} pixels: {error}"
            ) from None
        shapes.append(jax.tree.map(lambda x: x.shape, found))
    for size, found in zip(sizes, shapes, strict=True):
        if found != shapes[-1]:
            raise UserError(
                f"--model={config.model.model} has other parameters for images of "
                f"{size} pixels than of {sizes[-1]}, and --{flag} shows it both; take "
                "one that averages over places before its head (of simple_cnn, "
                "--head=global_average), or one size"
            )
