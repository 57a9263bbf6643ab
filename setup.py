"""The extensions and their flags; everything else is in pyproject.toml."""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from glob import glob

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup


def compiler_versions():
    """Major versions of GCC and of Clang, as the compiler says it; 0 is what it is not."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    command = [*shlex.split(compiler), "-E", "-P", "-xc", "-"]
    question = "__clang_major__ __GNUC__"
    try:
        answer = subprocess.run(command, input=question, capture_output=True, text=True).stdout
    except OSError:  # none here: an sdist needs none
        return 0, 0
    clang, gnu = (int(word) if word.isdigit() else 0 for word in ("0 0 " + answer).split()[-2:])
    return (0, clang) if clang else (gnu, 0)


MSVC = sys.platform == "win32"
GCC, CLANG = (0, 0) if MSVC else compiler_versions()
X86_64 = sysconfig.get_platform().endswith("x86_64")  # what is built for; Windows says amd64

# Rounding is part of the contract: no fast-math in any form, and no contraction but the multiply-adds written down,
# whatever CC, CFLAGS and their kin ask for. They stand first on the command line, this last; at the link too, where
# fast-math adds code that flushes subnormals to zero in the whole process.
IEEE = ["-O3", "-fno-fast-math", "-fno-unsafe-math-optimizations", "-ffp-contract=off"]
IEEE += ["-fno-rounding-math"] + ["-mfpmath=sse", "-mrecip=none"] * X86_64
IEEE += ["-fno-signaling-nans", "-fno-single-precision-constant", "-fno-float-store"] * (GCC > 0)
IEEE += ["-mieee-fp"] * (X86_64 and GCC > 0) + ["-fdenormal-fp-math=ieee"] * (CLANG > 0)
if MSVC:
    IEEE = ["/O2", "/fp:precise"]
NO_WAY_BACK = r"-mdaz-ftz|-mpc(32|64)|\S*crtfastmath\S*"  # no flag undoes these
NO_WAY_BACK += r"|-(Xclang|mllvm)[= ]\S*(math|fp|nans|infs|zeros|approx|reassociate)\S*"
for name in ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS", "LDSHARED"):
    if found := re.search(NO_WAY_BACK, os.environ.get(name, "")):
        sys.exit(f"csoftmax needs the arithmetic of IEEE 754: take {found[0]} out of {name}")

# No trap handlers, no errno: comparisons become selects. Loops of 16 lanes must reach the vectoriser as loops.
KERNEL_FLAGS = ["-fno-math-errno", "-fno-trapping-math"] * (not MSVC)
KERNEL_FLAGS += ["-Wno-maybe-uninitialized", "--param=max-completely-peel-times=7"] * (GCC > 0)
# What is inlined anyway must not be inlined once more into its only caller: one function then has the stack of all.
KERNEL_FLAGS += ["-fno-inline-functions-called-once"] * (GCC > 0)
# Kernels are small functions whose flags are constants only once they are inlined.
INLINE = "__forceinline" if MSVC else "__inline__ __attribute__((__always_inline__))"
BUILDS = {"baseline": []}
if X86_64:
    # Loads of whole vectors wait for copies in smaller pieces: the generic tuning makes them of 16 bytes, and so do the
    # others unless they are told, which GCC 11 cannot be.
    BUILDS["v3"] = ["-march=x86-64-v3", "-mtune=haswell"]
    BUILDS["v3"] += ["-mmove-max=256", "-mstore-max=256"] * (GCC >= 12)
    BUILDS["v4"] = ["-march=x86-64-v4", "-mtune=skylake-avx512", "-mprefer-vector-width=512"]
    BUILDS["v4"] += ["-mmove-max=512", "-mstore-max=512"] * (GCC >= 12)

# CSOFTMAX_OPENMP=0 builds without threads, as on a platform that has no OpenMP.
OPENMP = os.environ.get("CSOFTMAX_OPENMP", "0" if sys.platform == "darwin" else "1") != "0"
OPENMP_FLAGS = ["/openmp" if MSVC else "-fopenmp"] * OPENMP
# What is looked up at its first call takes 3 KB of that call's stack: all of it is at the import (-z now).
LINK_FLAGS = IEEE * (not MSVC) + ["-Wl,-z,now"] * sys.platform.startswith("linux")
HEADERS = ["csoftmax/_memory.h", "csoftmax/_platform.h", *sorted(glob("csoftmax/kernels/*.h"))]
NUMPY_API = [
    (name, "NPY_2_0_API_VERSION") for name in ("NPY_NO_DEPRECATED_API", "NPY_TARGET_VERSION")
]

extensions = [
    Extension(
        "csoftmax._isa",
        ["csoftmax/_isa.pyx"],
        define_macros=[("CSOFTMAX_HAS_LEVELS", None)] * X86_64,
        extra_compile_args=IEEE,
        extra_link_args=LINK_FLAGS,
    ),
    Extension(
        "csoftmax._batch",
        ["csoftmax/_batch.pyx"],
        include_dirs=[np.get_include(), "csoftmax"],
        define_macros=NUMPY_API,
        depends=[*HEADERS, *glob("csoftmax/drivers/*.pxi"), "csoftmax/include/csoftmax.h"],
        extra_compile_args=IEEE + OPENMP_FLAGS,
        extra_link_args=LINK_FLAGS + OPENMP_FLAGS * (not MSVC),
    ),
    *(
        Extension(
            f"csoftmax.kernels._{name}",
            [f"csoftmax/kernels/_{name}.pyx"],
            include_dirs=["csoftmax/kernels"],
            define_macros=[("CYTHON_INLINE", INLINE)],
            depends=HEADERS,
            extra_compile_args=IEEE + KERNEL_FLAGS + flags,
            extra_link_args=LINK_FLAGS,
        )
        for name, flags in BUILDS.items()
    ),
]

setup(ext_modules=cythonize(extensions))
