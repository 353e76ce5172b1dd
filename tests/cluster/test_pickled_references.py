"""References that programs pickle by themselves, on three nodes: claimed of their owner."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import detray
from detray import exceptions
from detray.cluster_utils import Cluster
from tests.cluster.conftest import run_program

pytestmark = pytest.mark.filterwarnings("ignore:.*outside of detray's own messages")


@detray.remote
def pack(held: list[detray.ObjectRef[str]]) -> bytes:
    """A reference that was granted, and one to a value of this node."""
    return pickle.dumps({"granted": held[0], "own": detray.put("own")})


@detray.remote
def unpack(data: bytes) -> list[str]:
    """Both values."""
    found = pickle.loads(data)
    return [detray.get(found["granted"]), detray.get(found["own"])]


def test_what_one_node_pickled_another_claims_of_a_third(driver: Cluster) -> None:
    """The driver's value, by a worker on node 1, for one on node 2; and the worker's own."""
    data = detray.get(pack.options(resources={"n1": 1}).remote([detray.put("given")]))
    readers = [unpack.options(resources={f"n{n}": 1}).remote(data) for n in (0, 1, 2)]
    assert detray.get(readers, timeout=30) == [["given", "own"]] * 3
    assert detray.get(pickle.loads(data)["own"], timeout=30) == "own"


def test_another_driver_can_load_it_from_a_file(driver: Cluster, tmp_path: Path) -> None:
    """It is a session of the same cluster, though another job."""
    path = tmp_path / "reference"
    path.write_bytes(pickle.dumps(detray.put("for all")))
    program = f"""
        import pickle, detray
        detray.init(address="{driver.address}")
        print(detray.get(pickle.loads(open({str(path)!r}, "rb").read()), timeout=30))
    """
    status, out, err = run_program(program)
    assert (status, out) == (0, "for all\n"), err


def test_another_cluster_says_that_it_is_not_the_one(driver: Cluster) -> None:
    """Instead of finding its own object of that id, or waiting for it."""
    data = pickle.dumps(detray.put("here"))
    program = f"""
        import pickle, detray
        detray.init(address="local", num_cpus=1)
        mine = detray.put("another")
        try:
            detray.get(pickle.loads({data!r}), timeout=30)
        except detray.exceptions.DetrayError as error:
            print(type(error).__name__)
    """
    status, out, err = run_program(program)
    assert (status, out) == (0, "StaleRefError\n"), err


def test_the_owner_s_death_ends_what_was_pickled() -> None:
    """A get fails with the reason; it neither waits nor takes a core along."""
    with Cluster(initialize_head=True, head_node_args={"num_cpus": 1}) as cluster:
        lost = cluster.add_node(num_cpus=1, resources={"lost": 1})
        cluster.connect()
        data = detray.get(pack.options(resources={"lost": 1}).remote([detray.put("given")]))
        cluster.remove_node(lost, allow_graceful=False)
        found = pickle.loads(data)
        assert detray.get(found["granted"], timeout=30) == "given"
        with pytest.raises(exceptions.OwnerDiedError):
            detray.get(found["own"], timeout=30)
        again = pickle.loads(data)["own"]
        with pytest.raises(exceptions.OwnerDiedError):
            detray.get(again, timeout=30)
