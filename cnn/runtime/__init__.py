"""The machine: devices, compiler, processes, signals, terminal and logs."""
