"""A stand-in for OpenAI and Anthropic on this machine: both wire protocols, no key, no network, no cost.

``start()`` starts (or finds) a loopback server in a process of its own and makes it this kernel's default endpoint.
It answers **by documented rules, not by a language model**: a dictionary-method baseline (VADER for tone, patterns for
money, dates and firms, the words of enum values for topics), deterministic over the text. Where no rule applies the
answer is null or its row is missing, never a guess. The rules are listed in :mod:`lmsyz.sandbox.rules`. It can make
every trouble that a paid API makes, on demand and repeatably: see :class:`Faults`.

Every reply says so: its model is ``sandbox-rules``, its fingerprint ``sandbox-rules``, and it has a header
``x-lmsyz-sandbox: rules, not a language model``. Any API key will do, but one that contains ``invalid``.

Batches too: OpenAI's files and batches, and Anthropic's message batches, each request answered as a live one is. They
lie on disk, so that they outlive the server and its being killed; they take a few seconds (``Faults(batch_s=...)``) of
a clock that ``Sandbox.advance`` moves on; and what went in and was paid for is told by ``Sandbox.batch_rows``.

The same answers and troubles come in other providers' dialects, for clients of the user's own and for ``base_url=``:
Azure's (``Sandbox.azure_endpoint``, :mod:`lmsyz.sandbox.azure`), OpenRouter's (``Sandbox.openrouter_base_url``,
:mod:`lmsyz.sandbox.openrouter`), Gemini's (``Sandbox.gemini_base_url``, :mod:`lmsyz.sandbox.gemini`), and Anthropic's
API as Foundry, Bedrock and Vertex speak it (:mod:`lmsyz.sandbox.claude_platforms`). These have no batches.

Models: ``sandbox-rules`` and ``sandbox-rules-mini`` take sampling parameters and both names of the output limit;
``sandbox-rules-reasoning`` is as strict as current models: no sampling parameters, ``max_completion_tokens`` only, no
forced tool on Anthropic's side, and thinking that counts as output. ``gpt-4.1-mini`` and ``claude-haiku-4-5-20251001``,
which the seed package's examples name, are the same rules under those names.

Examples
--------
>>> import lmsyz.sandbox
>>> with lmsyz.sandbox.start(fresh=True, default=False, faults=lmsyz.sandbox.Faults(latency_s=0.001)) as box:
...     box.stats()["n_rows"]
0
"""

from __future__ import annotations

from lmsyz.sandbox.client import Sandbox, start
from lmsyz.sandbox.faults import Faults

__all__ = ["Faults", "Sandbox", "start"]
