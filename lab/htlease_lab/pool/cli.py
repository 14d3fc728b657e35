"""The command line of the pool: `python -m htlease_lab.pool VERB`. Runs on the host."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from . import lease_server, network, sharing, toolbox
from .errors import PoolError
from .network import EXECUTION_POINTS
from .pool import JOB_STATUS, Pool
from .software import SUITES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; errors of use are one sentence on stderr."""
    options = command_line().parse_args(arguments)
    try:
        pool = Pool(
            options.name,
            getattr(options, "suite", None),
            getattr(options, "share", ()),
        )
        return _act(pool, options)
    except PoolError as error:
        print(f"htlease: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _act(pool: Pool, options: argparse.Namespace) -> int:
    match options.verb:
        case "up":
            _up(pool, options)
            _print_status(pool)
        case "share":
            for directory in options.directories:
                sharing.share(pool, directory)
        case "down":
            pool.down(options.purge)
            print(f"pool {pool.name} is down")
        case "off":
            pool.power_off()
            print(f"pool {pool.name} is off; `on` starts it again with its queue")
        case "on":
            pool.power_on()
            print(f"pool {pool.name} is on again")
        case "status":
            _print_status(pool)
        case "env":
            for name, value in pool.client_env().items():
                print(f"export {name}={value}")
        case "run":
            return _run(pool, options)
        case "logs":
            _print_logs(pool, options.host, options.lines)
        case "kill":
            _kill(pool, options.daemon, options.target)
        case "vacate":
            pool.vacate(options.job, options.fast)
            print(f"job {options.job} is being evicted")
        case "hold" | "release" | "remove" | "suspend":
            getattr(pool, options.verb)(options.job)
        case "continue":
            pool.continue_(options.job)
        case "freeze" | "thaw":
            done = getattr(pool, options.verb)(options.job)
            word = "frozen" if options.verb == "freeze" else "going on"
            for process in done:
                print(f"{process.pid} {process.program} {word}")
        case "cut":
            pool.cut_network(options.ep)
            print(f"{options.ep} is cut off; `heal {options.ep}` connects it again")
        case "heal":
            pool.heal_network(options.ep)
            print(f"{options.ep} is connected again")
    return 0


def _up(pool: Pool, options: argparse.Namespace) -> None:
    for directory in options.share:
        sharing.check(directory)
    pool.up()
    for directory in options.share:
        sharing.share(pool, directory)
    is_served = options.hooks or options.server is not None
    try:
        toolbox.place(pool.directory / "htlease", Path(pool.state()["root"]))
    except PoolError as missing:
        if is_served:
            raise
        print(f"htlease: {missing}", file=sys.stderr)
    if is_served:
        url = lease_server.provide(pool, options.server or None, options.admin_token_file)
        if options.hooks:
            lease_server.install_hooks(pool, url)


def _run(pool: Pool, options: argparse.Namespace) -> int:
    if not options.command:
        raise PoolError("`run` needs a command, such as `run condor_q` or `run bash`.")
    cwd = Path.cwd()
    if not pool.shows(cwd):
        if options.on == "ap":
            print(
                f"htlease: the access point does not see {cwd} (`htlease pool share .` shows it); "
                f"running in {pool.work_dir}",
                file=sys.stderr,
                flush=True,
            )
        cwd = pool.work_dir
    command = pool.command(options.command, cwd, as_root=options.root, on=options.on)
    return subprocess.call(command)


def _kill(pool: Pool, daemon: str, target: str | None) -> None:
    if daemon == "schedd":
        pool.kill_schedd()
    elif target is None:
        wanted = "an execution point" if daemon == "startd" else "a job id"
        raise PoolError(f"`kill {daemon}` needs {wanted}.")
    elif daemon == "startd":
        pool.kill_startd(target)
    elif daemon == "shadow":
        pool.kill_shadow(target)
    else:
        pool.kill_starter(target)
    print(f"{daemon}{f' of {target}' if target else ''} killed")


def _print_status(pool: Pool) -> None:
    state = pool.state()
    if not pool.is_up():
        raise PoolError(f"Pool {pool.name} has crashed: `up` starts it anew, `logs` shows why.")
    net = pool.network()
    print(f"pool {pool.name}: HTCondor {state['version']} ({state['software']})")
    print(f"  access point      {pool.ap_host}  {net.ap_address}")
    for ep in EXECUTION_POINTS:
        cut = "" if network.is_plugged(net, ep) else "  network cut"
        print(f"  execution point   {pool.ep_host(ep)}  {net.ep_address(ep)}{cut}")
    if not net.bridged:
        print("  network           loopback: `cut` is not possible here")
    print(f"  job user          {pool.job_user}, submits from {pool.work_dir}")
    for directory in state["shared"]:
        print(f"  shared            {directory}")
    if "lease_server" in state:
        hooks = "; every job has its hooks" if lease_server.has_hooks(pool) else ""
        print(f"  lease server      {state['lease_server']['url']}{hooks}")
    for name, value in pool.client_env().items():
        print(f"  clients outside   {name}={value}")
    jobs = pool.jobs()
    for ad in jobs:
        where = ad.get("RemoteHost", "")
        job = f"{ad['ClusterId']}.{ad['ProcId']}"
        print(f"  job {job:13} {JOB_STATUS.get(ad['JobStatus'], '?'):10} {where}".rstrip())
    if not jobs:
        print("  jobs              none in the queue")


def _print_logs(pool: Pool, host: str | None, lines: int) -> None:
    for path in pool.log_files():
        if host in (None, path.parent.parent.name):
            print(f"==> {path} <==")
            text = path.read_text(errors="replace").splitlines()
            print("\n".join(text[-lines:] if lines else []))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all of `htlease` does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"htlease: {message}; `{self.prog} --help` shows how.\n")


