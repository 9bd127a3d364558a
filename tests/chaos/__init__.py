"""Chaos: live and batch runs under every fault there is, held against the server's own log.

Run by hand, ``python -m tests.chaos --minutes 10 --seed 1``, from the top of the repository; a short run is in the
suite. What counts as right is decided in `audit`, by what the server saw and said, never by what the client says of
itself.
"""
