"""Calling a remote function adds a task to the graph; values and references mix as arguments."""

import detray


@detray.remote
def add(a, b):
    return a + b


x_id = add.remote(1, 2)
print(detray.get(x_id))  # prints 3

# These lines have the same behaviour.
print(detray.get(add.remote(1, 2)))  # prints 3
print(detray.get(add.remote(1, detray.put(2))))  # prints 3
print(detray.get(add.remote(detray.put(1), detray.put(2))))  # prints 3
