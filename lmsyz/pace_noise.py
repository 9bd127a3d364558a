"""Which refusals come whatever the pace: what share of the requests they take. Pure.

A limit refuses what is above it; at a pace below what it let through it refuses next to nothing. An overloaded
provider, or a gateway that turns away every fourth request, refuses the same share at any pace, and slowing down for
it gains nothing. So the two can be told apart by sending more slowly and looking whether the share falls.

A trial
-------
*Doubt* begins it: cuts one soon after another, each from a lower pace than the one before. A limit seldom makes many.

*First half.* The pace is held a little below what it was, and refusals are counted, not acted upon. Where few come, it
was a limit: the pace goes on from there, and the next trial takes twice the doubt.

*Second half.* Where enough came, the pace is held well below what got through in the first half. A limit that a full
bucket had hidden, or that fell just now, is found out here, since refusals all but end. The share that is refused even
now is refused whatever the pace. The cuts that raised the doubt were for nothing, and the pace goes back up.

From then on as many refusals as chance makes of that share are no sign of anything. More are, as ever; the trial that
follows them needs no doubt and no first half, and measures the share anew, down to none. So does one every few hundred
requests: a limit that came up meanwhile, or a share that bad luck made too large, would else be hidden for good by the
very share that it is put up with.

Never put up with: three quarters refused, and anything at all while nothing gets through.
"""

from __future__ import annotations

import math

__all__ = ["Noise"]

DOUBTS, MOST_DOUBTS = 3, 6  # cuts in a row, each from a lower pace
SLOW_PER_S = 0.5  # where a trial takes minutes, it needs the most
HELD_FIRST, HELD_SECOND = 0.9, 0.85  # of the pace that was refused; of what got through meanwhile
# Each half is over after so many refusals, if of so many requests; or, with fewer refusals, after the longest.
ENOUGH_REFUSED, ENOUGH_SENT = 5.0, {1: 10.0, 2: 24.0}
LONGEST, LONGEST_S = 120.0, 2.0  # requests, or those of so many seconds
LONGEST_QUIET, SHORTEST_QUIET, QUIET = 0.5, 12.0, 5.0  # none refused: of the longest; requests; refusals not come
FEW_REFUSED = 3.0  # fewer, or so much smaller a share than in the first half: a limit
FALLEN = 0.4
LEAST_THROUGH = 0.3  # of the pace in the first half; a few unlucky requests may seem to say less
RENEWED, RENEWED_S = 500, 5.0  # requests and seconds, both, after which a known share is measured again
LAGS = 4.0  # times that a refusal takes to come; before that most are still under way
MOST_KNOWN, MOST_SEEN, MOST_SEEN_OF = 0.6, 0.75, 12.0  # shares that are put up with; the latter seen of so many
KEPT, POOLED = 256.0, 200.0  # requests that the newest share, and the known one, are taken of
CHANCE, IMPROBABLE = 3.0, 1e-3  # standard deviations; a probability


