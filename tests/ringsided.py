"""What the tests that are written in Python share: starting a broker, running what must succeed."""
import os
import subprocess
import sys


def call(command, timeout_s, **options):
    """Standard output of a command that must succeed: else the test ends, saying how it ended. `options` go to run."""
    try:
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout_s, check=False, **options)
    except subprocess.TimeoutExpired:
        sys.exit(f"{sys.argv[0]}: '{' '.join(command)}' has not ended after {timeout_s} s")
    if result.returncode != 0:
        sys.exit(f"{sys.argv[0]}: '{' '.join(command)}' ended with status {result.returncode}:\n"
                 f"{result.stderr.decode()}{result.stdout.decode()}")
    return result.stdout.decode()


def start(command, **options):
    """Runs `command`, which is ringsided with its flags, and waits until it listens. `options` go to Popen. Returns the
    process and the URLs; no URL: it did not start and has ended, or is about to."""
    reading, writing = os.pipe()
    process = subprocess.Popen([*command, f"--ready-fd={writing}"], pass_fds=[writing], **options)
    os.close(writing)
    with os.fdopen(reading) as ready:
        return process, ready.read().split()
