"""What programs in C, Cython, numba and the like ask for; include/csoftmax.h is their manual."""

import os

from csoftmax import _batch, _checks


def get_include():
    """Folder of csoftmax.h, to be named to a C or C++ compiler.

    Returns
    -------
    str
        The folder's path. Nothing has to be linked; Cython's cimport needs neither folder nor header.

    Examples
    --------
    >>> import os
    >>> import csoftmax
    >>> os.listdir(csoftmax.get_include())
    ['csoftmax.h']
    """
    return os.path.join(os.path.dirname(__file__), "include")


def address(name):
    """Address of a C function, to be called by numba, ctypes, cffi and whatever else takes one.

    Parameters
    ----------
    name : str
        A function's name in csoftmax.h, which says what its arguments are: nothing checks those.

    Returns
    -------
    int
        The address, the same as long as the process runs. Another process has another.

    Raises
    ------
    TypeError
        If `name` is no string.
    ValueError
        If there is no such function; the text lists those that there are.

    Examples
    --------
    >>> import ctypes
    >>> import csoftmax
    >>> doubles = ctypes.POINTER(ctypes.c_double)
    >>> signature = ctypes.CFUNCTYPE(ctypes.c_double, doubles, ctypes.c_ssize_t)
    >>> logsumexp = signature(csoftmax.address("logsumexp_row_f64"))
    >>> logsumexp((ctypes.c_double * 3)(0, 0, 0), 3)
    1.0986122886681098
    """
    return _batch.address(_checks.c_name(name, _batch.C_NAMES, "address"))
