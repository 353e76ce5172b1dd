"""Waiting times of textbook queues, in units of the mean service time.

They are what a simulated cluster must show when its workload is that queue. `load` is always the
share of time that a server is busy, below 1; a ValueError says when it is not.
"""

from __future__ import annotations

import math


def erlang_b(servers: int, load: float) -> float:
    """The probability that all servers are busy when there is no queue (M/M/c/c).

    Source: the recursion B(k) = a B(k-1) / (k + a B(k-1)), stable for any number of servers, where
    a = load * servers.
    """
    if servers < 1 or load < 0:
        raise ValueError(f"a queue needs a server and a load of at least 0: {servers}, {load}")
    offered = load * servers
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = offered * blocked / (k + offered * blocked)
    return blocked


def erlang_c(servers: int, load: float) -> float:
    """The probability that an arrival has to wait (M/M/c)."""
    _check(load)
    blocked = erlang_b(servers, load)
    return blocked / (1 - load * (1 - blocked))


def mmc_wait(servers: int, load: float) -> float:
    """The mean waiting time before service (M/M/c), in service times."""
    return erlang_c(servers, load) / (servers * (1 - load))


def mmc_wait_tail(servers: int, load: float, wait: float) -> float:
    """The probability of waiting longer than `wait` service times (M/M/c)."""
    return erlang_c(servers, load) * math.exp(-servers * (1 - load) * wait)


def mg1_wait(load: float, variation: float) -> float:
    """The mean waiting time of M/G/1, in service times; `variation` = deviation / mean of service.

    Source: Pollaczek and Khinchine.
    """
    _check(load)
    return load * (1 + variation * variation) / (2 * (1 - load))


def md1_wait(load: float) -> float:
    """The mean waiting time when every service takes equally long (M/D/1), in service times."""
    return mg1_wait(load, 0.0)


def little_number(arrivals_per_second: float, mean_stay_s: float) -> float:
    """How many are there on average: L = lambda W, whatever the queue."""
    return arrivals_per_second * mean_stay_s


def power_of_two_tail(load: float, length: int) -> float:
    """The share of servers with at least `length` tasks when each goes to the shorter of two.

    For very many servers, Poisson arrivals, exponential service.
    Source: Mitzenmacher 1996, Vvedenskaya et al. 1996: load ** (2 ** length - 1).
    """
    _check(load)
    # A power of two beyond any float exponent: the tail is then 0 anyway.
    return math.pow(load, 2 ** min(length, 64) - 1)


def _check(load: float) -> None:
    if not 0 <= load < 1:
        raise ValueError(f"no steady state at a load of {load}: it must be in [0, 1)")
