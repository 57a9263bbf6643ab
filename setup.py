"""The extensions and their flags; everything else is in pyproject.toml."""

import os
import sys
import sysconfig

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

MSVC = sys.platform == "win32"
COMPILER = os.environ.get("CC") or sysconfig.get_config_var("CC") or ""
GCC = sys.platform.startswith("linux") and "clang" not in COMPILER

# Rounding is part of the contract: no fast-math in any form, and no contraction but the multiply-adds written down.
# No trap handlers, no errno: comparisons become selects. Loops of 16 lanes must reach the vectoriser as loops.
KERNEL_FLAGS = (
    ["/O2", "/fp:precise"]
    if MSVC
    else [
        "-O3",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fno-trapping-math",
    ]
    + ["-Wno-maybe-uninitialized", "--param=max-completely-peel-times=7"] * GCC
)
# Kernels are small functions whose flags are constants only once they are inlined.
INLINE = "__forceinline" if MSVC else "__inline__ __attribute__((__always_inline__))"
BUILDS = {"baseline": []}
if sysconfig.get_platform().endswith("x86_64"):  # what is built for; Windows says amd64
    # Loads of whole vectors wait for copies in smaller pieces: the generic tuning makes them of 16 bytes, and so do the
    # others unless they are told.
    BUILDS["v3"] = ["-march=x86-64-v3", "-mtune=haswell"]
    BUILDS["v3"] += ["-mmove-max=256", "-mstore-max=256"] * GCC
    BUILDS["v4"] = ["-march=x86-64-v4", "-mtune=skylake-avx512", "-mprefer-vector-width=512"]
    BUILDS["v4"] += ["-mmove-max=512", "-mstore-max=512"] * GCC

# CSOFTMAX_OPENMP=0 builds without threads, as on a platform that has no OpenMP.
OPENMP = os.environ.get("CSOFTMAX_OPENMP", "0" if sys.platform == "darwin" else "1") != "0"
OPENMP_FLAGS = ["/openmp" if MSVC else "-fopenmp"] * OPENMP
HEADERS = ["csoftmax/_platform.h", "csoftmax/kernels/lanes.h"]
NUMPY_API = [
    ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
    ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
]

extensions = [
    Extension(
        "csoftmax._isa",
        ["csoftmax/_isa.pyx"],
        define_macros=[("CSOFTMAX_HAS_LEVELS", None)] * ("v3" in BUILDS),
    ),
    Extension(
        "csoftmax._batch",
        ["csoftmax/_batch.pyx"],
        include_dirs=[np.get_include(), "csoftmax"],
        define_macros=NUMPY_API,
        depends=[*HEADERS, "csoftmax/_c_functions.pxi", "csoftmax/include/csoftmax.h"],
        extra_compile_args=["/O2" if MSVC else "-O3", *OPENMP_FLAGS],
        extra_link_args=[] if MSVC else OPENMP_FLAGS,
    ),
    *(
        Extension(
            f"csoftmax.kernels._{name}",
            [f"csoftmax/kernels/_{name}.pyx"],
            include_dirs=["csoftmax/kernels"],
            define_macros=[("CYTHON_INLINE", INLINE)],
            depends=HEADERS,
            extra_compile_args=KERNEL_FLAGS + flags,
        )
        for name, flags in BUILDS.items()
    ),
]

setup(ext_modules=cythonize(extensions))
