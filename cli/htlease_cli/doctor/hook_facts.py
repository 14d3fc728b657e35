"""What is to be known of a machine's hooks before they can be judged; asks HTCondor's tools."""

from __future__ import annotations

from htlease.condor.condor_config import CondorConfig
from htlease_cli.doctor.hook_checks import HOOKS, KNOBS
from htlease_cli.file_install import fault_of_hook


def hook_facts(
    config: CondorConfig,
) -> tuple[dict[str, str], tuple[int, ...], dict[str, str]]:
    """Return macros that are set, HTCondor's version, and why it would not run a hook, by macro.

    What runs on the machine is no part of it: see `agent_state`.
    """
    values = config.values(KNOBS)
    faults = {
        knob: fault
        for knob in HOOKS
        if knob in values and (fault := fault_of_hook(config.below(values[knob]))) is not None
    }
    return values, config.version(), faults
