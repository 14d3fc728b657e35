"""The submit language of HTCondor as a grammar: files that Hypothesis draws, with what is in them.

A file is a few commands, each by one of its names and with one of its values, macros, a queue
statement or several, and a layout. Every choice is a production that is counted. All files find the
same small directory around them, which `lay_out` makes.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

_SCRIPT = b'#!/bin/sh\necho "$# $*"\n'

#: What the files name, by path; a directory is made for each.
SURROUNDINGS: Mapping[str, bytes] = {
    "run.sh": _SCRIPT,
    "my prog.sh": _SCRIPT,
    "sub/other.sh": _SCRIPT,
    "runA/run.sh": _SCRIPT,
    "runA/in.txt": b"A\n",
    "runB/in.txt": b"B\n",
    "in.txt": b"data\n",
    "more data.txt": b"data\n",
    "job.x509": b"no proxy\n",
    "d1.dat": b"1\n",
    "d2.dat": b"2\n",
    "d3.dat": b"3\n",
    "plain.list": b"a\nb\nc\n",
    "marks.list": b"a\n#c\n b \n",
    "blanks.list": b"a\n\nb\n\n",
    "pairs.list": b"a, 1\nb 2\nc,3,\n",
    "dos.list": b"a\r\nb\r\n",
    "open.list": b"a\nb",
    "latin1.list": b"caf\xe9\nna\xefve\n",
    "empty.list": b"",
    "more.inc": b'from_include = included\n+FromInclude = "$(from_include)"\n',
    "request.inc": b"if defined no_such\n  request_memory = 1\nelse\n  request_memory = 48\nendif\n",
}
#: What is in the environment of `condor_submit`.
ENVIRONMENT = {"SAMPLE": "from-environment", "COUNT": "2", "PAYLOAD": "run.sh", "PATHS": "a:b"}


@dataclass(frozen=True)
class Command:
    """A command: its names, names of the attribute that it makes, and values."""

    names: tuple[str, ...]
    values: tuple[str, ...]
    #: Written with a value that is a ClassAd expression, here a text in quotes.
    attributes: tuple[str, ...] = ()
    #: Values of the attributes, where they are no texts.
    expressions: tuple[str, ...] = ()


EXECUTABLE = Command(
    ("executable", "Executable", "EXECUTABLE", "Cmd", "cmd"),
    (
        "run.sh",
        "./run.sh",
        "sub/other.sh",
        "sub/../run.sh",
        "<here>/run.sh",
        "my prog.sh",
        "<here>/my prog.sh",
        "$(program)",
        "$(no_program:run.sh)",
        "$(folder)/other.sh",
        "$ENV(PAYLOAD)",
        "<here>/$ENV(PAYLOAD)",
        "$Fp(program_path)$Fnx(program_path)",
        "$CHOICE(second,sub/other.sh,run.sh)",
        "$RANDOM_CHOICE(run.sh)",
        "/bin/sh",
    ),
)
#: Programs that are not sent, and other ways to say what runs.
PROGRAMS = (
    "executable = /bin/echo\ntransfer_executable = false",
    "executable = /usr/bin/env\nTransferExecutable = no",
    "Cmd = /bin/echo\ntransfer_executable = $(no)",
    "executable = /bin/echo\n+TransferExecutable = false",
    'executable = run.sh\n+Cmd = "<here>/sub/other.sh"',
    'MY.Cmd = "<here>/sub/other.sh"\nexecutable = run.sh',
    "shell = bash run.sh && echo done",
    "shell = ./run.sh $(Process) | cat > out.txt",
)

COMMANDS: Mapping[str, Command] = {
    "arguments": Command(
        ("arguments", "Arguments", "args", "Args", "arguments2"),
        (
            "one two",
            "one 'two three' four",
            'say \\"hello\\" now',
            '"one \'two three\' ""four"" it\'\'s"',
            '""',
            "\"'' last\"",
            "$(Process) $(Cluster) $(Step) $(Row) $(ItemIndex) $(Item)",
            "\"$(Process) 'of  $(number)' $ENV(SAMPLE)\"",
            "--list=a,b;c # no comment",
            "$$(Arch) $$(NoSuch:none) $$([Memory * 2])",
            "$(DOLLAR)HOME $(DOLLAR)$(DOLLAR) 100%",
            "--server -- run",
        ),
        ("+Args", "+Arguments", "MY.Arguments"),
    ),
    "environment": Command(
        ("environment", "Environment", "env", "Env", "environment2"),
        (
            "A=1;B=two words;C=",
            '"A=1 B=\'two  words\' C=it\'\'s D=""q"""',
            "A=$(number)",
            '"PATH=/opt/app/bin LD_LIBRARY_PATH=./lib"',
            '"N=$(Process) S=$ENV(SAMPLE)"',
            "HTLEASE_KEY=other/one",
        ),
        ("+Environment", "+Env", "MY.Environment"),
    ),
    "getenv": Command(
        ("getenv", "GetEnv", "get_env", "getEnvironment", "get_environment"),
        ("true", "$(yes)", "SAMPLE, PATHS", "!SAMPLE, *", "false"),
    ),
    "input": Command(
        ("input", "stdin", "Input"),
        ("in.txt", "<here>/in.txt", "$(Item:in.txt)", "/dev/null"),
        ("+In",),
    ),
    "output": Command(
        ("output", "stdout", "Out"),
        ("out.$(Process)", "$(number).$(Cluster).out", "/dev/null", "runA/o"),
        ("+Out",),
    ),
    "error": Command(
        ("error", "stderr", "Err"),
        ("err.$(Process)", "out.$(Process)", "$INT(Process,%03d).err"),
        ("MY.Err",),
    ),
    "log": Command(
        ("log", "UserLog", "Log"), ("job.log", "<here>/job.log", "$(Process).log"), ("+UserLog",)
    ),
    "initialdir": Command(
        ("initialdir", "initial_dir", "job_iwd", "InitialDir", "Iwd"),
        ("runA", "<here>/runB", "run$CHOICE(first,A,B)", "$(folder_a)", "."),
    ),
    "should_transfer_files": Command(
        ("should_transfer_files", "ShouldTransferFiles"),
        ("YES", "IF_NEEDED", "NO", "yes", "$(yes_transfer)", "$(never)"),
        ("+ShouldTransferFiles",),
    ),
    "when_to_transfer_output": Command(
        ("when_to_transfer_output", "WhenToTransferOutput"),
        ("ON_EXIT", "ON_EXIT_OR_EVICT", "ON_SUCCESS", "$(when)"),
    ),
    "transfer_input_files": Command(
        ("transfer_input_files", "TransferInputFiles", "Transfer_Input_Files", "TransferInput"),
        (
            "in.txt",
            "in.txt, d1.dat ,d2.dat",
            "in.txt,",
            "<here>/in.txt, sub/",
            "more data.txt",
            "$(files)",
            "$(Item).txt, $(x).dat",
            "in_$(Process).txt, $(Item:in.txt)",
            "https://data.example.org/x.tar, in.txt",
            '"in.txt"',
            '"$(Item:in.txt), d1.dat"',
            '""',
            "",
        ),
        ("+TransferInput", "MY.TransferInput"),
    ),
    "transfer_output_files": Command(
        ("transfer_output_files", "TransferOutputFiles", "TransferOutput"),
        ("out.dat, logs", '""', "$(Process).dat", ""),
        ("+TransferOutput",),
    ),
    "transfer_output_remaps": Command(
        ("transfer_output_remaps", "TransferOutputRemaps"),
        ('"out.dat = $(Process).dat; b = c"',),
        ("+TransferOutputRemaps",),
    ),
    "encryption": Command(("encrypt_input_files", "dont_encrypt_output_files"), ("in.txt",)),
    "streams": Command(("stream_output", "stream_error", "StreamOut"), ("true", "false")),
    "on_exit_remove": Command(
        ("on_exit_remove", "OnExitRemove", "on_exit_remove_check", "OnExitRemoveCheck"),
        ("ExitCode == 0", "(ExitBySignal == False) && (ExitCode =!= 3)", "$(always)"),
        ("+OnExitRemove", "MY.OnExitRemove"),
        ("ExitCode == 0",),
    ),
    "on_exit_hold": Command(
        ("on_exit_hold", "OnExitHold"),
        ("ExitCode =!= 0", "false"),
        ("+OnExitHold",),
        ("ExitCode > 2",),
    ),
    "retries": Command(("max_retries", "MaxRetries", "JobMaxRetries"), ("3", "$(number)", "0")),
    "retry_until": Command(("retry_until", "RetryUntil"), ("ExitCode == 7", "5")),
    "success_exit_code": Command(("success_exit_code", "JobSuccessExitCode"), ("0", "4")),
    "periodic": Command(
        ("periodic_hold", "periodic_remove", "periodic_release", "PeriodicHold", "PeriodicRemove"),
        ("NumJobStarts > 5", "(JobStatus == 2) && (time() - EnteredCurrentStatus > 3600)"),
        ("+PeriodicRemove",),
        ("NumJobStarts > 9",),
    ),
    "wall_time": Command(
        ("allowed_job_duration", "allowed_execute_duration", "job_max_vacate_time"),
        ("3600", "60 * 2"),
    ),
    "lease": Command(("job_lease_duration", "JobLeaseDuration"), ("600", "0")),
    "checkpoint": Command(("checkpoint_exit_code", "CheckpointExitCode"), ("85",)),
    "requirements": Command(
        ("requirements", "Requirements"),
        (
            'OpSys == "LINUX"',
            "Memory > 2048 && \\\n   HasFileTransfer",
            "Machine =!= LastRemoteHost",
            "$(demand)",
        ),
        ("+Requirements",),
        ("true",),
    ),
    "rank": Command(("rank", "preferences", "Rank"), ("Memory", "KFlops * 2")),
    "request_cpus": Command(
        ("request_cpus", "RequestCpus"), ("2", "$(number)"), ("+RequestCpus",), ("4",)
    ),
    "request_memory": Command(
        ("request_memory", "RequestMemory"),
        ("64", "2GB", "ifThenElse(MemoryUsage > 64, 128, 64)"),
        ("MY.RequestMemory",),
        ("512",),
    ),
    "request_disk": Command(("request_disk", "RequestDisk"), ("1024", "1G", "500 MB")),
    "request_other": Command(("request_gpus", "request_licenses", "RequestGpus"), ("1",)),
    "priority": Command(("priority", "prio", "JobPrio"), ("5", "-$(number)")),
    "hold": Command(("hold",), ("true", "$(yes)", "false")),
    "noop": Command(("noop_job", "noop_job_exit_code"), ("true", "$(yes)")),
    "queue_stay": Command(("leave_in_queue", "LeaveJobInQueue"), ("JobStatus == 4", "false")),
    "materialize": Command(
        ("max_materialize", "max_idle", "materialize_max_idle", "JobMaterializeLimit"),
        ("1", "$(number)"),
    ),
    "notification": Command(("notification", "notify_user"), ("never", "error")),
    "signals": Command(("kill_sig", "remove_kill_sig", "KillSig"), ("SIGINT", "2")),
    "names": Command(
        ("batch_name", "JobBatchName", "description", "JobDescription"), ("a batch", "b-$(Cluster)")
    ),
    "accounting": Command(
        ("accounting_group", "AcctGroup", "concurrency_limits", "ConcurrencyLimits"),
        ("group_a.b", "sw_lic:2"),
    ),
    "machine_attributes": Command(("job_machine_attrs", "JobMachineAttrs"), ("Machine, Arch",)),
}

