"""What htlease adds to a submit file, as lines that need not understand the rest of it. Pure.

`condor_submit` takes the lines after the user's own (`-append`), before each queue statement. They
override attributes of the finished job (`MY.`), or take the user's value in by naming themselves:
`x = $(x),more`. Everything is evaluated by HTCondor for each job, items and `$(Process)` included:

- `Cmd` is the wrapper; arguments, environment, items, counts and universe stay as they are.
- `HTLeaseProgram` is what the wrapper runs: a name in the sandbox where HTCondor would have sent
  the program, else `Cmd` as it would have been. `HTLeaseProgramPath`: where a program that would
  have been sent is on the access point, for a job that turns out to need no file transfer.
- program, plan and token travel as input files.
- a job's default key is its `$(Process)`, which may begin again at a second queue statement: there
  it is followed by a `b`, at the third by `bb`, and so on.

Macros that begin with `htlease_` are ours. `$EVAL(name)` evaluates a macro as an expression.
Source: htcondor-jdl; SubmitHash::SetExecutable, SetTransferFiles; measured on
23.9.6 and 25.14.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from htlease.rules.attempt import NAME_PATTERN
from htlease_cli.submit.exit_policy import exit_policy_lines, or_default

#: Stands before what htlease says through condor_submit's error message.
REFUSAL = "htlease-refuses"

#: Universe, by name and number -> what to do in its place.
_NOT_TAKEN = (
    (("grid", "9"), "give the job to the Job Router, or have the hooks at the remote site"),
    (("java", "10"), "use vanilla with executable = /usr/bin/java and transfer_executable = false"),
    (("parallel", "11"), ("submit it by condor_submit with the wrapper as its executable (README,"
     " One job); its first node then keeps the job's lease")),
    (("vm", "13"), "start the wrapper within the virtual machine"),
)  # fmt: skip


@dataclass(frozen=True)
class Additions:
    """What is added to each job of one submission."""

    #: The wrapper file on the access point, absolute.
    pyz: Path
    server_url: str
    #: Every key is `workflow/...`; of a job that names none, `workflow/$(Process)`.
    workflow: str
    #: Token file on the access point, absolute; may hold `$(Process)`.
    token_path: str
    #: Where condor_submit runs: relative executables start there, not at `initialdir`. None: the
    #: macro `htlease_directory` says it, as the inside of a ClassAd text.
    submit_directory: Path | None
    #: Marks the jobs of one submission, so that they can be found when its answer is lost.
    submission_id: str = ""
    plan_path: Path | None = None
    #: It says what each phase runs, so that the executable is only an input file.
    plan_has_commands: bool = False
    ttl_seconds: float | None = None
    #: How long a job waits for a server that is away.
    wait_server_seconds: float | None = None
    #: What follows a limit on run time, one of ON_WALL_TIME; None: the plan says nothing of it.
    on_wall_time: str | None = None
    #: `SUBMIT_DEFAULT_SHOULD_TRANSFER_FILES` of the access point.
    should_transfer_default: str = "IF_NEEDED"
    #: `condor_submit -interactive`.
    is_interactive: bool = False


def added_lines(additions: Additions) -> tuple[str, ...]:
    """Return the lines, one `name = value` each."""
    return (
        *wrapper_lines(additions),
        *_key_lines(additions),
        *exit_policy_lines(additions.on_wall_time),
    )


def wrapper_lines(additions: Additions) -> tuple[str, ...]:
    """Return what puts the wrapper in front of the program, whatever key the job has."""
    return (
        *_program_lines(additions),
        *_input_lines(additions),
        *_attribute_lines(additions),
    )


def older_lines(version: tuple[int, ...]) -> tuple[str, ...]:
    """Return what comes after those where HTCondor is of this version."""
    return tuple(
        line for until, older in _BEFORE.items() if version < until for line in older.splitlines()
    )


def appended(additions: Additions) -> str:
    """Return all for one `-append` of condor_submit: the lines, and what needs a condition."""
    lines = [*_FORCED_BEFORE, *_QUOTED.splitlines(), *added_lines(additions), *_FORCED_AFTER]
    if not additions.is_interactive:
        for version, older in _BEFORE.items():
            lines += [f"if version >= {'.'.join(map(str, version))}", "else"]
            lines += [*(f"  {line}" for line in older.splitlines()), "endif"]
        lines += _KIND_OF_FIRST.splitlines()
    return "\n".join(lines) + "\n"


#: `+Attribute` goes before a command, so that what the user forces is taken in, or refused. The
#: same lines are read again before each further queue statement.
_FORCED_BEFORE = (
    "if defined htlease_are_lines_read",
    "  htlease_later = $(htlease_later:)b",
    "else",
    "  if defined MY.Cmd",
    f"    error : {REFUSAL}: +Cmd; write it as `executable`",
    "  endif",
    "  if defined MY.TransferExecutable",
    "    if $(MY.TransferExecutable)",
    "    else",
    "      htlease_forced_transfer = false",
    "    endif",
    "  endif",
    "  if defined MY.TransferInput",
    "    htlease_are_inputs_forced = true",
    "  endif",
    "endif",
    "htlease_are_lines_read = true",
)
_FORCED_AFTER = (
    "if defined htlease_are_inputs_forced",
    '  MY.TransferInput = strcat($(MY.TransferInput), "$EVAL(htlease_inputs)")',
    "endif",
)


_INTERACTIVE = """\
htlease_executable = $(interactive_executable:$(interactive_exectuable:/bin/sleep))
htlease_is_sent = false
htlease_program = $(htlease_executable)
htlease_path = "$(htlease_executable)"
"""  # 23.9 has it misspelt

#: What HTCondor would have run, and if it would have sent it.
_PROGRAM = """\
htlease_executable = $(executable:$(Cmd:))
htlease_shell = $(shell:)
htlease_has_shell = "$SUBSTR(htlease_shell,0,1)" != ""
htlease_transfer = $(htlease_forced_transfer:$(transfer_executable:$(TransferExecutable:)))
htlease_is_refused = toLower(substr("$(htlease_transfer)", 0, 1)) == "f"
htlease_is_absolute = substr("$(htlease_executable)", 0, 1) == "/"
htlease_is_in_image = false
htlease_is_wrapper = regexp("^htlease-ep[^/]*[.]pyz$(DOLLAR)", "$Fnx(htlease_executable)")
htlease_is_left = $(htlease_is_refused) || $(htlease_is_in_image) || $(htlease_is_wrapper)
htlease_is_sent = !($(htlease_has_shell) || $(htlease_is_left))
htlease_base = ifThenElse($(htlease_is_absolute), "", "{directory}/")
htlease_path = strcat($(htlease_base), "$(htlease_executable)")
htlease_sent = ifThenElse($(htlease_is_sent), "$Fnx(htlease_executable)", "$(htlease_executable)")
htlease_name = ifThenElse($(htlease_has_shell), "/bin/sh", $(htlease_sent))
htlease_program = $EVAL(htlease_name)
htlease_program_path = $EVAL(htlease_path)
"""
#: What HTCondor did before a version: it did not know `shell`, and took an absolute executable of a
#: container job for a path in the image. Source: HTCondor's history.
_BEFORE = {
    (24, 7, 0): "htlease_shell =\n",
    (23, 10, 0): """\
