"""A season's forecasts from the readings of 24 stations, one of which has a gap.

    python season.py

Records itself to season.trace. One station fails, one worker is killed, one model is slow, and
there is a mistake in `forecast` that costs most of the time: docs/report.md finds it.
"""

import os
import random
import time

import detray

MARK = "season.killed"


@detray.remote
def download(station):
    """Ten thousand readings, from a server that answers when it likes."""
    time.sleep(0.02 + 0.01 * (station % 5))
    chance = random.Random(station)
    return [chance.random() for _ in range(10_000)]


@detray.remote
def clean(station, readings):
    """The readings that can be believed."""
    time.sleep(0.015)
    if station == 13:
        raise ValueError(f"station {station}: 412 readings are missing between June and August")
    return [value for value in readings if value > 0.01]


@detray.remote
def grid(*series):
    """All stations on one grid: four million bytes."""
    time.sleep(0.12)
    return bytes(4_000_000)


@detray.remote
def cell(field, number):
    """The forecast of one cell of the grid."""
    time.sleep(0.004 + 0.002 * (number % 7))
    return len(field) // 8 + number


@detray.remote
def forecast(field, model):
    """What one model makes of the grid."""
    if model == 2 and not os.path.exists(MARK):
        open(MARK, "w").close()
        os.kill(os.getpid(), 9)  # as the kernel does when memory is short
    cells = [cell.remote(field, number) for number in range(24)]
    time.sleep(0.4 if model == 5 else 0.05)
    return sum(detray.get(cells))


@detray.remote
def report(*forecasts):
    """The highest of them."""
    time.sleep(0.06)
    return max(forecasts)


def main():
    """The season's highest forecast."""
    cleaned = {number: clean.remote(number, download.remote(number)) for number in range(24)}
    good = []
    for ref in cleaned.values():
        try:
            detray.get(ref)
            good.append(ref)
        except ValueError as error:
            print(f"left out: {str(error).splitlines()[-1]}")
    field = grid.remote(*good)
    forecasts = [forecast.remote(field, model) for model in range(8)]
    print(f"highest forecast: {detray.get(report.remote(*forecasts))}")


if __name__ == "__main__":
    detray.init(num_cpus=4, record="season.trace")
    try:
        main()
    finally:
        if os.path.exists(MARK):
            os.remove(MARK)
