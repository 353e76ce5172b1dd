"""Three tasks, two of which can run at the same time: the graph says which."""

import numpy as np

import detray


@detray.remote
def zeros(shape):
    return np.zeros(shape)


@detray.remote
def dot(a, b):
    return np.dot(a, b)


a_id = zeros.remote([10, 10])
b_id = zeros.remote([10, 10])
c_id = dot.remote(a_id, b_id)
result = detray.get(c_id)
print(result.shape, result.sum())  # prints (10, 10) 0.0
