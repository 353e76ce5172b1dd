"""`docs/rerun.md`, Clusters: a task that failed on some node of a cluster runs again here."""

from __future__ import annotations

import re
from pathlib import Path

from detray.cluster_utils import Cluster
from tests.docs.consoles import assert_printed, commands, run_one, surroundings
from tests.docs.programs import DOCS, python_blocks

PAGE = DOCS / "rerun.md"
HOME, ADDRESSES = "/home/ada", ("192.168.1.5", "192.168.1.6")


def test_what_failed_in_a_cluster_fails_here_as_the_page_says(tmp_path: Path) -> None:
    """Its commands, in a cluster of two nodes on this machine."""
    (tmp_path / "stations.py").write_text(python_blocks(PAGE)[-1])
    _, _, section = PAGE.read_text().partition("## Clusters\n")
    section, _, _ = section.partition("\n## ")
    walk = commands(section.replace("```text", "```console"))
    assert [command.line.split()[:3] for command in walk] == [
        ["python", "stations.py"],
        ["detray", "trace", "collect"],
        ["detray", "rerun", "stations.trace"],
    ]
    with Cluster() as cluster:
        for _ in range(2):
            cluster.add_node(num_cpus=1, record_payloads=True, object_store_memory=100 << 20)
        variables = surroundings({"DETRAY_ADDRESS": cluster.address})
        for command in walk:
            output = run_one(command, tmp_path, variables)
            said = plain("\n".join(command.printed))
            assert_printed(
                command._replace(printed=tuple(said.splitlines())),
                plain(output.replace(str(tmp_path), HOME)),
            )


def plain(text: str) -> str:
    """The same on all machines, without the carets that each Python sets otherwise, and without
    what was on its way between processes that went on.
    """
    for address in ADDRESSES:
        text = text.replace(address, "127.0.0.1")
    return re.sub(r"^(?: *[\^~]+ *|.* arrived elsewhere.*)\n", "", text, flags=re.MULTILINE)
