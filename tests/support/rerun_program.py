"""A program with tasks of many kinds, to be recorded: `rerun_program.py TRACE [crash|forever]`.

TRACE may be "-": then nothing is recorded but payloads, in memory.
"""

from __future__ import annotations

import os
import pickle
import random
import sys
import threading
import time
from typing import Any

import numpy as np

import detray
import detray.util

ARRAY = 200_000


@detray.remote
def double(x: Any) -> Any:
    return x * 2


@detray.remote
def nested(n: int) -> int:
    refs = [double.remote(i) for i in range(n)]
    return sum(detray.get(refs))


@detray.remote
def noisy_call() -> bool:
    return detray.get(double.remote(random.random())) > -1


@detray.remote
def noisy_put() -> Any:
    return detray.put(random.uniform(0.1, 0.9))  # never 5e-05: it is shown as "0. ..."


@detray.remote
def noisy_array() -> Any:
    return np.random.default_rng().random(ARRAY)


@detray.remote
def clock() -> float:
    return time.time()


@detray.remote
def puts() -> list[Any]:
    return [detray.put(np.ones(ARRAY)), double.remote(3), detray.put("small")]


@detray.remote
def uses(refs: list[Any]) -> tuple[float, int, str]:
    array, six, text = detray.get(refs)
    return float(array.sum()), six, text


@detray.remote
def waits(n: int) -> tuple[int, int]:
    refs = [double.remote(i) for i in range(n)]
    ready, rest = detray.wait(refs, num_returns=2)
    return len(ready), sum(detray.get(rest))


@detray.remote
def slow() -> int:
    time.sleep(0.4)
    return 1


@detray.remote
def first_of_two() -> tuple[bool, int]:
    late, early = slow.remote(), double.remote(1)
    ready, _ = detray.wait([late, early])
    return ready == [early], detray.get(ready[0]) + detray.get(late)


@detray.remote
def impatient() -> str:
    late = slow.remote()
    try:
        return str(detray.get(late, timeout=0.02))
    except detray.exceptions.GetTimeoutError:
        return f"late: {detray.get(late)}"


@detray.remote(retry_exceptions=True, max_retries=3)
def third_time() -> tuple[Any, int, int]:
    context = detray.get_runtime_context()
    if context.get_attempt_number() < 2:
        raise RuntimeError(f"attempt {context.get_attempt_number()}")
    return context.get_task_id(), context.get_attempt_number(), detray.get(double.remote(1))


@detray.remote(max_retries=1)
def dies_once() -> str:
    if detray.get_runtime_context().get_attempt_number() == 0:
        os._exit(3)
    return "alive"


@detray.remote
def as_they_come(n: int) -> list[int]:
    refs, found = [double.remote(i) for i in range(n)], []
    while refs:
        ready, refs = detray.wait(refs)
        found += detray.get(ready)
    return found


@detray.remote
def unordered(n: int) -> list[int]:
    return list(detray.util.map_unordered(double, range(n)))


@detray.remote
def futures(n: int) -> list[int]:
    return [double.remote(i).future().result() for i in range(n)]


@detray.remote
def pickled() -> bytes:
    return pickle.dumps(detray.put(5))


@detray.remote
def unpickled(data: bytes) -> int:
    return detray.get(pickle.loads(data))


@detray.remote
def defines(n: int) -> list[int]:
    captured = detray.put(n)

    @detray.remote
    def inner(x: int) -> int:
        return x + detray.get(captured)

    return detray.get([inner.remote(i) for i in range(3)])


@detray.remote
def sleeps() -> None:
    time.sleep(60)


@detray.remote
def cancels() -> str:
    ref = sleeps.remote()
    time.sleep(0.1)
    detray.cancel(ref)
    try:
        detray.get(ref)
    except detray.exceptions.TaskCancelledError:
        return "cancelled"
    return "not cancelled"


@detray.remote(max_retries=0)
def exits() -> None:
    sys.exit(4)


@detray.remote
def survives() -> str:
    try:
        detray.get(exits.remote())
    except detray.exceptions.WorkerCrashedError as error:
        return type(error).__name__
    return "it lives"