class Noise:
    """The share of requests that is refused whatever the pace: 0 until a trial has found one.

    Parameters
    ----------
    now : float
        The time, in monotonic seconds, as in every method.
    """

    def __init__(self, now: float) -> None:
        self.share = 0.0
        self._share_of = 1.0  # requests
        self._doubts, self._doubts_needed = 0, DOUBTS
        self._rate_before = self._rate_undoubted = 0.0
        self._half, self._since = 0, now
        self._n_sent = self._n_refused = 0.0  # since then
        self._share_first = self._through = self._rate_if_limit = 0.0
        self._lag_s = 0.0
        self._measured_at, self._n_unmeasured, self._is_stale = now, 0, False

    @property
    def is_on_trial(self) -> bool:
        """Whether the pace is held for a trial."""
        return self._half > 0

    @property
    def is_doubted(self) -> bool:
        """Whether the cut that was told last should begin a trial."""
        needed = MOST_DOUBTS if self._rate_before < SLOW_PER_S else self._doubts_needed
        return self.share > 0.0 or self._doubts >= needed

    def n_in_a_row(self, least: int) -> int:
        """Return how many refusals in a row, `least` or more, chance does not make of the share."""
        return max(least, math.ceil(math.log(IMPROBABLE) / math.log(self.share))) if self.share else least

    def sent(self) -> None:
        """Count a request."""
        self._n_sent += 1.0
        self._n_unmeasured += 1
        if not self._half and self._n_sent >= KEPT:
            self._n_sent, self._n_refused = self._n_sent / 2.0, self._n_refused / 2.0

    def refused(self, now: float, sent_at: float) -> None:
        """Count a refusal."""
        self._is_stale = self._n_unmeasured >= RENEWED and now - self._measured_at >= RENEWED_S
        if sent_at > self._since:
            self._n_refused += 1.0
            self._lag_s = now - sent_at

    def explains(self) -> bool:
        """Tell whether the refusals since the last cut are no reason for another."""
        n, k, p = self._n_sent, self._n_refused, self.share
        if p and self._is_stale and not self._half:
            return False
        if n >= MOST_SEEN_OF and k > MOST_SEEN * n:
            return False
        # The share itself is known only as well as what it was taken of allows.
        spread = p * (1.0 - p) * (n + n * n / self._share_of)
        return self._half > 0 or (p > 0.0 and k <= p * n + CHANCE * math.sqrt(spread) + 1.0)

    def cut(self, now: float, rate: float | None, *, is_soon: bool) -> None:
        """Take note that this pace is about to be cut, soon after the last cut or not."""
        is_lower = rate is not None and rate < self._rate_before
        if rate is None or not is_soon or self._half or (not is_lower and rate >= SLOW_PER_S):
            self._doubts = 0
        elif is_lower:
            self._doubts += 1
        if self._doubts <= 1:
            self._rate_undoubted = rate or 0.0
        self._rate_before = rate or math.inf
        self._start(now, 0)

    def begin(self, now: float, rate: float | None, through: float) -> float:
        """Begin a trial, or correct one that the same cut has begun, and return the pace to hold.

        Before the cut the pace was `rate`, and `through` requests a second got through.
        """
        if not self._half:
            self._start(now, 2 if self.share else 1)
        rate = math.inf if rate is None else rate
        if self._half == 1:
            self._rate_if_limit = 0.95 * rate
            return HELD_FIRST * rate
        self._share_first, self._through, self._rate_if_limit = 0.0, through, through
        return min(rate, HELD_FIRST * through)

    def stop(self) -> None:
        """Break off a trial: nothing gets through."""
        self._half = 0

    def outcome(self, now: float, rate: float) -> float | None:
        """Return the pace to go on at where a trial, or the first half of one, held at `rate`, is over by now."""
        if not self._half:
            return None
        took = now - self._since
        is_enough = self._n_refused >= ENOUGH_REFUSED and self._n_sent >= ENOUGH_SENT[self._half]
        is_over = (is_enough and took > LAGS * self._lag_s) or self._n_sent >= self._longest(rate)
        return self._judge(now, max(took, 1e-3), rate) if is_over else None

    def _longest(self, rate: float) -> float:
        """Return after how many requests a half ends without enough refusals."""
        longest = max(LONGEST, LONGEST_S * rate)
        if self._n_refused:
            return longest
        suspected = self._share_first or self.share
        return min(LONGEST_QUIET * longest, max(SHORTEST_QUIET, QUIET / suspected) if suspected else math.inf)

    def _judge(self, now: float, took: float, rate: float) -> float:
        """End a half, or the trial, and return the pace to go on at."""
        self._measured_at, self._n_unmeasured, self._is_stale = now, 0, False
        half, k = self._half, self._n_refused
        lag_s = min(self._lag_s, took / 2.0)
        n = max(self._n_sent * (1.0 - lag_s / took), k)  # without what is still under way
        self._start(now, 0)
        if k < FEW_REFUSED or k / n < FALLEN * self._share_first:
            self._share_first = self.share = 0.0
            self._doubts, self._doubts_needed = 0, min(2 * self._doubts_needed, MOST_DOUBTS)
            return self._rate_if_limit
        if half == 1:
            self._start(now, 2)
            self._share_first = k / n
            self._through = self._rate_if_limit = max((n - k) / (took - lag_s), LEAST_THROUGH * rate)
            return HELD_SECOND * self._through
        rate_undoubted = 0.0 if self.share else self._rate_undoubted
        self._learn(k / n, n)
        self._share_first, self._doubts, self._doubts_needed = 0.0, 0, DOUBTS
        return max(self._through / (1.0 - self.share), rate_undoubted)

    def _learn(self, share: float, n: float) -> None:
        """Take a share that was seen for the known one, or the two together where they agree."""
        p, m = self.share, self._share_of
        if p and abs(share - p) < 2.0 * math.sqrt(p * (1.0 - p) * (1.0 / m + 1.0 / n)):
            share, n = (p * m + share * n) / (m + n), min(m + n, POOLED)
        self.share, self._share_of = min(share, MOST_KNOWN), n

    def _start(self, now: float, half: int) -> None:
        self._since, self._half = now, half
        self._n_sent = self._n_refused = 0.0
