#!/usr/bin/env python3
"""Claims one subjob after the other, each at an instant at which all other claimants do the same.

claim.py HOST PORT WORKFLOW BEGIN_AT ROUNDS INTERVAL_SECONDS CLAIMANTS: prints `ROUND STATUS CODE`
for each answer. Claimants are processes; the instants are those of the machine's clock.
"""

import http.client
import json
import os
import pathlib
import sys
import time
import uuid

HOST, PORT, WORKFLOW = sys.argv[1:4]
BEGIN_AT, ROUNDS, INTERVAL, CLAIMANTS = (float(word) for word in sys.argv[4:])
TOKEN = pathlib.Path("htlease.token").read_text().strip()


def claim_all() -> list[str]:
    connection = http.client.HTTPConnection(HOST, int(PORT), timeout=60)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    nonce, answers = uuid.uuid4().hex, []
    for number in range(int(ROUNDS)):
        body = {
            "request_id": uuid.uuid4().hex,
            "nonce": nonce,
            "global_job_id": "ap#1.0#1",
            "evidence": {"job_starts": 1, "shadow_starts": 1},
        }
        time.sleep(max(0.0, BEGIN_AT + number * INTERVAL - time.time()))
        path = f"/v1/workflows/{WORKFLOW}/subjobs/round-{number}/acquire"
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        code = json.loads(answer.read()).get("code", "granted")
        answers.append(f"{number} {answer.status} {code}")
    return answers


def main() -> int:
    children = []
    for _ in range(int(CLAIMANTS)):
        child = os.fork()
        if child == 0:
            os.write(1, ("\n".join(claim_all()) + "\n").encode())
            os._exit(0)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main())
