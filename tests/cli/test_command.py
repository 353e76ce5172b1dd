"""The command line: what it prints, and with which exit code it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from detray.cli import main
from detray_sim.traces import write_parts
from tests.trace.machine import Machine
from tests.trace.programs import dots, many, recorded, troubles
from tests.trace.simulated import run_cluster


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "run.trace"
    recorded(path, dots, troubles)
    return str(path)


def test_help_teaches(capsys):
    """Without a command the help is shown: every command, and what to do first."""
    assert main([]) == 0
    text = capsys.readouterr().out
    commands = ("start", "stop", "status", "list", "get", "logs")
    for word in (*commands, "replay", "graph", "timeline", "story", "bench", 'record="run.trace"'):
        assert word in text


def test_the_help_of_graph_names_every_format(capsys):
    """Those that can be drawn."""
    from detray.trace.drawings.drawing import FORMATS

    with pytest.raises(SystemExit):
        main(["graph", "--help"])
    text = capsys.readouterr().out
    assert [ending for ending in FORMATS if ending not in text] == []


def test_commands_that_read_no_trace_load_nothing_for_it():
    """They are typed while one waits."""
    program = (
        "import sys; from detray.cli import main; main(['stop', '--address', '127.0.0.1:1']);"
        "print([m for m in ('detray.trace.reading', 'networkx', 'xml.sax') if m in sys.modules])"
    )
    end = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert end.stdout == b"[]\n"


def test_the_version_is_told(capsys):
    """Name and number, and nothing else."""
    import detray

    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"detray {detray.__version__}\n"


def test_replay_counts_what_was_identical(trace, capsys):
    """Exit code 0, steps, stimuli and effects of both cores."""
    assert main(["replay", trace]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["local", "global", "4"]
    assert all(line.endswith("identical") for line in lines[:2])


def test_replay_speaks_json(trace, capsys):
    """The same for programs."""
    assert main(["replay", "--json", trace]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["identical"] is True
    assert [core["name"] for core in report["cores"]] == ["local scheduler", "global scheduler"]
    assert report["cores"][0]["steps"] > 20 and report["difference"] is None


def test_replay_shows_the_first_difference_and_fails(trace, capsys, monkeypatch):
    """Exit code 1, and what one needs to understand it."""
    from detray.core.local import LocalScheduler

    honest = LocalScheduler.handle

    def reversed_effects(self, *stimuli, now_ns):
        return honest(self, *stimuli, now_ns=now_ns)[::-1]

    monkeypatch.setattr(LocalScheduler, "handle", reversed_effects)
    assert main(["replay", trace]) == 1
    text = capsys.readouterr().out
    assert "1 step differs" in text
    assert "expected, as recorded:" in text and "came:" in text and "   >  " in text
    assert main(["replay", "--json", trace]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["difference"]["first_differing_effect"] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay", "/nowhere/at/all"], "/nowhere/at/all: No such file or directory"),
        (["replay", __file__], "is not a detray trace"),
        (["replay"], "the following arguments are required: TRACE"),
        (["dance"], "invalid choice: 'dance'"),
        (["graph", "{trace}", "-o", "picture.png"], "use .svg, .dot, .gv, .json, .graphml"),
        (["story", "{trace}", "nobody"], "knows nothing of 'nobody'"),
        (["story", "{trace}", "worker 99"], "knows nothing of worker 99"),
        (["status", "1"], "no session of driver 1"),
        (["start"], "one of the arguments --head --address is required"),
        (["start", "--head", "--resources", "{{"], "is no JSON object"),
        (["start", "--head", "--labels", "zone"], "neither JSON nor key=value"),
        (["start", "--head", "--object-store-memory", "lots"], "is no size such as 500M"),
        (["start", "--head", "--object-store-memory", "1M"], "75 MiB"),
        (["start", "--head", "--store", "mysql://x"], "say file:PATH, or redis://HOST:PORT/0"),
        (["start", "--head", "--tls-cert", "{trace}"], "--tls-key and --tls-ca is missing"),
        (["start", "--address", "fd00::1:1"], "put brackets around the host"),
        (["start", "--address", "h:1", "--head-only"], "--head-only belongs to --head"),
        (["start", "--head", "--port", "9", "--cluster", "x"], "is no cluster's id: 32 digits"),
        (["list", "things"], "invalid choice: 'things'"),
        (["stop", "--all", "--address", "h:1"], "not allowed with argument"),
    ],
)
def test_bad_input_is_refused_in_one_line(trace, capsys, arguments, says):
    """Exit code 2, one line on stderr, nothing on stdout."""
    assert main([argument.format(trace=trace) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("detray: ") and says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["status", "--address", "127.0.0.1:9"], "no token for the cluster at 127.0.0.1:9"),
        (["start", "--address", "127.0.0.1:9"], "--token-file or DETRAY_TOKEN_FILE"),
        (["start", "--address", "127.0.0.1:9", "--token-file", "{trace}.none"], "cannot be read"),
        (["stop", "--address", "127.0.0.1:9"], "no process of the cluster at 127.0.0.1:9"),
        (["start", "--head", "--port", "9", "--cluster", "a" * 32], "needs that cluster's token"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(trace, capsys, monkeypatch, arguments, says):
    """Exit code 1: the question made sense."""
    for name in ("DETRAY_TOKEN", "DETRAY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert main([argument.format(trace=trace) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("detray: ") and says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["stop", "list nodes", "get tasks 1", "logs"])
def test_where_no_cluster_runs_there_is_nothing_to_show(capsys, monkeypatch, command):
    """Exit code 1, and the reason on stdout."""
    monkeypatch.setattr("detray.cli.asking.heads.find_local", list)
    monkeypatch.setattr("detray.cli.starting.find_local", list)
    monkeypatch.setattr("detray.cli.listing.live_sessions", list)
    assert main(command.split()) == 1
    assert capsys.readouterr().out.startswith("no cluster")


def test_a_trace_that_was_cut_is_read_with_a_remark(trace, capsys):
    """The remark goes to stderr; what is there replays."""
    data = Path(trace).read_bytes()
    Path(trace).write_bytes(data[:-5])
    assert main(["replay", trace]) == 0
    assert "cut off" in capsys.readouterr().err


def test_a_damaged_trace_is_refused_unless_salvaged(trace, capsys):
    """The error says which frame, and what to do."""
    data = bytearray(Path(trace).read_bytes())
    data[-10] ^= 1
    Path(trace).write_bytes(data)
    assert main(["replay", trace]) == 2
    assert "--salvage" in capsys.readouterr().err
    assert main(["replay", "--salvage", trace]) == 0
    assert "damaged" in capsys.readouterr().err


def test_what_cannot_be_replayed_is_said(tmp_path, capsys, monkeypatch):
    """A flight recorder without a snapshot is told, drawn, but not replayed: exit code 2."""
    monkeypatch.setattr("detray.trace.recorder.SNAPSHOT_ROWS_MAX", 0)
    machine = Machine(ring_bytes=100_000)
    many(machine)
    path = machine.recorder.dump(tmp_path / "flight.trace", "asked for")
    assert main(["replay", path]) == 2
    assert "cannot be replayed (the state was too large" in capsys.readouterr().err
    assert main(["graph", path]) == 0


def test_recordings_are_collected(tmp_path, capsys):
    """One trace of all; a message that does not match is exit code 1; without files, a refusal."""
    paths = [str(path) for path in write_parts(run_cluster(2), tmp_path)]
    output = str(tmp_path / "all.trace")
    assert main(["trace", "collect", *paths, "-o", output]) == 0
    said = capsys.readouterr().out
    assert "steps of head, node 0, node 1" in said
    assert "messages between them arrived as they were sent" in said
    assert main(["replay", output]) == 0
    capsys.readouterr()
    assert main(["trace", "collect", "--json", *paths[1:], "-o", output]) == 0
    assert json.loads(capsys.readouterr().out)["unmatched"] > 0
    assert main(["replay", output]) == 0
    assert "collected: no recording of the head was given" in capsys.readouterr().out
    Path(f"{output}.payloads").write_text("of last week")
    assert main(["trace", "collect", *paths, "-o", output]) == 0
    assert f"{output}.payloads was there before and is left as it was" in capsys.readouterr().out


def test_a_graph_is_drawn_beside_its_trace(trace, capsys):
    """The picture has the trace's name, unless another is given."""
    assert main(["graph", trace]) == 0
    picture = Path(trace).with_suffix(".svg")
    assert picture.read_text().startswith("<svg")
    assert capsys.readouterr().out.startswith(str(picture))


