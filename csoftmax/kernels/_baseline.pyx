# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernels, compiled for the oldest processor of the platform."""
include "build.pxi"