#: By name, by number, by macro; with what some of them need.
UNIVERSES = (
    "universe = vanilla",
    "Universe = VANILLA",
    "universe = 5",
    "JobUniverse = 5",
    "universe = $(kind)",
    "universe = local",
    "universe = 12",
    "universe = container\ncontainer_image = docker://debian",
    "universe = $(kind)\ncontainer_image = image.sif",
    "container_image = docker://debian:12",
    "universe = docker\ndocker_image = debian",
    "docker_image = debian:12",
    "universe = scheduler",
    "universe = 7",
    "universe = parallel\nmachine_count = 2",
    "universe = grid\ngrid_resource = batch slurm",
    "universe = vm\nvm_type = kvm\nvm_memory = 64\nvm_disk = a:b:w:raw",
)

#: Always there, used by the values above or not.
DEFINITIONS = """number = 2
program = run.sh
program_path = sub/other.sh
folder = sub
folder_a = runA
kind = vanilla
yes = true
yes_transfer = YES
never = NO
no = false
always = true
when = ON_EXIT
first = 0
second = 1
files = in.txt, d1.dat
demand = Memory > 1
"""

#: Lines that go with any others.
FREE: tuple[str, ...] = (
    'plain = a b\n+Plain = "$(plain)"',
    '+Default = "$(no_such:a default)"',
    '+DefaultOfDefault = "$(no_such:$(number))"',
    '+FromEnvironment = "$ENV(SAMPLE) $ENV(NO_SUCH_VARIABLE:none)"',
    '+Chosen = "$CHOICE(second,alpha,beta,gamma)"',
    'names = x,y,z\n+ChosenOfList = "$CHOICE(Process,names)"',
    '+Integer = $INT(number)\n+Padded = "$INT(number,%05d)"',
    "sum = $(number) * 3 + 1\n+Sum = $INT(sum)",
    "third = 1.0/3\n+Real = $REAL(third,%.3f)",
    '+Part = "$SUBSTR(program,0,3) $SUBSTR(program,-2)"',
    '+Names = "$Fp(program_path) $Fn(program_path) $Fx(program_path) $Fnx(program_path) $Fd(program_path)"',
    "+Quoted = $Fq(program_path)",
    '+OneOfOne = "$RANDOM_CHOICE(only)" \n+OneNumber = $RANDOM_INTEGER(3,3)',
    '+Basename = "$BASENAME(program_path) $DIRNAME(program_path)"',
    'texts = $STRING(number)\n+Text = "$(texts)"',
    "+Expression = $EVAL(number)",
    '+Later = "$$(Arch)-$$(NoSuch:none)"',
    '+Ids = "$(Cluster).$(Process) $(ClusterId).$(ProcId) $(Row) $(Step)"',
    '+File = "$(SUBMIT_FILE)"',
    '+System = "$(IsLinux) $(DOLLAR)"',
    'My.Mixed = { 1, "two", [ a = 3 ] }',
    "MY.Nothing = undefined",
    'MY.Quotes = "say \\"hi\\" and \\\\"',
    '+HTLeaseKey = "own/key-$(Process)"',
    "HTLeaseKey = named-$(Process)",
    'grown = a\ngrown = $(grown) b\n+Grown = "$(grown)"',
    'long_value @=end\n  first line\n  second line\n@end\n+Long = "$(number)"',
    'if true\n  +Branch = "taken"\nelse\n  +Branch = "left"\nendif',
    "if defined number\n  +Defined = true\nendif",
    "if ! defined nothing_of_it\n  priority = 3\nelif true\n  priority = 4\nelse\n  priority = 5\nendif",
    'if version >= 24.0\n  +Version = "new"\nelse\n  +Version = "old"\nendif',
    "if $(yes)\n  if false\n    request_memory = 1\n  else\n    +Nested = 2\n  endif\nendif",
    "include : more.inc",
    "include ifexist : no-such.inc",
    "INCLUDE : request.inc",
    "include command : echo +FromCommand = 7",
    "include command into cached.inc : echo +FromCommand = 8",
    "# a comment with queue 5 and \\",
    "   # an indented comment",
    "#queue",
    'joined = a \\\n  b \\\n  c\n+Joined = "$(joined)"',
    'joined = a \\\n\n+AfterBlank = "$(joined)"',
    'words = --list a \\\n   queue --flag\n+Words = "$(words)"',
    "queue_length = 3\n+QueueLength = $(queue_length)",
    '+Latin1 = "caf\xe9"',
    'latin1 = na\xefve\n+Latin1Macro = "$(latin1)"',
    "unused_by_anybody = 1",
    "skip_filechecks = true",
    "JobAdInformationAttrs = Cmd",
    "preserve_relative_paths = true",
    "preserve_relative_paths = true\ntransfer_input_files = sub/other.sh",
)

