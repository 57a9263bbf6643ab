"""Run setup.py on one C file instead of each extension's: python build_probe.py SOURCE FOLDER.

Builds into the folder; if that is "-", prints the versions that the compiler gives itself and the flags it is given.
"""

import json
import runpy
import sys

import Cython.Build
import setuptools

source, folder = sys.argv[1:]
extensions = []


def from_the_probe(given):
    for extension in given:
        extension.sources, extension.depends = [source], []
        extension.define_macros = [("MODULE", extension.name.rpartition(".")[2])]
    extensions.extend(given)
    return given


Cython.Build.cythonize = from_the_probe
if folder == "-":
    setuptools.setup = lambda **_: None
    flags = runpy.run_path("setup.py")
    compile_flags = {e.name: e.extra_compile_args for e in extensions}
    print(json.dumps([flags["GCC"], flags["CLANG"], compile_flags]))
else:
    sys.argv = ["setup.py", "-q", "build_ext", "--build-lib", folder, "--build-temp", folder]
    runpy.run_path("setup.py")
