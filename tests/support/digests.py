"""A program for a process of its own: plays seeded programs, prints one digest over all they did.

    python -m tests.support.digests --seeds 0,1,2 --gc off --ballast 3 --leak hash

The digest is a chain over every step, of what the core heard and what it ordered, and its state at
the end. It must be the same in every process. `--leak` plants a decision that depends on it, to
show that the comparison finds one; `--ballast` moves later allocations to other addresses.
"""

from __future__ import annotations

import argparse
import gc
import random
from hashlib import blake2b

import msgspec

from detray.core import freeing
from detray.core.outbox import Outbox
from detray.core.step import Step
from tests.golden.play import play, transcripts
from tests.support.play import Player
from tests.support.world import World

MOVES = 80
_encode = msgspec.msgpack.Encoder().encode


def chain(digest: bytes, world: World) -> bytes:
    """The digest of all steps of a world, after another digest."""
    outbox = Outbox()
    for now_ns, stimuli, effects in world.log:
        state = blake2b(digest, digest_size=16)
        state.update(_encode((now_ns, stimuli)))
        for group in outbox.encode_effects(effects):
            state.update(group)
        digest = state.digest()
    return blake2b(digest + world.local.snapshot(), digest_size=16).digest()


def plant(leak: str) -> None:
    """Make the order in which objects are freed depend on this process."""
    free_suspects = freeing.free_suspects

    def leaky(s: Step) -> None:
        if leak == "hash":
            s.suspects[:] = list(set(s.suspects))
        else:
            s.suspects.sort(key=lambda item: id(item) % 1009)
        free_suspects(s)

    freeing.free_suspects = leaky


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--gc", choices=["on", "off", "often"], default="on")
    parser.add_argument("--ballast", type=int, default=0)
    parser.add_argument("--leak", choices=["hash", "id"], default="")
    options = parser.parse_args()
    if options.gc == "off":
        gc.disable()
    elif options.gc == "often":
        gc.set_threshold(1)
    if options.leak:
        plant(options.leak)
    ballast = [bytes(37) for _ in range(options.ballast * 1_000)]
    digest = b""
    for seed in options.seeds.split(","):
        player = Player(random.Random(int(seed)).randrange)
        player.play(MOVES)
        digest = chain(digest, player.world)
    for path in transcripts():
        for world in play(path.read_text())[1].worlds:
            digest = chain(digest, world)
    print(digest.hex(), len(ballast))


if __name__ == "__main__":
    main()
