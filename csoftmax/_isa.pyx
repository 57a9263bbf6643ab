# cython: freethreading_compatible=True
"""Which builds of the kernels this processor can run, and which one is used."""

import os
from importlib import import_module

cdef extern from *:
    """
    #ifdef CSOFTMAX_HAS_LEVELS
    #include <cpuid.h>
    /* Level by level what the x86-64 psABI lists, and that the system saves the registers. Only new compilers know
     * the names of the levels, and older ones not even all of their features: these are read from the processor. */
    static int runs_v3(void)
    {
        unsigned a, b, c, d;
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")
            && __builtin_cpu_supports("fma") && __get_cpuid(1, &a, &b, &c, &d)
            && c & 1u << 22 && c & 1u << 29     /* MOVBE, F16C */
            && __get_cpuid(0x80000001, &a, &b, &c, &d)
            && c & 1u << 5;                     /* LZCNT */
    }
    static int runs_v4(void)
    {
        return runs_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512vl");
    }
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
