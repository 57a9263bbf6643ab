# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, freethreading_compatible=True
"""The kernels, compiled for the oldest processor of the platform."""
include "build.pxi"
