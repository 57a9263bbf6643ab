"""How many threads calls have started: python threads_of_a_call.py FUNCTION ROWS CLASSES THREADS [THREADS ...].

A line for each call in turn, with all threads that were started so far; the last is for a small call that may use nine.
"""

import os
import sys

import numpy as np

from support.options import called

name, (n_rows, n_classes, *numbers) = sys.argv[1], map(int, sys.argv[2:])
x = np.ones((n_rows, n_classes))


def count():
    return len(os.listdir("/proc/self/task"))


before = count()
for n_threads in numbers:
    called(name, x, n_threads=n_threads)
    print(count() - before)
called(name, x[:10, :3], n_threads=9)
print(count() - before)
