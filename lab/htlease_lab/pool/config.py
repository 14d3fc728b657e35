"""HTCondor configuration of a pool's daemons and clients, as text. Reads and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Every timer that stands between a fault and the next start is short. SHADOW_LAZY_QUEUE_UPDATE
# and SHADOW_QUEUE_UPDATE_INTERVAL keep their defaults: two starts with one NumJobStarts need them.
_FAST = """
NEGOTIATOR_INTERVAL = 1
NEGOTIATOR_MIN_INTERVAL = 0
NEGOTIATOR_CYCLE_DELAY = 0
NEGOTIATOR_UPDATE_INTERVAL = 5
SCHEDD_INTERVAL = 1
SCHEDD_MIN_INTERVAL = 1
PERIODIC_EXPR_INTERVAL = 2
JOB_START_DELAY = 0
JOB_START_COUNT = 20
UPDATE_INTERVAL = 5
MASTER_UPDATE_INTERVAL = 5
COLLECTOR_UPDATE_INTERVAL = 5
# Else jobs are matched to an execution point that has been cut off for a quarter of an hour.
CLASSAD_LIFETIME = 15
MASTER_BACKOFF_CONSTANT = 1
MASTER_BACKOFF_FACTOR = 1
MASTER_BACKOFF_CEILING = 2
MASTER_CHECK_NEW_EXEC_INTERVAL = 86400
STARTER_INITIAL_UPDATE_INTERVAL = 2
STARTER_UPDATE_INTERVAL = 10
RECONNECT_BACKOFF_CEILING = 2
TCP_KEEPALIVE_INTERVAL = 5
# A recycled shadow would carry the first job's id in its argument list.
SHADOW_WORKLIFE = 0
"""

_SECURITY = """
SEC_DEFAULT_AUTHENTICATION = REQUIRED
SEC_DEFAULT_AUTHENTICATION_METHODS = FS, IDTOKENS
SEC_DEFAULT_INTEGRITY = REQUIRED
SEC_DEFAULT_ENCRYPTION = OPTIONAL
SEC_READ_AUTHENTICATION = OPTIONAL
SEC_CLIENT_AUTHENTICATION = OPTIONAL
ALLOW_READ = *
ALLOW_CLIENT = *
"""


@dataclass(frozen=True)
class Program:
    """Where the HTCondor that is used keeps its files, as seen by the daemons."""

    release: str = "/usr"
    bin: str = "/usr/bin"
    sbin: str = "/usr/sbin"
    lib: str = "/usr/lib/condor"
    libexec: str = "/usr/libexec/condor"
    share: str = "/usr/share/condor"


@dataclass(frozen=True)
class PoolFacts:
    """What all daemons of one pool have in common."""

    domain: str
    ap_address: str
    job_user: str
    password_directory: Path
    program: Program
    loopback: bool


def site_directory(directory: Path) -> Path:
    """Return where a daemon's own directory keeps files that `Pool.configure` adds."""
    return directory / "config.d"