_QUEUES: tuple[str, ...] = (
    "queue",
    "Queue",
    "QUEUE",
    "queue 3",
    "queue $(number)",
    "queue $(number) * 2",
    "queue $ENV(COUNT)",
    "queue 0",
    "queue in (a b c)",
    "queue Item in (a, b, c)",
    "queue x in (a, b,c,)",
    "queue 2 x in (a b)",
    "queue Item in (\n  a\n  b\n)",
    "queue Item in (\n  a b\n\n  # c\n  d,\n)",
    "queue from (\n  a\n  #c\n\n  b c\n)",
    "queue x, y from (\n  a, 1\n  b 2 3\n  c\n)",
    "queue x,y,z from (\n  a b c\n)",
    "queue 2 x y from (\n  a 1\n)",
    "queue Item from (\n)",
    "queue Item from plain.list",
    "queue Item from marks.list",
    "queue Item from blanks.list",
    "queue x,y from pairs.list",
    "queue 2 x,y from pairs.list",
    "queue Item from dos.list",
    "queue Item from open.list",
    "queue Item from latin1.list",
    "queue Item from empty.list",
    "queue Item from printf 'a\\nb\\n' |",
    "queue Item matching *.dat",
    "queue 2 Item matching files (d*.dat)",
    "queue Item matching files *.dat d1.*",
    "queue Item matching dirs run*",
    "queue Item matching any (run*)",
    "queue Item matching no-such-*",
    "queue Item in [1:] (a b c)",
    "queue Item from [:2] plain.list",
    "queue 2 Item in [::2] (a b c d)",
    "queue Item matching [-1:] *.dat",
    "queue 2\nqueue 1",
    "queue\n+Again = true\narguments = again\nqueue 2",
    "queue x in (a b)\nexecutable = sub/other.sh\nqueue",
)

