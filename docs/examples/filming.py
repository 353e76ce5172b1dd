"""Many small tasks, and two that want the only camera: the second one waits while a CPU is idle."""

import time

import detray

detray.init(num_cpus=2, resources={"camera": 1}, record="filming.trace")


@detray.remote
def develop(picture):
    return picture * 2


@detray.remote(resources={"camera": 1})
def film(seconds):
    time.sleep(seconds)
    return seconds


pictures = [develop.remote(number) for number in range(2_000)]
print(sum(detray.get(pictures)))
films = [film.remote(4.0), film.remote(0.1)]
more = [develop.remote(number) for number in range(100)]
print(sum(detray.get(films)), sum(detray.get(more)))