def _base(facts: PoolFacts, host: str, address: str, directory: Path) -> str:
    program = facts.program
    trusted = ", ".join(f"{user}@*" for user in ("condor", "root", facts.job_user))
    lines = [
        f"RELEASE_DIR = {program.release}",
        f"BIN = {program.bin}",
        f"SBIN = {program.sbin}",
        f"LIB = {program.lib}",
        f"LIBEXEC = {program.libexec}",
        f"SHARE = {program.share}",
        f"LOCAL_DIR = {directory}",
        f"LOCAL_CONFIG_DIR = {site_directory(directory)}",
        f"LOG = {directory}/log",
        f"SPOOL = {directory}/spool",
        f"LOCK = {directory}/lock",
        f"RUN = {directory}/run",
        f"EXECUTE = {directory}/execute",
        f"CRED_STORE_DIR = {directory}/cred",
        f"LOCAL_UNIV_EXECUTE = {directory}/local_execute",
        f"CONDOR_HOST = {facts.ap_address}",
        "COLLECTOR_HOST = $(CONDOR_HOST):9618",
        f"NETWORK_INTERFACE = {address}",
        f"NETWORK_HOSTNAME = {host}",
        "BIND_ALL_INTERFACES = False",
        f"UID_DOMAIN = {facts.domain}",
        "TRUST_UID_DOMAIN = True",
        f"TRUST_DOMAIN = {facts.domain}",
        f"SEC_PASSWORD_DIRECTORY = {facts.password_directory}",
        f"SEC_TOKEN_POOL_SIGNING_KEY_FILE = {facts.password_directory}/POOL",
        f"SEC_TOKEN_SYSTEM_DIRECTORY = {directory}/tokens.d",
        f"ALLOW_WRITE = {trusted}",
        f"ALLOW_DAEMON = {trusted}",
        f"ALLOW_NEGOTIATOR = {trusted}",
        f"ALLOW_ADMINISTRATOR = {trusted}",
        "RUNBENCHMARKS = False",
        # The files of the root are those of other pools, too.
        f"HTLEASE_HOOK_DIR = {directory.parent}/hooks",
        "DEFAULT_USERLOG_FORMAT_OPTIONS = ISO_DATE, UTC, SUB_SECOND",
        "MAX_DEFAULT_LOG = 20 Mb",
    ]
    if facts.loopback:
        # On loopback each master's daemons take those of the others for their own family.
        lines.append("SEC_USE_FAMILY_SESSION = False")
    return "\n".join(lines) + _SECURITY + _FAST


def access_point(facts: PoolFacts, host: str, directory: Path) -> str:
    """Configuration of the access point, which is the central manager too."""
    return _base(facts, host, facts.ap_address, directory) + "\n".join(
        [
            "DAEMON_LIST = MASTER, COLLECTOR, NEGOTIATOR, SCHEDD",
            f"FILESYSTEM_DOMAIN = {host}",
            "START_LOCAL_UNIVERSE = True",
            "START_SCHEDULER_UNIVERSE = True",
            "SCHEDD_DEBUG = D_PID D_SUB_SECOND",
            "SHADOW_DEBUG = D_PID D_SUB_SECOND",
            "NEGOTIATOR_DEBUG = D_SUB_SECOND",
            "",
        ]
    )


def execution_point(
    facts: PoolFacts, host: str, address: str, directory: Path, cpus: int = 8
) -> str:
    """Configuration of one execution point: a partitionable slot that always accepts jobs."""
    return _base(facts, host, address, directory) + "\n".join(
        [
            "DAEMON_LIST = MASTER, STARTD",
            f"FILESYSTEM_DOMAIN = {host}",
            f"NUM_CPUS = {cpus}",
            f"MEMORY = {cpus * 512}",
            "NUM_SLOTS = 1",
            "NUM_SLOTS_TYPE_1 = 1",
            "SLOT_TYPE_1 = 100%",
            "SLOT_TYPE_1_PARTITIONABLE = True",
            "START = True",
            "SUSPEND = False",
            "PREEMPT = False",
            "KILL = False",
            "WANT_SUSPEND = False",
            # A frozen starter shall outlive the attempt that takes its place.
            "KILLING_TIMEOUT = 180",
            "STARTD_DEBUG = D_PID D_SUB_SECOND",
            "STARTER_DEBUG = D_PID D_SUB_SECOND",
            "",
        ]
    )


def client(facts: PoolFacts, schedd: str, token_directory: Path) -> str:
    """Configuration for clients outside the pool; the token names the job user."""
    lines: Sequence[str] = (
        f"CONDOR_HOST = {facts.ap_address}",
        "COLLECTOR_HOST = $(CONDOR_HOST):9618",
        f"SCHEDD_HOST = {schedd}",
        f"UID_DOMAIN = {facts.domain}",
        f"FILESYSTEM_DOMAIN = {schedd}",
        f"TRUST_DOMAIN = {facts.domain}",
        "SEC_CLIENT_AUTHENTICATION_METHODS = IDTOKENS",
        "SEC_CLIENT_AUTHENTICATION = REQUIRED",
        f"SEC_TOKEN_DIRECTORY = {token_directory}",
        f"SEC_TOKEN_SYSTEM_DIRECTORY = {token_directory}",
        "",
    )
    return "\n".join(lines)
