"""A remote function can return several objects, each under a name of its own."""

import detray


@detray.remote(num_returns=3)
def return_multiple():
    return 0, 0.0, "zero"


a_id, b_id, c_id = return_multiple.remote()
print(detray.get([a_id, b_id, c_id]))  # prints [0, 0.0, 'zero']
