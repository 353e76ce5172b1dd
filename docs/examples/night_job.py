"""A nightly job: readings of twelve sensors, grouped by sensor, packed by C code, added up.

    python night_job.py [NIGHT]

NIGHT is a number, by default another one each time. Most nights are fine. About one in thirty
kills a worker process: docs/traces.md finds out why.
"""

import ctypes
import random
import sys

import detray

SENSORS = 12
BATCHES = 6
READINGS = 11


@detray.remote
def read(night, batch):
    """One batch of readings: pairs of sensor and millivolts."""
    chance = random.Random(night * 1000 + batch)
    return [(chance.randrange(SENSORS), chance.randrange(5000)) for _ in range(READINGS)]


@detray.remote
def of_sensor(sensor, *batches):
    """The readings of one sensor, in order."""
    return [value for batch in batches for number, value in batch if number == sensor]


@detray.remote(max_retries=0)
def pack(values):
    """The readings as C has them in memory: their least one, then all of them."""
    numbers = (ctypes.c_int32 * len(values))(*sorted(values))
    least = ctypes.addressof(numbers) if values else None
    packed = ctypes.create_string_buffer(4 + ctypes.sizeof(numbers))
    ctypes.memmove(packed, least, 4)
    ctypes.memmove(ctypes.addressof(packed) + 4, numbers, ctypes.sizeof(numbers))
    return packed.raw[: 4 + ctypes.sizeof(numbers)]


@detray.remote
def total(*parts):
    """All readings added up; what comes first in each part is not one more of them."""
    return sum(sum(memoryview(part).cast("i")[1:]) for part in parts)


def main(night):
    """One night's work."""
    batches = [read.remote(night, batch) for batch in range(BATCHES)]
    sensors = [of_sensor.remote(sensor, *batches) for sensor in range(SENSORS)]
    packed = [pack.remote(values) for values in sensors]
    print(f"night {night}: {detray.get(total.remote(*packed))} mV")


if __name__ == "__main__":
    detray.init(record_payloads=True)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(100_000))