@detray.remote
def calls_with_arrays() -> float:
    return detray.get(add.remote(np.ones(ARRAY), np.zeros(ARRAY)))


@detray.remote
def add(a: Any, b: Any) -> float:
    return float(a.sum() + b.sum())


@detray.remote
def letters() -> set[str]:
    return {"alpha", "beta", "gamma", "delta"}


@detray.remote
def threads(n: int) -> list[int]:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(detray.get(double.remote(n))))
    thread.start()
    thread.join()
    return found


class Broken(ValueError):
    pass


@detray.remote
def bad(x: int) -> None:
    raise Broken("bad", x)


@detray.remote
def catches(x: int) -> tuple[str, ...]:
    try:
        detray.get(bad.remote(x))
    except Broken as error:
        return (type(error.cause).__name__, *map(str, error.args))
    return ()


@detray.remote
def parse(line: str) -> int:
    number = line.split("=")[1]
    return int(number)


@detray.remote
def length(data: Any) -> int:
    return len(data)


@detray.remote
def plus_one(array: Any) -> Any:
    return array + 1


@detray.remote
def total(array: Any, *, scale: int = 1) -> float:
    return float(array.sum()) * scale


@detray.remote(num_returns=2)
def two(x: int) -> tuple[int, list[int]]:
    return x, [x, x + 1]


@detray.remote(num_returns=0)
def none() -> None:
    pass


class Thing:
    def __init__(self, x: int) -> None:
        self.x = x


@detray.remote
def thing(x: int) -> Thing:
    return Thing(x)


@detray.remote
def depth(n: int) -> int:
    return 0 if n == 0 else detray.get(depth.remote(n - 1)) + 1


@detray.remote
def lock() -> Any:
    return threading.Lock()


@detray.remote(max_retries=0)
def crash(address: int) -> None:
    import ctypes

    ctypes.string_at(address)


def failing(ref: Any) -> None:
    try:
        detray.get(ref)
    except Exception as error:
        print(type(error).__name__)
    else:
        raise AssertionError("it was to fail")


def main() -> None:
    get = detray.get
    get([nested.remote(5), noisy_call.remote(), noisy_put.remote(), clock.remote()])
    assert get(uses.remote(get(puts.remote()))) == (float(ARRAY), 6, "small")
    get([waits.remote(5), third_time.remote(), dies_once.remote(), letters.remote()])
    get([threads.remote(3), catches.remote(5), first_of_two.remote(), impatient.remote()])
    get([as_they_come.remote(6), unordered.remote(6), futures.remote(3), defines.remote(5)])
    assert get(unpickled.remote(get(pickled.remote()))) == 5
    assert get([cancels.remote(), survives.remote()]) == ["cancelled", "WorkerCrashedError"]
    assert get(calls_with_arrays.remote()) == ARRAY
    error = bad.remote(1)
    failing(double.remote(error))
    for line in ("a=1", "b=2", "c:3", "d=4"):
        (failing if ":" in line else get)(parse.remote(line))
    assert get(length.remote(b"x" * 300_000)) == 300_000
    array = plus_one.remote(np.zeros(ARRAY))
    for _ in range(3):
        array = plus_one.remote(array)
    assert get(total.remote(array, scale=2)) == ARRAY * 8
    assert get(total.remote(noisy_array.remote())) > 0
    assert get(total.remote(plus_one.remote(np.zeros(ARRAY // 4)))) == ARRAY // 4
    get(two.remote(5))
    none.remote()
    assert get(thing.remote(4)).x == 4
    assert get(depth.remote(4)) == 4
    failing(lock.remote())
    if "crash" in sys.argv:
        failing(crash.remote(0))
    if "forever" in sys.argv:
        print("ready", flush=True)
        time.sleep(60)


if __name__ == "__main__":
    record = sys.argv[1] if sys.argv[1] != "-" else None
    with detray.init(
        address="local",
        num_cpus=3,
        record=record,
        record_payloads=True,
        object_store_memory=100 << 20,
    ):
        main()
