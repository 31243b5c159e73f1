"""Devices, processes, traces and logs."""

import dataclasses
from typing import ClassVar

from cnn.option import free_option, option


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """How the devices compute."""

    modes: ClassVar[str] = (
        "train sweep evaluate predict convert export visualize inspect average "
        "describe replay"
    )

    precision: str = option(
        "float32",
        "what layers compute in; parameters, statistics and losses stay float32",
        choices=("float32", "bfloat16"),
        modes="train sweep describe convert",
    )
    cpu_devices: int = free_option(
        0,
        "virtual devices the CPU is split into, as for --executor=shard; 0: as jax "
        "has it",
        within="[0, 1024]",
    )
    mesh: str = free_option(
        "",
        "train, sweep, evaluate, replay: devices as data:N, over which batches are "
        "split, or data:N,model:M, which splits parameters and optimizer state over M "
        "as well; empty: all devices on data; replay: those of the run",
        modes="train sweep evaluate describe replay",
    )
    cpu_kernels: str = option(
        "auto",
        "what computes the convolutions and matrix products of training on CPU: xla, "
        "onednn (faster, but compiled again at each start; one device only), or auto "
        "(onednn where an epoch is long enough for it); evaluation of the run takes "
        "auto by its own images, or xla with xla",
        choices=("auto", "xla", "onednn"),
        modes="train sweep describe",
    )
    deterministic: bool = option(
        False, "only operations whose result never varies (GPU; slower)"
    )
    compilation_cache: str = free_option(
        "~/.cache/cnn-jax",
        "directory in which compiled programs are kept for the next start, or off",
    )
    stall_minutes: float = free_option(
        10.0,
        "minutes for which a background thread may show no sign of life, as an image "
        "read or a byte written, before it ends the command; 0: for ever",
        within="[0, 10080]",
    )
    canary: str = free_option(
        "on",
        "on: refuse devices that get known sums or a convolution with its gradients "
        "wrong; they are asked once a machine, which is kept in --compilation_cache",
        choices=("on", "off"),
    )


@dataclasses.dataclass(frozen=True)
class ProcessOptions:
    """Several processes, on one machine or many, that train one run."""

    modes: ClassVar[str] = "train"

    distributed: str = free_option(
        "",
        "train: auto (processes that Slurm, Open MPI, Kubernetes or a TPU pod started "
        "as one job), or HOST:PORT,PROCESSES,ID with the address of process 0; empty: "
        "this process alone",
    )
    distributed_seconds: int = free_option(
        300,
        "seconds within which all processes must connect",
        within="[1, 86400]",
        only_for="distributed",
    )


@dataclasses.dataclass(frozen=True)
class ProfileOptions:
    """Which steps are traced."""

    modes: ClassVar[str] = "train describe"

    profile: str = free_option(
        "",
        "directory to which a trace of --profile_steps is written, for TensorBoard "
        "and Perfetto (docs/performance.md); empty: none",
        is_path=True,
    )
    profile_steps: str = free_option(
        "11:20",
        "first:last, both included, counted from 1 over the whole run; compilation is "
        "never traced",
        only_for="profile",
    )


@dataclasses.dataclass(frozen=True)
class ProgressOptions:
    """What is written in addition to one line an epoch."""

    modes: ClassVar[str] = "train describe"

    log_every_steps: int = option(
        0,
        "steps between lines of metrics.jsonl with a step's loss, learning rate, "
        "gradient norm and hash of example ids; 0 for none",
        within="[0, steps]",
    )
    track: str = free_option(
        "none",
        "what gets the numbers of metrics.jsonl, the options with the result, and the "
        "pictures of visualize too: tensorboard (needs tensorboardX; files in the "
        "run's directory), wandb (offline unless WANDB_MODE is set), mlflow (its own "
        "store, or MLFLOW_TRACKING_URI) or trackio (its own folder)",
        choices=("none", "tensorboard", "wandb", "mlflow", "trackio"),
        modes="train describe visualize",
    )
