"""Which builds of the kernels this processor can run, and which one is used."""

import os
from importlib import import_module

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GNUC__)
    static int runs_v3(void) { return __builtin_cpu_supports("x86-64-v3") != 0; }
    static int runs_v4(void) { return __builtin_cpu_supports("x86-64-v4") != 0; }
    #else
    static int runs_v3(void) { return 0; }
    static int runs_v4(void) { return 0; }
    #endif
    """
    bint runs_v3()
    bint runs_v4()


def available():
    """Names of the builds that can run here, the best one last."""
    return ["baseline"] + ["v3"] * runs_v3() + ["v4"] * runs_v4()


def chosen():
    """Name of the build in use: the best one, or what the environment variable CSOFTMAX_ISA asks for."""
    names = available()
    name = os.environ.get("CSOFTMAX_ISA") or names[-1]
    if name not in names:
        raise ImportError(
            f"CSOFTMAX_ISA needs a build that this processor can run: {', '.join(names)}, got {name!r};"
            " unset it to use the best one"
        )
    return name


# A build's module may hold instructions that only its processors have: import no other.
NAME = chosen()
KERNELS = import_module(f"csoftmax.kernels._{NAME}").TABLE
