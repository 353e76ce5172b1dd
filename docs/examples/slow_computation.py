"""A reference is a placeholder: the task runs while the program does something else."""

import time

import detray as ray

ray.init()


@ray.remote
def slow_computation(x):
    time.sleep(2)
    return x * 2


# Launch the task
future = slow_computation.remote(5)
print(f"Task launched, got future: {future}")

# We can do other things while the task is running
print("Doing other work...")
time.sleep(1)
print("Finished other work.")

# When we need the result, we get it
result = ray.get(future)
print(f"Result: {result}")

ray.shutdown()
