"""A stand-in for HTCondor-CE on a pool's access point: a schedd and router of its own.

As there, the CE has its own configuration, master, collector and port on the host of the site's
schedd, and routes to that one. The router's defaults are HTCondor-CE's own file.
"""

from __future__ import annotations

import shutil
import subprocess

from tests.pool.lab import PROJECT, Lab
from tests.pool.routing import HOOKS, POLLING_SECONDS

from htlease_lab.pool import Pool

CE_DEFAULTS = PROJECT / "tests/data/htcondor-ce/01-ce-router-defaults.conf"
_PORT = 9619

_CE = """
DAEMON_LIST = MASTER COLLECTOR SCHEDD JOB_ROUTER
COLLECTOR_HOST = $(CONDOR_HOST):{port}
COLLECTOR_PORT = {port}
SHARED_PORT_PORT = {port}
LOCAL_DIR = {directory}
LOCAL_CONFIG_DIR =
LOCAL_CONFIG_FILE =
LOG = {directory}/log
SPOOL = {directory}/spool
LOCK = {directory}/lock
RUN = {directory}/run
EXECUTE = {directory}/execute
SCHEDD_SEND_RESCHEDULE = false
JOB_ROUTER_ROUTE_NAMES = Condor_Pool
JOB_ROUTER_ROUTE_Condor_Pool @=jrt
  TargetUniverse = 5
@jrt
JOB_ROUTER_SCHEDD2_SPOOL = {site_spool}
JOB_ROUTER_SCHEDD2_NAME = {site_schedd}
JOB_ROUTER_SCHEDD2_POOL = $(CONDOR_HOST):9618
QUEUE_SUPER_USER_MAY_IMPERSONATE = .*
JOB_ROUTER_POLLING_PERIOD = {polling}
JOB_ROUTER_DEBUG = D_FULLDEBUG D_SUB_SECOND
JOB_ROUTER_MAX_JOB_MIRROR_UPDATE_LAG = 20
HTLEASE_HOOK_DIR = {hooks}
"""


class ComputingElement(Pool):
    """The CE of a pool that is up; its commands and queue are those of the CE's schedd."""

    def __init__(self, site: Pool) -> None:
        super().__init__(site.name)
        self.place = site.directory / "ce"
        #: The pyz, the router's links and the agent's socket.
        self.hooks = self.place / "hooks"
        self._config = self.place / "condor_config"
        self._log = self.place / "master.out"

    def _environment(self, host: str) -> dict[str, str]:
        return {**super()._environment(host), "CONDOR_CONFIG": str(self._config)}

    def write_config(self, more: str) -> None:
        """Write the configuration, the site's own with what a CE has in place of it."""
        site = (self.directory / "etc/ap.config").read_text()
        own = _CE.format(
            port=_PORT,
            directory=self.place,
            site_spool=self.directory / "ap/spool",
            site_schedd=self.schedd_name,
            polling=POLLING_SECONDS,
            hooks=self.hooks,
        )
        shipped = "".join(
            (PROJECT / "hooks/condor" / f"{name}.conf").read_text()
            for name in ("access-point", "job-router")
        )
        self._config.write_text(site + CE_DEFAULTS.read_text() + own + shipped + more)

    def start(self, lab: Lab, more: str = "") -> None:
        """Start the CE and wait until it takes jobs and routes them."""
        self.place.mkdir(mode=0o755)
        for name in ("log", "spool", "lock", "run", "execute"):
            (self.place / name).mkdir(mode=0o755)
            shutil.chown(self.place / name, *self._daemon_ids())
        self.hooks.mkdir(mode=0o755)
        (self.hooks / "htlease-ep.pyz").write_bytes(lab.pyz.read_bytes())
        (self.hooks / "htlease-ep.pyz").chmod(0o755)
        for hook in HOOKS:
            (self.hooks / f"router_{hook}").symlink_to("htlease-ep.pyz")
        self.write_config(more)
        with self._log.open("wb") as log:
            subprocess.Popen(
                self.command(["condor_master", "-f"], as_root=True),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.wait_for(self._is_ready, f"the CE (see {self.place}/log)", 60)

    def _daemon_ids(self) -> tuple[int, int]:
        owner = (self.directory / "ap/log").stat()
        return owner.st_uid, owner.st_gid

    def _is_ready(self) -> bool:
        routes = self.place / "log/JobRouterLog"
        answers = self.run(["condor_q"], check=False).returncode == 0
        return answers and routes.exists() and "polling state" in routes.read_text()

    def reconfigure(self, more: str) -> None:
        """Replace what the configuration ends with, and have the daemons read it."""
        self.write_config(more)
        self.run(["condor_reconfig", "-all"], as_root=True)

    def stop(self) -> None:
        """End the CE's daemons."""
        self.run(["condor_off", "-master", "-fast"], as_root=True, check=False)
