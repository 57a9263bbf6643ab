# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, freethreading_compatible=True
"""The kernels, compiled for x86-64-v4."""
include "build.pxi"
