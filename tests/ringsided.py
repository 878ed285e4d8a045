"""Starts a broker for the tests that are written in Python."""
import os
import subprocess


def start(command, **options):
    """Runs `command`, which is ringsided with its flags, and waits until it listens. `options` go to Popen. Returns the
    process and the URLs; no URL: it did not start and has ended, or is about to."""
    reading, writing = os.pipe()
    process = subprocess.Popen([*command, f"--ready-fd={writing}"], pass_fds=[writing], **options)
    os.close(writing)
    with os.fdopen(reading) as ready:
        return process, ready.read().split()