htlease_image = $(container_image:$(ContainerImage:$(docker_image:$(DockerImage:))))
htlease_is_image_named = member($(htlease_universe), {"container", "docker"})
htlease_has_image = "$(htlease_image)" != "" || $(htlease_is_image_named)
htlease_is_free = ($(htlease_has_image)) && "$(htlease_transfer)" == ""
htlease_is_in_image = $(htlease_is_free) && $(htlease_is_absolute)
""",
}
#: Before 23.10.0, too: what kind of job it is was settled at the first queue statement for all of
#: them. Source: measured on 23.9.6.
_KIND_OF_FIRST = """\
if version >= 23.10.0
elif defined htlease_later
  htlease_has_image = $(htlease_had_image:false)
elif defined container_image
  htlease_had_image = true
elif defined ContainerImage
  htlease_had_image = true
elif defined docker_image
  htlease_had_image = true
elif defined DockerImage
  htlease_had_image = true
elif $EVAL(htlease_is_image_named)
  htlease_had_image = true
endif
"""

#: The list of files with ours, and the arguments, which may be in quotes. `$F` does not take them
#: off: it crashes condor_submit when nothing is in them, and in a line for the same name it expands
#: the macros of items before there are any. A quoted list is replaced in the job instead. In this
#: text a first character that is no quote leaves a text.
_QUOTED = """\
htlease_files = $(transfer_input_files:$(TransferInputFiles:))
htlease_first = $SUBSTR(htlease_files,0,1)
htlease_is_bare = isString("$(htlease_first) + $(htlease_first)")
if $EVAL(htlease_is_bare)
  transfer_input_files = $(transfer_input_files:$(TransferInputFiles:))$EVAL(htlease_inputs)
