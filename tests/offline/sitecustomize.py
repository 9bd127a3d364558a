"""Take the network away from a Python and all its children: PYTHONPATH=tests/offline. Loopback alone remains."""

from __future__ import annotations

from loopback import guards


def _refuse(host: object) -> None:
    raise ConnectionRefusedError(f"offline: this machine only, not {host}")


for _owner, _name, _guarded in guards(_refuse):
    setattr(_owner, _name, _guarded)
