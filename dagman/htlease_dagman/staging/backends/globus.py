"""The back-end for Globus Transfer, by `globus-sdk` (extra `globus`), imported when it is used.

A submission ID makes a second submission of the same transfer harmless; the key is the task's
label, by which an orphan is found. The credential is a file: it is read at each call, so that a
watcher goes on by itself once a person has logged in again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from htlease.errors import BadConfig
from htlease_dagman.staging.staging_file import StagingFile
from htlease_dagman.staging.staging_settings import read_secret
from htlease_dagman.staging.transfer import (
    NeedsPerson,
    Place,
    Refused,
    ServiceUnavailable,
    State,
    TaskStatus,
    Transfer,
)

CALL_SECONDS = 20.0
_TABLE = "service"
_KEYS = ("backend", "credential", "url", "auth_url")
#: Task failures that a new task may not meet. Source: "Task Document", `fatal_error`.
_RETRYABLE = ("ENDPOINT_TOO_BUSY", "EXPIRED", "TIMEOUT", "CONNECTION_FAILED", "CONNECTION_RESET")
_Found = TypeVar("_Found")


def globus_backend(file: StagingFile) -> GlobusBackend:
    """Read the service table; raises BadConfig."""
    toml, table = file.toml, file.service
    for key, value in table.items():
        if key not in _KEYS:
            raise toml.wrong(_TABLE, key, f"is not known here; known are {', '.join(_KEYS)}")
        if not isinstance(value, str):
            raise toml.wrong(_TABLE, key, f"{value!r} is no text")
    if "credential" not in table:
        raise toml.wrong(_TABLE, "", "has no credential; name the file that holds the token")
    for place in {end for t in file.transfers.values() for end in (t.source, t.destination)}:
        if place.collection is None:
            raise toml.wrong(f"places.{place.name}", "", "has no collection (UUID)")
    credential = file.path.parent / Path(table["credential"]).expanduser()
    try:
        import globus_sdk  # noqa: F401
    except ImportError as error:
        raise BadConfig(
            f"{file.path}: globus-sdk is not there ({error}); `pip install 'htlease[globus]'`"
        ) from None
    return GlobusBackend(credential, table.get("url"), table.get("auth_url"))


class GlobusBackend:
    """Speaks the Transfer API."""

    submits_once = True
    ends_with_watcher = False

    def __init__(
        self, credential: Path, url: str | None = None, auth_url: str | None = None
    ) -> None:
        self._credential, self._url, self._auth_url = credential, url, auth_url

    def reserve(self, key: str) -> str | None:
        """Return a new submission ID of the service."""
        return str(self._call(lambda client: client.get_submission_id()["value"]))

    def submit(self, key: str, transfer: Transfer, reservation: str | None) -> str:
        """Submit under the reserved ID; the second time the service names the first task."""
        import globus_sdk

        data = globus_sdk.TransferData(
            transfer.source.collection or "",
            transfer.destination.collection or "",
            label=key,
            submission_id=reservation or "",
            notify_on_succeeded=False,
        )
        for item, (source, destination) in zip(transfer.items, transfer.pairs(), strict=True):
            data.add_item(source, destination, recursive=item.is_directory)
        return str(self._call(lambda client: client.submit_transfer(data)["task_id"]))

    def poll(self, external_id: str) -> TaskStatus:
        """Look at the task."""
        import globus_sdk

        def look(client: globus_sdk.TransferClient) -> TaskStatus:
            try:
                return status_of(client.get_task(external_id).data)
            except globus_sdk.TransferAPIError as error:
                if error.http_status == 404:
                    return TaskStatus(State.UNKNOWN, error.message or "")
                raise

        return self._call(look)

    def cancel(self, external_id: str) -> None:
        """Cancel the task."""
        self._call(lambda client: client.cancel_task(external_id))

    def find_by_key(self, key: str, reservation: str | None = None) -> str | None:
        """Return the newest task with this label."""

        def find(client: Any) -> str | None:
            tasks = client.task_list(
                filter={"label": key, "type": "TRANSFER"}, orderby="request_time DESC"
            )
            return next((str(task["task_id"]) for task in tasks if task["label"] == key), None)

        return self._call(find)

    def check(self, place: Place, has_to_exist: bool) -> str | None:
        """List the place."""
        return self._call(partial(_why_unusable, place, has_to_exist))

    def close(self) -> None:
        """Nothing is kept open."""

    def _call(self, call: Callable[[Any], _Found]) -> _Found:
        """Make a call with today's credential, errors told apart by what is to be done."""
        import globus_sdk

        try:
            client = self._client()
            try:
                return call(client)
            finally:
                client.close()
        except globus_sdk.AuthAPIError:
            raise NeedsPerson(f"log in again: {self._login()}") from None
        except globus_sdk.GlobusAPIError as error:
            raise self._sorted_out(error) from None
        except globus_sdk.NetworkError as error:
            raise ServiceUnavailable(str(error)) from None

    def _client(self) -> Any:
        import globus_sdk
        from globus_sdk.transport import RetryConfig

        try:
            text = read_secret(self._credential, "credential")
            authorizer = self._authorizer(text)
        except BadConfig as problem:
            raise NeedsPerson(str(problem)) from None
        return globus_sdk.TransferClient(
            authorizer=authorizer,
            base_url=self._url,
            transport=globus_sdk.transport.RequestsTransport(http_timeout=CALL_SECONDS),
            # Trying again is for the watcher, which renews its lease in between.
            retry_config=RetryConfig(max_retries=0),
        )

    def _authorizer(self, text: str) -> Any:
        """Take a bare access token, or JSON with it or with a refresh token and its client."""
        import globus_sdk

        if not text.startswith("{"):
            return globus_sdk.AccessTokenAuthorizer(text)
        try:
            tokens = json.loads(text)
            if "refresh_token" not in tokens:
                return globus_sdk.AccessTokenAuthorizer(tokens["access_token"])
            auth = globus_sdk.NativeAppAuthClient(tokens["client_id"], base_url=self._auth_url)
            return globus_sdk.RefreshTokenAuthorizer(tokens["refresh_token"], auth)
        except (ValueError, KeyError):
            raise BadConfig(
                f"credential {self._credential} has neither access_token nor refresh_token and"
                " client_id"
            ) from None

    def _sorted_out(self, error: Any) -> Exception:
        text = f"{error.code}: {error.message}"
        if error.http_status == 401:
            return NeedsPerson(f"log in again: {self._login()} ({error.message})")
        if error.code == "ConsentRequired" or error.info.consent_required:
            scopes = error.info.consent_required.required_scopes or ()
            wanted = " ".join(f"'{scope}'" for scope in scopes)
            return NeedsPerson(f"give consent: globus session consent {wanted}; {self._login()}")
        if error.info.authorization_parameters:
            return NeedsPerson(f"log in again as the collection asks: {text}; {self._login()}")
        if error.http_status >= 500:
            return ServiceUnavailable(text)
        is_busy = error.http_status in (409, 429)
        return Refused(text, is_fatal=not is_busy)

    def _login(self) -> str:
        return f"put a new token into {self._credential}"