def test_a_timeline_is_written_or_printed(trace, capsys):
    """Beside the trace, or to stdout for a pipe."""
    assert main(["timeline", trace]) == 0
    written = json.loads(Path(trace).with_suffix(".timeline.json").read_text())
    capsys.readouterr()
    assert main(["timeline", trace, "-o", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == written


@pytest.mark.parametrize(
    "command", ["timeline", "graph --format dot", "report", "trace collect", "shrink"]
)
def test_no_command_writes_over_what_it_reads(trace, capsys, command):
    """Whatever the trace is called by; it is refused before anything is done."""
    before = Path(trace).read_bytes()
    link = Path(trace).with_name("other.trace")
    link.hardlink_to(trace)
    for output in (trace, *([str(link)] if command != "shrink" else [])):
        assert main([*command.split(), trace, "-o", output]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1) and "is the trace itself" in err
        assert Path(trace).read_bytes() == before


def test_a_story_is_told(trace, capsys):
    """For people, and for programs."""
    assert main(["story", trace, "dot"]) == 0
    assert "driver 1 submits dot" in capsys.readouterr().out
    assert main(["story", "--json", trace, "dot"]) == 0
    assert "submits dot" in json.loads(capsys.readouterr().out)["lines"][0]["text"]


def test_bench_is_handed_its_own_arguments(monkeypatch):
    """Whatever follows the word is the benchmark's business."""
    import detray.bench

    seen: list[list[str]] = []
    monkeypatch.setattr(detray.bench, "main", lambda argv: seen.append(argv) or 7)
    assert main(["bench", "--peers", "all", "--json"]) == 7
    assert seen == [["--peers", "all", "--json"]]


def test_a_reader_that_has_seen_enough_is_no_error(trace):
    """`detray story ... | head -1` ends quietly."""
    command = f"{sys.executable} -m detray.cli story {trace} dot | head -c 1"
    end = subprocess.run(command, shell=True, capture_output=True, timeout=60)
    assert (end.stdout, end.stderr) == (b" ", b"")


def test_output_that_was_closed_before_is_no_error(trace):
    """`detray replay ... >&-`: nobody reads, and the exit code is the answer."""
    command = f"{sys.executable} -m detray.cli replay {trace} >&-"
    end = subprocess.run(command, shell=True, capture_output=True, timeout=60)
    assert (end.returncode, end.stderr) == (0, b"")


def test_a_name_may_stand_behind_options(capsys):
    """argparse alone would call it unrecognized; a second one still is."""
    trace = str(Path(__file__).resolve().parents[2] / "traces" / "decisions.trace")
    assert main(["why", trace, "--depth", "1", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err
    assert main(["rerun", trace, "--trust", "nobody"]) == 2
    assert "decisions.trace.payloads" in capsys.readouterr().err
    assert main(["why", trace, "--depth", "1", "one", "more"]) == 2
    assert "unrecognized arguments: one more" in capsys.readouterr().err