def command_line() -> argparse.ArgumentParser:
    """Return what reads the command line, with every verb and its options."""
    named = _Parser(add_help=False)
    named.add_argument("--name", default="default", help="which pool (default: %(default)s)")
    parser = _Parser(
        prog="htlease pool",
        description="A personal HTCondor pool that can be broken on purpose.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> _Parser:
        return verbs.add_parser(name, help=text, description=text, parents=[named])

    up = verb("up", "start the pool and wait until it takes jobs")
    up.add_argument("--suite", choices=SUITES, help="use Debian's HTCondor of this suite")
    up.add_argument(
        "--share", type=Path, action="append", default=[], metavar="DIR",
        help="as `share` does; may be given several times",
    )  # fmt: skip
    up.add_argument(
        "--server", nargs="?", const="", metavar="URL",
        help="start a lease server beside the pool, or use the one at URL",
    )  # fmt: skip
    up.add_argument(
        "--admin-token-file", type=Path, metavar="FILE", help="a token for the server at URL"
    )
    up.add_argument(
        "--hooks", action="store_true",
        help="install htlease's hooks and agent, so that every job has a lease",
    )  # fmt: skip
    share = verb("share", "show directories to the access point, and let the job user write there")
    share.add_argument("directories", nargs="+", type=Path, metavar="DIR")
    down = verb("down", "end the pool; its logs stay")
    down.add_argument("--purge", action="store_true", help="delete its directory too")
    verb("off", "SIGKILL all daemons and jobs; queue and files stay")
    verb("on", "start the daemons again after `off`")
    verb("status", "show addresses, versions and jobs")
    verb("env", "print the environment for clients outside the pool")
    run = verb("run", "run a command in the pool as the job user")
    run.add_argument("--root", action="store_true", help="run it as root")
    run.add_argument(
        "--on", choices=("ap", *EXECUTION_POINTS), default="ap",
        help="on which machine (default: %(default)s)",
    )  # fmt: skip
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    logs = verb("logs", "show the ends of the daemons' logs")
    logs.add_argument("host", nargs="?", choices=("ap", *EXECUTION_POINTS))
    logs.add_argument("-n", "--lines", type=int, default=10)
    vacate = verb("vacate", "evict a running job")
    vacate.add_argument("--fast", action="store_true", help="without a TERM")
    kill = verb("kill", "SIGKILL a daemon: shadow or starter of a job, startd of an EP, schedd")
    kill.add_argument("daemon", choices=("shadow", "starter", "startd", "schedd"))
    kill.add_argument("target", nargs="?", metavar="JOB|EP")
    for parser_of_job in (
        vacate,
        verb("hold", "hold a job"),
        verb("release", "release a held job"),
        verb("remove", "remove a job"),
        verb("suspend", "suspend a job"),
        verb("continue", "let a suspended job go on"),
        verb("freeze", "SIGSTOP starter and payload of a job"),
        verb("thaw", "SIGCONT what was frozen of a job"),
    ):
        parser_of_job.add_argument("job", help="job id, like 12.0")
    for parser_of_ep in (
        verb("cut", "unplug an execution point from the network"),
        verb("heal", "plug an execution point in again"),
    ):
        parser_of_ep.add_argument("ep", choices=EXECUTION_POINTS)
    return parser
