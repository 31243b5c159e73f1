"""What a round is timed by: the clock on the wall, or CPU time of all threads.

CPU time is what to compare where the machine has other work. Threads that wait for work
must then not spin: PyTorch's need OMP_WAIT_POLICY=passive, which `PASSIVE` is.
"""

import time

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PASSIVE = {"OMP_WAIT_POLICY": "passive"}