#: What no version takes; at most one in a file.
FAULTS: tuple[str, ...] = (
    "no equals sign",
    "+Bad = = 3",
    "include : no-such.inc",
    "use feature : no_such",
    'joined = a \\\n  # in between\n  c\n+Between = "$(joined)"',
    "queue = 3",
    "universe = no_such",
    "executable = no-such-file.sh",
    "queue Item from no-such.list",
    "queue a b c",
    "queue 2\nthis is after the queue statement",
    "initialdir = no-such-directory",
    "kill_sig = true",
)


def _continued(text: str) -> str:
    return text.replace(" = ", " = \\\n  ", 3)


#: How the text is written down, and what that does to it.
LAYOUTS: Mapping[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "DOS line ends": lambda text: text.replace("\n", "\r\n"),
    "no space around =": lambda text: text.replace(" = ", "="),
    "tabs": lambda text: text.replace(" = ", "\t=\t"),
    "blank lines": lambda text: text.replace("\n", "\n\n", 5),
    "indented": lambda text: "".join(f"  {line}\n" for line in text.splitlines()),
    "no line end at the end": lambda text: text.rstrip("\n"),
    "Latin-1 comment": lambda text: "# caf\xe9 \xa9\n" + text,
    "continuation": _continued,
    "blanks at line ends": lambda text: text.replace("\n", "  \n", 6),
    "form": lambda text: "#!/usr/bin/env condor_submit\n" + text + "\n\n\n",
}


