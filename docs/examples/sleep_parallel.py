"""Ten sleeps at the same time: ten tasks without dependencies on ten workers."""

import time

import detray

detray.init(num_cpus=10)


@detray.remote
def sleep(n):
    time.sleep(n)
    return 0


# Submit ten tasks to the scheduler. This finishes almost immediately.
began = time.perf_counter()
result_ids = []
for _ in range(10):
    result_ids.append(sleep.remote(2))

# Wait for the results. With ten workers this takes 2 seconds.
print(detray.get(result_ids))  # prints [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
print(f"{time.perf_counter() - began:.1f} seconds")
