"""Every model by name, and the contract of a model.

A new model is one file that keeps the contract and ends with its `Family`, and the
file's name in `FAMILIES`. Tests, flags, sweeps and pictures find it there. Those of a
user's own files are one more family, `own`, whose names are of files.

`create(options: ModelOptions, num_classes: int, dtype) -> nn.Module` makes a model:

- Equal options make equal models (`==`, `hash`), so that runs share compiled programs:
  attributes are numbers, strings, tuples, `Layers` and functions that a module names,
  never closures, partials or arrays.
- Layers are made by `layers.Layers`, the attribute `layers`: it carries
  `--precision`, `--convolution` and `--bn_variance`, and only its batch normalisation
  is held by `--freeze_statistics` and freezing.

`model(x, train=False, dropout_rate=None, stochastic_depth_rate=None)` computes:

- `x` is float32 [N, H, W, C], the result logits [N, K] in `dtype`. Parameters
  (`params`) and running statistics (`batch_stats`) are float32.
- `train=True` takes the batch's statistics and needs `mutable=["batch_stats"]`.
- The rates are float32 [] or None for absent; they act in training alone and need
  `rngs={"dropout": key}`. A model that has no place for one ignores it. Of further
  numbers of `Numbers`, as `dropblock_rate`, a model is given those that its
  `__call__` names (`layers.select_rates`).
- An image that is too small is refused by `layers.check_size`.

Names are API. Every parameter belongs to a layer, the first part of its path, and
layers are ordered as they run. (Parameters right in the model, as `sliding_regression`
and `locally_connected` have them, count as the last layers, wherever they act.)

- `stem` stands before the stages. The first layer, this or stage 1's, is adapted to
  grey or colour images (`--init_from`) and can be a whitening (`--whitening_images`)
  if it is a convolution.
- `stageN` or `stageN_…` (`stage2_block1`, `stage1_conv2`) are the layers of stage N:
  what `--freeze_through`, `--freeze`, `--unfreeze` and `--learning_rate_for` name.
  `…_convM` and `…_normM` are one layer to `--layer_decay`.
- `head` is the last layer, and the only one that depends on `num_classes`: it is
  drawn again for other classes, and `--train_only=head` trains it alone, on cached
  features where the logits are what it returns. `sliding_regression` has none.
- `LAYER_aux` is an auxiliary classifier on the output of `LAYER`, and one layer with
  it to `--layer_decay`. It is computed in training and to create variables
  (`auxiliary.is_computed`), never in evaluation. Its last layer is a `head` too, drawn
  again together with the model's; nothing else in it depends on `num_classes`.
- A block is a layer that has layers of its own. It takes `x` first and returns one
  array; `--remat=blocks` computes it again in the backward pass.
- A weight that is multiplied with the input is called `kernel` or `…_kernel`, and no
  other leaf is: `--mode=describe` counts its multiply-accumulates, pictures show it,
  exports know its layout, Muon orthogonalises it, and `--decay_norms=false` decays it
  alone. Its last axes are [I, O] or [S, S, I, O]; what stands before are places.

`self.sow("features", "stageN_out", x)` at the end of each stage, in order, is what
pictures show (features, patches, saliency, receptive fields, maximisation), under the
name without `_out`; of a stage that ends in `nn.relu` also what it holds back. It costs
nothing unless `mutable=["features"]` asks for it.

`auxiliary.sow(self, "LAYER_aux", logits)` is what the training step asks for under
`mutable=["auxiliary"]`. Where `LAYER_aux` trains, the step adds its loss times the
model's attribute `auxiliary_weight`, or times `--auxiliary_weight`.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cnn.errors import UserError, suggest
from cnn.models import (
    airbench,
    alexnet,
    all_cnn,
    bit,
    cifar_resnet,
    convnext,
    densenet,
    efficientnet,
    efficientnet_v2,
    googlenet,
    inception_v3,
    lenet5,
    linear,
    locally_connected,
    mnasnet,
    mobilenet_v2,
    mobilenet_v3,
    nin,
    own,
    regnet,
    resnet,
    shufflenet_v2,
    simple_cnn,
    sliding_regression,
    squeezenet,
    vgg,
    wide_resnet,
)
from cnn.models.family import CIFAR, Family
from cnn.models.options import ModelOptions

# In the order of `--help`: the lecture's, for ImageNet by year, for small images.
FAMILIES: tuple[Family, ...] = tuple(
    module.FAMILY
    for module in (
        linear,
        simple_cnn,
        sliding_regression,
        locally_connected,
        alexnet,
        vgg,
        googlenet,
        inception_v3,
        resnet,
        densenet,
        squeezenet,
        mobilenet_v2,
        mnasnet,
        mobilenet_v3,
        shufflenet_v2,
        efficientnet,
        efficientnet_v2,
        regnet,
        convnext,
        bit,
        lenet5,
        nin,
        all_cnn,
        cifar_resnet,
        wide_resnet,
        airbench,
    )
)

# What --mode=describe takes for a model's name, to print the table of them all.
LIST = "list"


def create_model(
    options: ModelOptions, num_classes: int, dtype: Any = jnp.float32
) -> nn.Module:
    """Create a model.

    Args:
        options: `model` names it, the rest are its choices.
        dtype: what it computes in; parameters stay float32.

    Raises:
        UserError: no model has that name.
    """
    create = find_family(options.model).find(options.model)
    return create(options, num_classes, dtype)


def get_published_input(name: str, stem: str = "imagenet") -> tuple[int, int, int]:
    """Return what a model was published for: (image size, channels, classes).

    Args:
        stem: `--stem`; with the one for small images, they are those of CIFAR.

    Raises:
        UserError: no model has that name.
    """
    published = find_family(name).get_input(name)
    return CIFAR if stem == "cifar" else published


def find_family(name: str) -> Family:
    """Find the family that a model belongs to.

    Raises:
        UserError: no model has that name.
    """
    for family in (*FAMILIES, own.FAMILY):
        if family.find(name):
            return family
    if name == LIST:
        raise UserError(
            f"--model={LIST} is no model: --mode=describe prints the list of them all"
        )
    known = [example for family in FAMILIES for example in family.examples]
    raise UserError(f"--model={name} is unknown{suggest(name, known)}")


def list_names() -> list[str]:
    """List the names of all models, in place of patterns their examples."""
    return [name for family in FAMILIES for name in family.examples]