@dataclass(frozen=True)
class SubmitFile:
    """A file of the grammar, and the productions that made it."""

    text: bytes
    productions: frozenset[str]

    def __repr__(self) -> str:
        return f"SubmitFile:\n{self.text.decode('latin-1')}"


def lay_out(directory: Path) -> None:
    """Make the directory that the files expect around them."""
    for name, content in SURROUNDINGS.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content)
        if name.endswith(".sh"):
            path.chmod(0o755)


def productions() -> frozenset[str]:
    """Return the names of all productions."""
    commands = {"executable": EXECUTABLE, **COMMANDS}
    return frozenset(
        [
            *(f"{slot}: {name}" for slot, c in commands.items() for name in (*c.names, *c.attributes)),
            *(f"{slot} = {value}" for slot, c in commands.items() for value in c.values),
            *UNIVERSES, *PROGRAMS, *FREE, *FAULTS, *(f"queue: {text}" for text in _QUEUES), *LAYOUTS,
        ]
    )  # fmt: skip


def _line(random: Random, slot: str, command: Command) -> tuple[str, set[str]]:
    name = random.choice((*command.names, *command.attributes))
    used = {f"{slot}: {name}"}
    if name in command.attributes and command.expressions:
        return f"{name} = {random.choice(command.expressions)}", used
    value = random.choice(command.values)
    used.add(f"{slot} = {value}")
    if name in command.attributes:
        inner = value.strip('"').replace('""', "'").replace('\\"', "'")
        value = f'"{inner}"'
    return f"{name} = {value}", used


