"""References as arguments are dependencies: a task begins when its inputs are there."""

import time

import detray as ray

ray.init()


@ray.remote
def fetch_data(source_id):
    print(f"Fetching data from {source_id}...")
    time.sleep(1)
    return f"data_from_{source_id}"


@ray.remote
def process_data(data1, data2):
    print(f"Processing '{data1}' and '{data2}'...")
    time.sleep(2)
    return f"processed({data1},{data2})"


@ray.remote
def aggregate_results(processed_data):
    print(f"Aggregating '{processed_data}'...")
    time.sleep(1)
    return f"final_result({processed_data})"


# Launch data fetching tasks concurrently
ref1 = fetch_data.remote("source_A")
ref2 = fetch_data.remote("source_B")

print(f"Launched fetch tasks, got refs: {ref1}, {ref2}")

# Launch the processing task; it will wait for ref1 and ref2 to be ready.
# References as arguments are resolved to their values before the task begins.
processed_ref = process_data.remote(ref1, ref2)
print(f"Launched process task, got ref: {processed_ref}")

# Launch the aggregation task; it waits for processed_ref
final_ref = aggregate_results.remote(processed_ref)
print(f"Launched aggregate task, got ref: {final_ref}")

# Get the final result
final_result = ray.get(final_ref)
print(f"Final Result: {final_result}")

ray.shutdown()
