"""Execution points that can run containers: stand-ins for apptainer and docker, and images.

What stands in does what HTCondor calls the real ones for (`runtimes/`); images are Debian roots.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.pool.lab import Lab, TestJob, write_for_job

from htlease_lab.pool import debian
from htlease_lab.pool.instance import base_directory
from htlease_lab.pool.network import EXECUTION_POINTS

_RUNTIMES = Path(__file__).with_name("runtimes")
#: Each in a folder; `/image-name` in it says which it is.
IMAGES = ("python", "bare")


class ContainerSite:
    """Both execution points of a lab's pool."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.pool.directory / "containers"

    def install(self) -> None:
        """Make images and configure the execution points; needs root."""
        images = self.directory / "images"
        images.mkdir(parents=True)
        roots = base_directory() / "roots"
        python = debian.unpacked("trixie", "python3", roots / "python-trixie", print)
        bare = debian.unpacked("bookworm", "busybox-static", roots / "bare", print)
        for name, root in (("python", python), ("bare", bare)):
            # Links: an image is only read.
            subprocess.run(["cp", "-al", root, images / name], check=True)
        for name in IMAGES:
            (images / name / "image-name").write_text(f"{name}\n")
        for ep in EXECUTION_POINTS:
            place = self.directory / ep
            shutil.copytree(_RUNTIMES, place)
            place.chmod(0o755)
            (place / "images").symlink_to("../images")
            self.lab.pool.configure(
                ep,
                "containers",
                f"""\
SINGULARITY = {place}/apptainer
DOCKER = {place}/docker
DOCKER_PERFORM_TEST = False
DOCKERD = {place}/dockerd
DAEMON_LIST = $(DAEMON_LIST), DOCKERD
""",
            )
            self.lab.wait_for((place / "docker.sock").exists, f"docker on {ep}", 30)
            self.lab.pool.kill_startd(ep)  # what a machine can run it finds out at its start
        self.lab.wait_for(self._are_found, "both machines to say that they run containers", 60)

    def _are_found(self) -> bool:
        asked = ["condor_status", "-af", "HasDocker", "HasSandboxImage"]
        said = self.lab.pool.run(asked, check=False).stdout.split()
        return len(said) >= 4 and all(word == "true" for word in said)

    def uninstall(self) -> None:
        for ep in EXECUTION_POINTS:
            self.lab.pool.configure(ep, "containers", None)
            self.lab.pool.kill_startd(ep)
        shutil.rmtree(self.directory)

    def runtime(self, name: str, image: str) -> list[str]:
        """Return the lines of a submit file that put a job into an image."""
        if name == "docker":
            return ["universe = docker", f"docker_image = {image}"]
        folder = f"container_image = {self.directory}/images/{image}/"
        return ["universe = container", folder, "transfer_container = false"]

    def submit(
        self, name: str, lines: list[str], files: dict[str, str], has_wrapper: bool = False
    ) -> TestJob:
        """Submit a job that has a key, and its token among the files that it brings along."""
        lab = self.lab
        lab.submitted += 1
        workflow = f"{name}-{lab.submitted}"
        directory = lab.pool.job_directory(workflow)
        for file, text in files.items():
            write_for_job(directory / file, text.encode(), 0o755)
        write_for_job(directory / "htlease.token", lab.token(workflow).encode(), 0o600)
        if has_wrapper:
            write_for_job(directory / "htlease-ep.pyz", lab.pyz.read_bytes(), 0o755)
        common = f"""
transfer_input_files = {", ".join([*files, "htlease.token"])}
should_transfer_files = YES
+HTLeaseKey = "{workflow}/{workflow}"
request_cpus = 1
request_memory = 64
request_disk = 1
job_max_vacate_time = 5
output = out
error = err
log = log
queue
"""
        cluster = lab.pool.submit("\n".join(lines) + common, cwd=directory)
        return TestJob(lab, f"{cluster}.0", f"{workflow}/{workflow}", directory)
