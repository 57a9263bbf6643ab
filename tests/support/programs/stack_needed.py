"""What is measured of a call, and of a thread, that need so much stack, and then of a call that needs none.

python stack_needed.py LIBRARY BYTES
"""

import sys
import threading

from support import painted

library, n_bytes = sys.argv[1], int(sys.argv[2])
stacks = painted.Painted(library)


def call():
    stacks.library.need(n_bytes)


print(stacks.stack_of(call) - stacks.of_ctypes)
thread = threading.Thread(target=call)
thread.start()
thread.join()
print(max(stacks.stacks_of_workers()))
print(stacks.stack_of(lambda: None) - stacks.of_python)
print(max(stacks.stacks_of_workers()))
