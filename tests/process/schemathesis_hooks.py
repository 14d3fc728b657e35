"""What is changed in the requests that schemathesis makes up."""

from __future__ import annotations

import datetime
from typing import Any

import schemathesis


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """Mend what no schema can say.

    7.0 is no count, phases differ, workflows must be there, and windows lie ahead.
    """
    body: Any = case.body
    is_wrong_on_purpose = case.meta is not None and case.meta.generation.mode.is_negative
    if isinstance(body, dict) and not is_wrong_on_purpose:
        # A copy needs its original, and nothing runs in a workflow that is a template.
        body.pop("copy_of", None)
        body.pop("template", None)
        plan = body.get("plan")
        if isinstance(plan, dict) and isinstance(plan.get("phases"), list):
            for number, phase in enumerate(plan["phases"]):
                if isinstance(phase, dict) and phase.get("name") and isinstance(phase["name"], str):
                    phase["name"] = f"{number}{phase['name'][1:]}"
        if {"starts_at", "until_at"} <= body.keys():
            begin = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
            body["starts_at"] = begin.isoformat()
            body["until_at"] = (begin + datetime.timedelta(hours=1)).isoformat()
        case.body = _whole(body)


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(part) for name, part in value.items()}
    return [_whole(part) for part in value] if isinstance(value, list) else value
