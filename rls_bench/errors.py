"""Every error that rls_bench raises on purpose.

    RlsBenchError
    ├── BackendError            a backend that was asked for by name cannot run
    │   ├── UnknownBackend          no backend has that name
    │   ├── BackendUnavailable      this machine lacks what it needs
    │   └── BackendUnsupported      it cannot do this problem
    ├── InspectionError         a kernel cannot be compiled or read without a GPU
    ├── DriverError             NVIDIA's driver is missing or does not answer
    ├── ProbeError              a probe that was asked for cannot look
    │   ├── UnknownProbe            no probe has that name
    │   ├── ProbeUnavailable        this machine lacks what it needs, or refuses it
    │   └── ProfileError            a profiler failed, or its report cannot be read
    ├── ProblemError            words that describe no problem
    ├── RecordError             a results file cannot be read or written
    ├── PolicyError             a policy file cannot be read
    └── MissingPackage          an optional package is not installed

Wrong arguments to the operator raise plain ``ValueError`` and ``TypeError``, as torch's own functions do.
"""

from __future__ import annotations


class RlsBenchError(Exception):
    """Base of the errors above; the command line prints its message and exits with 2."""


class BackendError(RlsBenchError):
    """A backend that was asked for by name cannot run."""


class UnknownBackend(BackendError):
    """No registered backend has the name asked for."""


class BackendUnavailable(BackendError):
    """This machine lacks something that the backend needs."""


class BackendUnsupported(BackendError):
    """The backend cannot do this problem."""


class DriverError(RlsBenchError):
    """NVIDIA's driver is missing or does not answer."""


class ProbeError(RlsBenchError):
    """A probe that was asked for cannot look."""


class UnknownProbe(ProbeError):
    """No probe has the name asked for."""


class ProbeUnavailable(ProbeError):
    """This machine lacks something that the probe needs, or refuses it."""


class ProfileError(ProbeError):
    """A profiler failed, or its report cannot be read; the message has the mend where one is known."""


class ProblemError(RlsBenchError, ValueError):
    """Words that describe no problem: which word, and what would be understood."""


class RecordError(RlsBenchError):
    """A results file cannot be read or written."""


class InspectionError(RlsBenchError):
    """A kernel cannot be compiled or read without a GPU."""


class PolicyError(RlsBenchError):
    """A policy file cannot be read."""


class MissingPackage(RlsBenchError):
    """An optional package is not installed; the message names the line that installs it."""
