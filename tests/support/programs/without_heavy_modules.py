"""The import where no heavy module can be imported; NumPy's own are there before they are hidden."""

import sys

import numpy as np  # noqa: F401

HEAVY = ("importlib.metadata", "email", "pathlib", "platform", "subprocess", "inspect", "ctypes")
HEAVY += ("json", "sysconfig", "shutil", "tempfile", "zipfile", "typing")
sys.modules.update(dict.fromkeys(HEAVY))

import csoftmax  # noqa: E402

print(csoftmax.softmax([1.0, 1.0]), csoftmax.__version__)