def _why_unusable(place: Place, has_to_exist: bool, client: Any) -> str | None:
    import globus_sdk

    try:
        client.operation_ls(place.collection, path=place.path)
    except globus_sdk.TransferAPIError as error:
        if error.code == "PermissionDenied":
            return f"{place.path} may not be used: {error.message}"
        if error.http_status != 404:
            raise
        return f"{place.path} is not there: {error.message}" if has_to_exist else None
    return None


def status_of(task: Mapping[str, Any]) -> TaskStatus:
    """Return what a task document says; pure.

    Source: Transfer API, "Task Document": ACTIVE, INACTIVE (suspended until somebody acts),
    SUCCEEDED, FAILED.
    """
    counts = {
        name: str(task[name])
        for name in ("files_transferred", "bytes_transferred")
        if task.get(name) is not None
    }
    words = (task.get("nice_status_short_description"), task.get("nice_status_details"))
    nice = ": ".join(str(word) for word in words if word) or str(task.get("nice_status") or "")
    status = task.get("status")
    if status == "SUCCEEDED":
        return TaskStatus(State.DONE, nice, counts)
    if status == "INACTIVE":
        action = (
            f"renew the credential of task {task.get('task_id')} at"
            f" https://app.globus.org/activity/{task.get('task_id')} ({nice})"
        )
        return TaskStatus(State.NEEDS_ACTION, action, counts)
    if status == "FAILED":
        error = task.get("fatal_error") or {}
        code = str(error.get("code") or task.get("nice_status") or "")
        state = State.RETRYABLE if code in _RETRYABLE else State.FATAL
        return TaskStatus(state, f"{code}: {error.get('description') or nice}", counts)
    return TaskStatus(State.RUNNING, nice, counts, is_unclear=status != "ACTIVE")