@st.composite
def submit_files(draw: st.DrawFn, here: str) -> SubmitFile:
    """Draw a submit file for the directory `here`.

    Hypothesis draws the random numbers alone: its own choices between so many productions are too
    uneven for a few hundred files. `shortest` does what its shrinking would.
    """
    random = draw(st.randoms(use_true_random=True))
    lines: list[str] = []
    used: set[str] = set()

    def take(line: str, its: set[str] | None = None) -> None:
        lines.append(line)
        used.update(its or {line})

    if random.random() < 0.2:
        take(random.choice(PROGRAMS))
    else:
        take(*_line(random, "executable", EXECUTABLE))
    if random.random() < 0.4:
        take(random.choice(UNIVERSES))
    for slot in random.sample(sorted(COMMANDS), random.randint(2, 9)):
        take(*_line(random, slot, COMMANDS[slot]))
    for free in random.sample(FREE, random.randint(0, 3)):
        take(free)
    random.shuffle(lines)
    if random.random() < 0.1:
        take(random.choice(FAULTS))
    layout = random.choice(sorted(LAYOUTS))
    queue = random.choice(_QUEUES)
    used |= {layout, f"queue: {queue}"}
    body = "\n".join([DEFINITIONS.rstrip("\n"), *lines, queue])
    text = LAYOUTS[layout](body + "\n").replace("<here>", here)
    return SubmitFile(text.encode("latin-1"), frozenset(used))


def chosen_files(here: str, count: int, least: int) -> list[SubmitFile]:
    """Return `count` different files in which every production occurs `least` times or more.

    Some more are drawn, of which the ones with rare productions are taken. They are always the
    same with the same grammar.
    """
    drawn: dict[bytes, SubmitFile] = {}

    @settings(
        derandomize=True,
        max_examples=5 * count,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(submit_files(here))
    def draw(file: SubmitFile) -> None:
        drawn.setdefault(file.text, file)

    draw()
    short = Counter(dict.fromkeys(productions(), least))
    chosen: list[SubmitFile] = []
    for worth in (6, 3, 1, 0):
        for text, file in list(drawn.items()):
            if len(chosen) < count and sum(short[name] > 0 for name in file.productions) >= worth:
                chosen.append(drawn.pop(text))
                short.subtract(file.productions)
    return chosen


def chosen_apart(here: str, count: int, least: int) -> list[SubmitFile]:
    """Return `chosen_files` as an interpreter of its own chooses them.

    Hypothesis also draws constants of whatever modules are loaded, and so other files in each run
    of several tests.
    """
    code = "import pickle, sys; from tests import submit_language as l; sys.stdout.buffer.write("
    code += f"pickle.dumps(l.chosen_files({here!r}, {count}, {least})))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=environment
    )
    chosen: list[SubmitFile] = pickle.loads(done.stdout)
    return chosen


def shortest(text: bytes, is_wrong: Callable[[bytes], bool]) -> bytes:
    """Return a file that is wrong in some way too, with as many lines left out as possible."""
    lines = text.splitlines(keepends=True)
    for index in reversed(range(len(lines))):
        without = lines[:index] + lines[index + 1 :]
        if is_wrong(b"".join(without)):
            lines = without
    return b"".join(lines)
