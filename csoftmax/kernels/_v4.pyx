# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernels, compiled for x86-64-v4."""
include "build.pxi"
