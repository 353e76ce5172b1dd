"""Ten sleeps, one after the other: the program that the next one makes parallel."""

import time

# This takes 20 seconds.
for _ in range(10):
    time.sleep(2)
print("slept 20 seconds")
