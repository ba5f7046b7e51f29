"""Why Nsight Compute gave no figures, in one line and with what mends it."""

from __future__ import annotations

from rls_bench.errors import ProfileError

# What ncu prints, in the order of what matters most when several appear; then what it means and the mend.
_KNOWN = (
    (
        "ERR_NVGPUCTRPERM",
        "this user may not read the GPU's performance counters; run as root, or give the nvidia module the option "
        "NVreg_RestrictProfilingToAdminUsers=0 (in a container: --cap-add SYS_ADMIN)",
    ),
    (
        "not compatible with Nsight Compute",
        "this ncu and the driver don't go together; install the Nsight Compute of the CUDA version in nvidia-smi",
    ),
    (
        "Profiling is not supported on",
        "this ncu does not know the GPU; install a newer Nsight Compute (GPUs before Volta have none)",
    ),
    (
        "driver resource was unavailable",
        "another profiler holds the counters; pause it (dcgmi profiling --pause) and try again",
    ),
    (
        "Failed to find metric",
        "this ncu lacks a metric that was asked for; install a newer Nsight Compute",
    ),
)


def explain(output: str) -> ProfileError:
    """The error to raise for a run of ncu that printed ``output`` and no table."""
    for sign, meaning in _KNOWN:
        if sign in output:
            return ProfileError(f"ncu: {meaning}")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    refusals = [line.removeprefix("==ERROR==").strip() for line in lines if line.startswith("==ERROR==")]
    if any("application returned an error code" in refusal for refusal in refusals):
        # A traceback's last line is the error itself.
        last = [line for line in lines if not line.startswith("==")][-1:]
        return ProfileError(f"ncu: the profiled call failed: {''.join(last) or 'it said nothing'}")
    if refusals:
        return ProfileError(f"ncu: {refusals[0]}")
    if "No kernels were profiled" in output:
        return ProfileError("ncu: no kernel ran on the GPU during the call; does this backend run there at all?")
    return ProfileError("ncu: no table of metrics in what it wrote; wanted the output of `ncu --csv`, either page")
