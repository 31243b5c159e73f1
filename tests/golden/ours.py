"""The measurements of make_parity.py, made with our models."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn import models
from cnn.config import make_config
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables, flatten_paths
from cnn.optim import optimizer
from cnn.optim.options import OptimizerOptions
from cnn.training import losses
from cnn.weights import exchange, names
from tests.golden import hashed
from tests.golden.hashed import NUM_CLASSES

SMALL = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "wrn")
CLASSICS = ("lenet5", "nin", "all_cnn_c")
SMALL_PREFIXES = ("wrn_", "densenet_bc_", "preact_resnet_", "resnext29_")


def get_sizes(name):
    """Return the side of evaluated and of trained images, in pixels."""
    small = name.startswith(SMALL_PREFIXES) or name.split("_")[0] in SMALL
    small = small or name in CLASSICS or name.endswith("_cifar")
    return hashed.SIZES.get(name, (32, 32) if small else (224, 64))


def create(name):
    """Create a model with hashed weights; returns it, its variables and entries."""
    shortcut = "project" if name.endswith("_project") else "pad"
    stem = "cifar" if name.endswith("_cifar") else "imagenet"
    size = get_sizes(name)[1]
    name = name.removesuffix("_project").removesuffix("_cifar")
    options = ModelOptions(model=name, resnet_shortcut=shortcut, bn_variance="unbiased")
    options = dataclasses.replace(options, stem=stem)
    model = models.create_model(options, NUM_CLASSES)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, (size, size, 3)))
    spellings = names.list_spellings(name, flatten_paths(shapes))
    entries = spellings[
        1 if name.startswith("resnet") and name.endswith("v2") else 0
    ]  # PyTorch's, not ours
    tensors = hashed.make_state_dict({e.name: e.torch_shape for e in entries})
    variables = exchange.import_state_dict(name, shapes, tensors, "hashed weights")
    return model, jax.tree.map(jnp.asarray, variables), entries


def make_batch(images, count, size):
    """Make images [N, H, W, C]."""
    return hashed.make_images(images, count, size).transpose(0, 2, 3, 1)


def compute_logits(name):
    """Compute the logits of evaluation mode."""
    model, variables, _ = create(name)
    images = make_batch("eval", hashed.EVAL_IMAGES, get_sizes(name)[0])
    return np.asarray(jax.jit(lambda v, x: model.apply(v, x))(variables, images))


def train(name):
    """Take the 20 steps; arrays by what they are, as in parity.npz."""
    model, variables, entries = create(name)
    options = OptimizerOptions(optimizer="sgd", nesterov=True)
    numbers = make_config({"momentum": 0.9, "weight_decay": 5e-4}).make_numbers()
    chain = optimizer.make_optimizer(options, jnp.float32(0.01), numbers)

    def compute_loss(params, batch_stats, images, labels):
        logits, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats", "auxiliary"],
        )
        targets = losses.make_targets(labels, NUM_CLASSES, None)
        loss = jnp.mean(losses.softmax(logits, targets))
        for (more,) in updated.get("auxiliary", {}).values():
            more = jnp.mean(losses.softmax(more, targets))
            loss += model.auxiliary_weight * more
        return loss, (logits, updated.get("batch_stats", {}))

    @jax.jit
    def step(variables, opt_state, images, labels):
        differentiate = jax.value_and_grad(compute_loss, has_aux=True)
        params = variables["params"]
        (loss, (logits, batch_stats)), gradients = differentiate(
            params, variables["batch_stats"], images, labels
        )
        updates, opt_state = chain.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
        variables = {"params": params, "batch_stats": batch_stats}
        norms = jax.tree.map(
            lambda x: jnp.sqrt(jnp.sum(jnp.square(x))),
            {"params": gradients, "batch_stats": batch_stats},
        )
        return variables, opt_state, loss, logits, norms

    opt_state, size, found = chain.init(variables["params"]), get_sizes(name)[1], {}
    found["losses"] = []
    for number in range(hashed.STEPS):
        images = make_batch(f"step{number}", hashed.BATCH_SIZE, size)
        labels = hashed.make_labels(f"labels{number}", hashed.BATCH_SIZE)
        variables, opt_state, loss, logits, norms = step(
            variables, opt_state, images, labels.astype(np.int32)
        )
        found["losses"].append(float(loss))
        if number == 0:
            flat = flatten_paths(norms)
            ordered = sorted(entries, key=lambda entry: entry.name)
            for kind, folder in (("gradients", "params"), ("running", "batch_stats")):
                found[kind] = [
                    flat[e.path] for e in ordered if e.path.startswith(folder + "/")
                ]
            found["train_logits"] = logits
    return {kind: np.asarray(value) for kind, value in found.items()}
