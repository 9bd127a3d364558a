"""How fast requests may leave: by the user's caps, by headers, and by what a provider refuses. Pure.

Every method is told the time, so that a test can run hours of traffic in a moment. :class:`~lmsyz.ratelimit.Limiter`
puts the lock and the waiting around it.

Three sources, the slowest decides
----------------------------------
*Caps* are the user's: no span of a minute holds more requests than that.

*Headers* name a limit a minute and what is left of it. What is left may go at once, as the provider says; after a
first refusal that is not believed any more, and requests leave one by one at the named pace.

*Refusals* (429, 529) find the pace where none is named, or where the named one is wrong. It becomes what was let
through lately: what was sent less what was refused, so a request still under way counts as let through until its
refusal is here. A refusal of a request sent before a cut corrects that cut and makes no new one. The first pace is
drawn from a burst, so from there it goes up fast; once it was too fast, slowly, and faster the longer all is quiet.
Where nothing gets through at all, no pace is right: everything pauses, twice as long each time.

Not every refusal is about our pace. A 529 tells of a provider that is overloaded by all its users, and a gateway may
turn away every fourth request; were each of those a cut, the pace would sink to nothing, since what is refused then
does not fall with it. So where cuts follow each other downwards, it is tried at a held pace whether the share refused
falls (a limit) or stays (:mod:`lmsyz.pace_noise`). Where it stays, the pace goes back up to what got through over the
share let through, and only refusals beyond that share cut it. A 429 and a 529 are judged alike: gateways send the one
for the other, and what counts is whether slowing down helps.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import deque

from lmsyz.pace_noise import Noise
from lmsyz.ratelimit_headers import Limits

__all__ = ["Pace"]

HEADROOM = 0.98  # of a named limit: the provider's clock is not ours
SLOWEST_PER_S = 1.0 / 60.0
WINDOW_S, LONG_WINDOW_S = 1.0, 2.0  # over which it is counted what got through
SOON_S = 5.0  # after a cut, too soon for a pace to be back where it was
REMEMBERED_S, REMEMBERED = 4.0, 16  # requests that are counted: so far back, and so many at least
FEW = 5  # requests; fewer say little of a pace
# A wait asked of one request that is meant for all, and the longest that is waited for without a word.
LONG_WAIT_S, LONGEST_WAIT_S = 5.0, 600.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
# Growth a second: while the pace is searched for, and later by the seconds since the last refusal.
SEARCHING_GROWTH = 3.0
GROWTH = ((3.0, 1.01), (6.0, 1.05), (12.0, 1.15), (math.inf, 1.3))


class _Bucket:
    """A token bucket; its level may go below zero, as a debt that is waited for."""

    def __init__(self, rate: float, capacity: float, now: float, level: float) -> None:
        self.rate = rate
        self.capacity = capacity
        self.level = level
        self.at = now

    def refill(self, now: float) -> None:
        if now > self.at:
            self.level = min(self.capacity, self.level + (now - self.at) * self.rate)
            self.at = now

    def ready_at(self, now: float, amount: float) -> float:
        """Return when so much is there; what is more than the bucket holds may leave when it is full."""
        self.refill(now)
        lacking = min(amount, self.capacity) - self.level
        # A level that is a rounding error short would be waited for without end.
        return now if lacking <= 1e-9 else now + lacking / self.rate

    def take(self, now: float, amount: float) -> None:
        self.refill(now)
        # A request over a whole minute's allowance cannot be made to fit; it costs a minute, not an hour.
        self.level -= min(amount, 60.0 * self.rate)


class Pace:
    """The moment from which the next request may leave.

    Parameters
    ----------
    now : float
        The time, in monotonic seconds, as in every method.
    requests_per_minute, tokens_per_minute : float, optional
        The user's caps.
    rng : random.Random, optional
        Spreads the pauses.
    """

    def __init__(
        self,
        now: float,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.n_refused = 0
        self._rng = rng or random.Random()
        self._request_caps: list[_Bucket] = []
        self._token_limits: list[_Bucket] = []
        if requests_per_minute:
            # A quarter of a second may be caught up on; the rate is lower by so much that no minute holds more.
            burst = max(1.0, requests_per_minute / 240.0)
            self._request_caps.append(_Bucket((requests_per_minute - burst + 1.0) / 60.0, burst, now, burst))
        if tokens_per_minute:
            a_second = tokens_per_minute / 60.0
            self._token_limits.append(_Bucket(a_second, a_second, now, a_second))
        self._told_tokens: _Bucket | None = None
        self._last_tokens = 1.0
        self._found: _Bucket | None = None
        self._named: float | None = None
        self._is_believed = True
        self._is_searching = True
        self._is_from_burst = self._has_grown = self._was_held_back = False
        self._pause_until = self._cut_at = self._epoch_from = self._closed_at = -math.inf
        self._grown_at = now
        self._base: float | None = None
        self._n_closed = 0
        self._asked_wait_s = 0.0
        self._noise = Noise(now)
        self._sent: deque[float] = deque()
        self._refused: deque[float] = deque()

    @property
    def rate_per_s(self) -> float | None:
        """Requests a second as named or found; None while neither is known."""
        return self._found.rate if self._found else None

    def pause_left(self, now: float) -> float:
        """Return the seconds for which a provider's refusals let nothing leave; 0 where they do not."""
        return max(0.0, self._pause_until - now)

    def next_at(self, now: float, tokens: float) -> float:
        """Return the earliest moment at which a request of about so many tokens may leave."""
        by_requests = [b.ready_at(now, 1.0) for b in self._request_caps]
        by_tokens = [b.ready_at(now, tokens) for b in self._token_limits]
        at = max([now, self._pause_until, *by_requests, *by_tokens])
        found = self._found.ready_at(now, 1.0) if self._found else now
        self._was_held_back = self._was_held_back or found > at
        return max(at, found)

    def send(self, now: float, tokens: float) -> None:
        """Book a request that leaves now."""
        for bucket in self._request_caps:
            bucket.take(now, 1.0)
        for bucket in self._token_limits:
            bucket.take(now, tokens)
        if self._found:
            self._found.take(now, 1.0)
        self._last_tokens = tokens
        self._noise.sent()
        self._sent.append(now)
        for times in (self._sent, self._refused):
            while len(times) > REMEMBERED and times[0] < now - REMEMBERED_S:
                times.popleft()
        self._end_trial(now)

    def used(self, now: float, more: float) -> None:
        """Take note that a request used so many more tokens than were booked for it."""
        for bucket in self._token_limits:
            bucket.refill(now)
            bucket.level = min(bucket.capacity, bucket.level - more)

    def learn(self, now: float, limits: Limits, in_flight: int) -> None:
        """Take note of what an answer's headers tell, with so many requests still under way."""
        if limits.requests:
            self._learn_requests(now, limits.requests, limits.requests_remaining, in_flight)
        if limits.tokens:
            self._learn_tokens(now, limits.tokens, limits.tokens_remaining)

    def admitted(self, now: float, sent_at: float) -> None:
        """Take note of an answer; a pace that holds goes up."""
        if sent_at > self._closed_at:
            self._n_closed = 0
        passed, self._grown_at = min(now - self._grown_at, WINDOW_S), now
        if sent_at <= self._cut_at or self._found is None or not self._was_held_back or self._noise.is_on_trial:
            return
        self._was_held_back, self._has_grown = False, True
        rate = self._found.rate
        slower = self._slowness(rate)
        quiet = (now - self._cut_at) / slower
        growth = next(g for until, g in GROWTH if quiet <= until) ** (1.0 / slower)
        self._set_rate(now, rate * (SEARCHING_GROWTH if self._is_searching else growth) ** passed)

    def refused(self, now: float, sent_at: float, retry_after: float | None) -> None:
        """Take note of a 429 or 529."""
        self.n_refused += 1
        # The caller's clock stopped a moment after the booking; what counts is the booking.
        i = bisect_right(self._sent, sent_at)
        sent_at = self._sent[i - 1] if i else sent_at
        self._refused.append(sent_at)
        self._asked_wait_s = min(retry_after or 0.0, LONGEST_WAIT_S)
        if self._asked_wait_s > LONG_WAIT_S:
            self.pause(now, self._asked_wait_s)
        self._noise.refused(now, sent_at)
        if sent_at > self._cut_at and (self._n_closed or not self._noise.explains()):
            self._cut(now)
        if sent_at > self._cut_at:
            self._end_trial(now)
        elif sent_at > self._epoch_from and self._closed_at < self._cut_at:
            self._weigh(now)

    def pause(self, now: float, seconds: float) -> None:
        """Let nothing leave for about so long."""
        seconds = min(seconds, LONGEST_WAIT_S) * self._rng.uniform(1.0, 1.05)
        self._pause_until = max(self._pause_until, now + seconds)

    # --- found by refusals ------------------------------------------------------------------------------------

    def _cut(self, now: float) -> None:
        """Begin a new cut: what is sent from here on shows whether it was enough."""
        self._is_from_burst = self._found is None or (self._named is not None and self._is_believed)
        self._is_believed = False
        if self._has_grown:
            self._is_searching = self._has_grown = False
        self._epoch_from, self._cut_at = self._cut_at, now
        self._base = self.rate_per_s
        is_soon = self._base is not None and now - self._epoch_from <= SOON_S * self._slowness(self._base)
        self._noise.cut(now, self._base, is_soon=is_soon)

    def _weigh(self, now: float) -> None:
        """Set the pace by what was let through before the last cut, as far as is known by now."""
        sent, refused = self._between(self._sent), self._between(self._refused)
        first = min(refused)
        n_few = self._noise.n_in_a_row(FEW)
        if self._noise.share and len(sent) >= n_few:
            first = sent[-n_few]  # what was refused before that was no sign
        n_since = sum(t >= first for t in sent)
        is_probe = n_since == len(sent) and (not self._noise.share or self._n_closed > 0)
        if sum(t >= first for t in refused) >= n_since and (n_since >= n_few or is_probe):
            self._close(now)
        elif self._noise.is_doubted:
            through = self._through(REMEMBERED_S)
            if self._n_closed and self._base:  # then the pauses alone have let little through
                through = self._base * (1.0 - self._noise.share)
            self._set_rate(now, self._noise.begin(now, self._base, through))
        elif self._is_from_burst or self._base is None:
            self._set_rate(now, self._through(WINDOW_S))
        else:
            through = (n_since - len(refused)) / max(self._cut_at - first, 1e-3)
            lowest = self._base * (0.5 if n_since >= FEW else 0.9)
            self._set_rate(now, min(max(through, lowest), self._base * 0.97))

    def _close(self, now: float) -> None:
        """Let everything pause, twice as long each time that nothing gets through."""
        if self._n_closed == 0:
            rate = min(self._base or math.inf, max(self._through(LONG_WINDOW_S), 1.0))
        else:
            rate = self._base * 0.9 if self._base else math.inf
        wait = min(FIRST_PAUSE_S * 2.0 ** min(self._n_closed, 10), LONGEST_PAUSE_S)
        self._n_closed += 1
        self._noise.stop()
        self._closed_at = self._cut_at = now
        self.pause(now, max(wait, self._asked_wait_s))
        # One refused request, a probe, says that it is too early, not how fast to go later.
        if len(self._sent) > 1 and rate < math.inf:
            self._set_rate(now, rate)

    def _end_trial(self, now: float) -> None:
        """Go on from a trial that is over, as from a cut: what came before it does not count any more."""
        known = self._noise.share
        rate = self._noise.outcome(now, self.rate_per_s or 0.0)
        if rate is not None:
            self._cut_at = self._epoch_from = now
            self._is_searching = self._is_searching or self._noise.share > known == 0.0
            self._set_rate(now, rate)

    def _slowness(self, rate: float) -> float:
        """Return how much longer than a second it takes to tell something of a pace, or to be worth a refusal."""
        return max(1.0, FEW / rate, self._asked_wait_s)

    def _through(self, span: float) -> float:
        """Return how many a second got through lately; a burst has to be taken over a whole second."""
        since = self._cut_at - span
        n = sum(since < t <= self._cut_at for t in self._sent) - sum(since < t <= self._cut_at for t in self._refused)
        return max(n, 0.5) / min(max(self._cut_at - self._sent[0], WINDOW_S), span)

    def _between(self, times: deque[float]) -> list[float]:
        """Return the moments between the last two cuts."""
        return [t for t in times if self._epoch_from < t <= self._cut_at]

    def _set_rate(self, now: float, rate: float) -> None:
        rate = min(max(rate, SLOWEST_PER_S), self._named or math.inf)
        burst = 1.0 + rate / 20.0
        if self._found is None:
            self._found = _Bucket(rate, burst, now, 0.0)
        self._found.refill(now)
        self._found.rate = rate
        if self._named is None or not self._is_believed:
            self._found.capacity = burst
            self._found.level = min(self._found.level, burst)

    # --- told by headers --------------------------------------------------------------------------------------

    def _learn_requests(self, now: float, limit: float, left: float | None, in_flight: int) -> None:
        self._named = limit / 60.0 * HEADROOM
        left = limit if left is None else left
        if self._found is None:
            self._found = _Bucket(self._named, limit, now, left - in_flight)
        self._found.refill(now)
        if not self._is_believed:
            self._found.rate = min(self._found.rate, self._named)
            return
        self._found.rate, self._found.capacity = self._named, limit
        # One to spare, or answers that come often and say "nothing left" would keep it empty for ever.
        self._found.level = min(self._found.level, left + 1.0)

    def _learn_tokens(self, now: float, limit: float, left: float | None) -> None:
        if self._told_tokens is None:
            self._told_tokens = _Bucket(1.0, limit, now, limit)
            self._token_limits.append(self._told_tokens)
        bucket = self._told_tokens
        bucket.refill(now)
        bucket.rate, bucket.capacity = limit / 60.0 * HEADROOM, limit
        if left is not None:
            bucket.level = min(bucket.level, left + self._last_tokens)
