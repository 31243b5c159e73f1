"""XLA's flags, which hold for every program of a process; what each was measured to do.

On 2 cores of an AMD EPYC, for 8 steps of resnet20 on CPU: without unrolled loops they
compile in 8.8 instead of 10.7 s, run at 302 instead of 264 images/s (the best of 12
calls each), and a state is created for the first time in 8 instead of 47 s; with the
preset too they compile in 7.3 s and run at 286. By XLA's source neither reaches its
GPU backend, for which no flag of its own was tried. All: docs/performance.md.
"""

_CHOSEN = (
    "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling",
    "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE",
)
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def merge_flags(given: str, deterministic: bool = False) -> str:
    """Add our flags to those that somebody gave, whose word counts.

    Args:
        given: the value of XLA_FLAGS.
        deterministic: whether results must never vary (`--deterministic`).

    Returns:
        The value to set before the first device call.
    """
    flags = given.split()
    taken = {flag.partition("=")[0] for flag in flags}
    flags += [flag for flag in _CHOSEN if flag.partition("=")[0] not in taken]
    return " ".join([*flags, _DETERMINISTIC] if deterministic else flags)
