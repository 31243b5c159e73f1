"""Devices, processes, traces and logs."""

import dataclasses

from cnn.option import option


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """How the devices compute."""

    precision: str = option(
        "float32",
        "what layers compute in; parameters, statistics and losses stay float32",
        choices=("float32", "bfloat16"),
    )
    cpu_devices: int = option(
        0,
        "virtual devices the CPU is split into, as for --executor=shard; 0: as jax "
        "has it",
        within="[0, 1024]",
        changes_run=False,
    )
    mesh: str = option(
        "",
        "train, sweep, evaluate: devices as data:N, over which batches are split, or "
        "data:N,model:M, which splits parameters and optimizer state over M as well; "
        "empty: all devices on data",
        changes_run=False,
    )
    cpu_kernels: str = option(
        "auto",
        "what computes the convolutions and matrix products of training on CPU: xla, "
        "onednn (faster, but compiled again at each start; one device only), or auto "
        "(onednn where an epoch is long enough for it)",
        choices=("auto", "xla", "onednn"),
    )
    deterministic: bool = option(
        False, "only operations whose result never varies (GPU; slower)"
    )
    compilation_cache: str = option(
        "~/.cache/cnn-jax",
        "directory in which compiled programs are kept for the next start, or off",
        changes_run=False,
    )


@dataclasses.dataclass(frozen=True)
class ProcessOptions:
    """Several processes, on one machine or many, that train one run."""

    distributed: str = option(
        "",
        "train: auto (processes that Slurm, Open MPI, Kubernetes or a TPU pod started "
        "as one job), or HOST:PORT,PROCESSES,ID with the address of process 0; empty: "
        "this process alone",
        changes_run=False,
    )
    distributed_seconds: int = option(
        300,
        "seconds within which all processes must connect",
        within="[1, 86400]",
        changes_run=False,
    )


@dataclasses.dataclass(frozen=True)
class ProfileOptions:
    """Which steps are traced."""

    profile: str = option(
        "",
        "directory to which a trace of --profile_steps is written, for TensorBoard "
        "and Perfetto (docs/performance.md); empty: none",
        changes_run=False,
    )
    profile_steps: str = option(
        "11:20",
        "first:last, both included, counted from 1 over the whole run; compilation is "
        "never traced",
        changes_run=False,
    )


@dataclasses.dataclass(frozen=True)
class ProgressOptions:
    """What is written in addition to one line an epoch."""

    log_every_steps: int = option(
        0,
        "steps between lines of metrics.jsonl with a step's loss, learning rate, "
        "gradient norm and hash of example ids; 0 for none",
        within="[0, inf)",
    )
    tensorboard: bool = option(
        False,
        "write scalars, options with the result (HParams), and the pictures of "
        "visualize for TensorBoard too (needs the extra: pip install tensorboardX)",
        changes_run=False,
    )
