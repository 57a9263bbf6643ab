"""Read or write one element beside an array that lies flush with a guarded page: python beside_a_guard.py PLACE WAY."""

import ctypes
import sys

from support import c_calls, guarded

place, way = sys.argv[1:]
array = guarded.Room(1000).array(place, 125, "float32", range(125))
beside = c_calls.address(array) + (4 * 125 if place.endswith("end") else -4)
print("before", array.sum(), flush=True)
element = ctypes.c_float.from_address(beside)
if way == "read":
    element.value  # noqa: B018
else:
    element.value = 1
print("after")
