#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""measure.py COMMAND...: run DKMS, and print what that needs: seconds, space of /var/lib/dkms in MB, memory of the
largest process in MB.  Fail if it is more than README.md says."""

import os
import resource
import subprocess
import sys
import time


def space():
    """Return the space of all files in MB.  Some may be removed meanwhile."""
    total = 0
    for directory, _, names in os.walk("/var/lib/dkms"):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks / 2048
            except FileNotFoundError:
                pass
    return total


start = time.monotonic()
largest = 0
with subprocess.Popen(sys.argv[1:]) as command:
    while command.poll() is None:
        largest = max(largest, space())
        time.sleep(0.2)
seconds = time.monotonic() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
processors = usage.ru_utime + usage.ru_stime
memory = usage.ru_maxrss / 1024
print(f"{seconds:.0f} s ({processors:.0f} s of a processor), {largest:.0f} MB, {memory:.0f} MB of memory")
# Processor time, as the processors may have other work: a minute of two processors.
sys.exit(command.returncode or processors > 120 or largest > 300 or memory > 1024)