else
  MY.TransferInput = "$SUBSTR(htlease_files,1,-1)$EVAL(htlease_inputs)"
endif
htlease_all_arguments = $(arguments:$(args:))
htlease_first_argument = $SUBSTR(htlease_all_arguments,0,1)
htlease_is_old = isString("$(htlease_first_argument) + $(htlease_first_argument)")
if $EVAL(htlease_is_old)
  htlease_arguments = $(htlease_all_arguments)
else
  htlease_arguments = $SUBSTR(htlease_all_arguments,1,-1)
endif
"""

_INPUTS = """\
htlease_should_say = "$(ShouldTransferFiles:$(should_transfer_files:{should_transfer}))"
htlease_should = toUpper($(MY.ShouldTransferFiles:$(htlease_should_say)))
htlease_added = strcat("{inputs}", ifThenElse($(htlease_is_sent), ",$(htlease_program_path)", ""))
htlease_is_no = member($(htlease_should), {{"NO", "FALSE", "NEVER"}})
htlease_inputs = ifThenElse($(htlease_is_no), "", $(htlease_added))
"""

_ATTRIBUTES = """\
MY.Cmd = "{pyz}"
MY.TransferExecutable = true
MY.HTLeaseProgram = "$(htlease_program)"
htlease_found_at = ifThenElse($(htlease_is_sent), $(htlease_path), "$(htlease_program)")
MY.HTLeaseProgramPath = "$EVAL(htlease_found_at)"
MY.HTLeaseTokenFile = "{token_path}"
htlease_universe = toLower("$(universe:$(JobUniverse:vanilla))")
htlease_copy = $(copy_to_spool:$(CopyToSpool:))
htlease_command = $Fnx(htlease_executable) $(htlease_arguments)
"""

_KEYS = """\
MY.HTLeaseURL = "{server_url}"
htlease_process = $(Process)$(htlease_later:)
htlease_key = $(HTLeaseKey:$(htlease_process))
htlease_start = ifThenElse(regexp("/", "$(htlease_key)"), "", "{workflow}/")
htlease_own_key = "$EVAL(htlease_start)$(htlease_key)"
MY.HTLeaseKey = $(MY.HTLeaseKey:$(htlease_own_key))
htlease_submission = {submission}
MY.HTLeaseSubmission = $EVAL(htlease_submission)
"""


def _program_lines(additions: Additions) -> list[str]:
    if additions.is_interactive:
        return _INTERACTIVE.splitlines()
    directory = additions.submit_directory
    named = "$(htlease_directory)" if directory is None else in_text(directory)
    return _PROGRAM.format(directory=named).splitlines()


def _input_lines(additions: Additions) -> list[str]:
    inputs = f",{in_text(additions.token_path, may_hold_macros=True)}"
    if additions.plan_path is not None:
        inputs += f",{in_text(additions.plan_path)}"
    return _INPUTS.format(
        should_transfer=additions.should_transfer_default, inputs=inputs
    ).splitlines()


def _attribute_lines(additions: Additions) -> list[str]:
    lines = _ATTRIBUTES.format(
        pyz=in_text(additions.pyz),
        token_path=in_text(additions.token_path, may_hold_macros=True),
    ).splitlines()
    if not additions.is_interactive:
        # What condor_q shows in place of the wrapper.
        lines += or_default("description", "JobDescription", "$(htlease_command)")
    if additions.plan_path is not None:
        lines.append(f'MY.HTLeasePlan = "{in_text(additions.plan_path.name)}"')
        lines.append(f'MY.HTLeasePlanPath = "{in_text(additions.plan_path)}"')
    if additions.ttl_seconds is not None:
        lines.append(f"MY.HTLeaseTTL = {additions.ttl_seconds:g}")
    if additions.wait_server_seconds is not None:
        lines.append(f"MY.HTLeaseWaitServer = {additions.wait_server_seconds:g}")
    return lines


def _key_lines(additions: Additions) -> list[str]:
    return _KEYS.format(
        server_url=in_text(additions.server_url),
        workflow=in_text(additions.workflow),
        submission=_submission(additions),
    ).splitlines()


def _submission(additions: Additions) -> str:
    """Return an expression for the mark."""
    chosen = f'"\\"{additions.submission_id}\\""'
    start = f"{additions.workflow}/"
    is_key = (
        f'(substr($(MY.HTLeaseKey), 0, {len(start)}) == "{start}"'
        f' && regexp("^{NAME_PATTERN}$(DOLLAR)", substr($(MY.HTLeaseKey), {len(start)})))'
    )
    refused = (
        f"{REFUSAL}: HTLeaseKey is not {start}NAME, where NAME has letters, digits and"
        " . _ ~ @ : = + , # -; another WORKFLOW is named by --workflow"
    )
    return unless_refused(f'ifThenElse({is_key}, {chosen}, "{refused}")', additions)


def unless_refused(chosen: str, additions: Additions) -> str:
    """Return an expression; of what cannot run it makes a text that no attribute can have."""
    if not additions.is_interactive:
        chosen = (
            f'ifThenElse("$(htlease_program)" == "", "{REFUSAL}: no executable; the wrapper cannot'
            " call an image's own entry point, so name the program, or use the hooks\", "
            f"{chosen})"
        )
    if additions.plan_has_commands:
        refused = f"{REFUSAL}: arguments; the plan says what each phase runs, so leave them out"
        chosen = f'ifThenElse("$SUBSTR(htlease_arguments,0,1)" == "", {chosen}, "{refused}")'
    # condor_submit spools what `executable` names, under the name that `Cmd` has.
    refused = f"{REFUSAL}: copy_to_spool; leave it out, or spool all with `-- -spool`"
    is_spooled = 'member(toLower("$(htlease_copy)"), {"true", "yes", "t", "y", "1"})'
    chosen = f'ifThenElse({is_spooled}, "{refused}", {chosen})'
    for names, advice in _NOT_TAKEN:
        listed = ", ".join(f'"{name}"' for name in names)
        refused = f"{REFUSAL}: {names[0]} universe; {advice}"
        chosen = f'ifThenElse(member($(htlease_universe), {{{listed}}}), "{refused}", {chosen})'
    return chosen


def in_text(value: object, may_hold_macros: bool = False) -> str:
    """Return what stands between the quotes of a ClassAd text for this value."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return text if may_hold_macros else text.replace("$", "$(DOLLAR)")
