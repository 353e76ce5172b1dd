"""put stores a value and names it, get reads it, a list of names is read at once."""

import detray

detray.init(num_cpus=10)

x = [1, 2, 3]
print(detray.put(x))  # prints ObjectRef(...)

x_id = detray.put([1, 2, 3])
print(detray.get(x_id))  # prints [1, 2, 3]

result_ids = [detray.put(i) for i in range(10)]
print(detray.get(result_ids))  # prints [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
