"""The computation graph of ten sleeps: boxes are tasks, ovals are objects.

Dotted lines say who launched whom, solid lines carry data. Needs networkx (`detray[graph]`).
"""

import time

import detray

detray.init(num_cpus=10)


@detray.remote
def sleep(n):
    time.sleep(n)
    return 0


result_ids = [sleep.remote(0.1) for _ in range(10)]
detray.get(result_ids)

graph = detray.graph("sleep.svg")  # or "sleep.dot", for graphviz
kinds = [kind for _, kind in graph.nodes(data="kind")]
print(
    kinds.count("task"), "tasks,", kinds.count("object"), "objects"
)  # prints 11 tasks, 10 objects
