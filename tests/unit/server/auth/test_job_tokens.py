"""What a token of the server's own says, who may make it, and whom it lets in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jwt
import pytest

from htlease.errors import InvalidField
from htlease.rules import messages as m
from htlease.rules.attempt import Evidence, SubjobKey
from htlease_server.auth import authenticator as auth_module
from htlease_server.auth.authenticator import Authenticator, NoAuth
from htlease_server.auth.job_tokens import (
    EXPIRED,
    NOT_OURS,
    TTL_MAX_SECONDS,
    MintedToken,
    OwnTokens,
    TokenRequest,
    numeric_date,
    why_not_mint,
)
from htlease_server.auth.principal import ADMIN, ANONYMOUS, EVERYWHERE, Binding, Caller, TokenClaims
from htlease_server.auth.revocations import REVOKED
from htlease_server.auth.roles import Role, role_named
from htlease_server.auth.signing_keys import KeyRing
from htlease_server.store.base import AuditRow

START = 1_800_000_000.25
KEY, NEWER = b"k" * 32, b"n" * 32
ADMIN_TOKEN = "the-administrators-own"


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> OwnTokens:
    return OwnTokens(KeyRing({"": KEY}), clock)


@pytest.fixture
def authenticator(tokens: OwnTokens, clock: Clock) -> Authenticator:
    return Authenticator(ADMIN_TOKEN, tokens, clock)


def claims_of(text: str, key: bytes = KEY) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(
        text, key, ["HS256"], audience="htlease", options={"verify_exp": False, "verify_iat": False}
    )
    return claims


def job(**changes: Any) -> TokenRequest:
    fields = {
        "role": Role.JOB,
        "workflows": ("run7",),
        "ttl_seconds": 3600.0,
        "subjob": "42.0",
        **changes,
    }
    return TokenRequest(**fields)


def workflow(*names: str, role: Role = Role.WORKFLOW, **changes: Any) -> TokenRequest:
    return TokenRequest(role, names, 7200.0, **changes)


def verified(tokens: OwnTokens, minted: MintedToken) -> Caller:
    caller = tokens.verify(minted.text.encode())
    assert isinstance(caller, Caller), caller
    return caller


# ------------------------------------------------------------ what is in a token


def test_a_job_token_says_all_that_it_is_for_and_no_more(tokens: OwnTokens) -> None:
    minted = tokens.mint(job(binding=Binding("ap#42.0#1", 2)), ADMIN)
    assert minted.expires_at == int(START) + 3600
    assert claims_of(minted.text) == {
        "iss": "htlease",
        "aud": "htlease",
        "iat": START,
        "exp": int(minted.expires_at),
        "jti": minted.id,
        "owner": "admin",
        "end": int(START + TTL_MAX_SECONDS),
        "workflow": "run7",
        "subjob": "42.0",
        "job": {"id": "ap#42.0#1", "start": 2},
    }
    assert jwt.get_unverified_header(minted.text) == {"alg": "HS256", "typ": "JWT"}
    assert len(minted.id) == 16 and minted.id != tokens.mint(job(), ADMIN).id


def test_a_role_token_says_its_role_and_patterns_and_a_name(tokens: OwnTokens) -> None:
    wanted = workflow("a*", "b", role=Role.SUBMITTER, name="alice")
    claims = claims_of(tokens.mint(wanted, ADMIN).text)
    assert (claims["role"], claims["workflows"], claims["owner"]) == (
        "submitter",
        ["a*", "b"],
        "alice",
    )
    assert not {"workflow", "subjob", "job", "from", "root"} & claims.keys()


def test_what_a_workflows_token_makes_comes_from_it_and_ends_with_it(
    tokens: OwnTokens, clock: Clock
) -> None:
    above = tokens.mint(workflow("run7"), ADMIN)
    by = verified(tokens, above)
    clock.now += 7000
    made = tokens.mint(job(), by)
    claims = claims_of(made.text)
    assert made.expires_at == above.expires_at == claims["end"]
    assert claims["from"] == [above.id] and claims["owner"] == "admin"
    assert verified(tokens, made).token_claims == TokenClaims(
        made.id, made.id, clock.now, above.expires_at, (above.id,)
    )


def test_who_others_are_made_by_is_passed_on_from_token_to_token(tokens: OwnTokens) -> None:
    top = verified(tokens, tokens.mint(workflow("*", role=Role.SUBMITTER, name="bob"), ADMIN))
    middle = verified(tokens, tokens.mint(workflow("run7"), top))
    lowest = verified(tokens, tokens.mint(job(), middle))
    assert top.token_claims and middle.token_claims and lowest.token_claims
    assert lowest.token_claims.parents == (top.token_claims.id, middle.token_claims.id)
    assert {top.owner, middle.owner, lowest.owner} == {"bob"}


@pytest.mark.parametrize(
    ("wanted", "caller"),
    [
        (job(), (Role.JOB, ("run7",), "42.0", None, "token:ID")),
        (job(binding=Binding("g#1.0#1")), (Role.JOB, ("run7",), "42.0", Binding("g#1.0#1"), "token:ID")),
        (workflow("run7"), (Role.WORKFLOW, ("run7",), None, None, "token:ID")),
        (workflow("a*", role=Role.READER), (Role.READER, ("a*",), None, None, "token:ID (reader admin)")),
        (workflow("x", "*", role=Role.OPERATOR), (Role.OPERATOR, EVERYWHERE, None, None, "token:ID (operator admin)")),
        (workflow(role=Role.SUBMITTER), (Role.SUBMITTER, (), None, None, "token:ID (submitter admin)")),
    ],
)  # fmt: skip
def test_a_token_is_read_as_what_was_wanted(
    tokens: OwnTokens, wanted: TokenRequest, caller: tuple[Any, ...]
) -> None:
    minted = tokens.mint(wanted, ADMIN)
    found = verified(tokens, minted)
    actor = found.actor.replace(minted.id, "ID")
    assert (found.role, found.workflows, found.subjob, found.binding, actor) == caller
    assert found.workflows is EVERYWHERE or "*" not in found.workflows
    assert found.expires_at == minted.expires_at
    assert found.token_claims == TokenClaims(
        minted.id, minted.id, START, float(int(START + TTL_MAX_SECONDS))
    )


# ------------------------------------------------------------ which tokens count


def test_a_token_counts_until_it_expires_by_the_servers_clock(
    tokens: OwnTokens, clock: Clock
) -> None:
    minted = tokens.mint(job(), ADMIN)
    clock.now = minted.expires_at - 0.001
    assert isinstance(tokens.verify(minted.text.encode()), Caller)
    clock.now = minted.expires_at
    assert tokens.verify(minted.text.encode()) == EXPIRED == "the token has expired; mint a new one"


def test_the_newest_key_signs_and_the_older_ones_count_while_they_are_there(clock: Clock) -> None:
    old = OwnTokens(KeyRing({"": KEY}), clock).mint(job(), ADMIN)
    both = OwnTokens(KeyRing({"": KEY, "20270101T000000Z-ab12": NEWER}), clock)
    new = both.mint(job(), ADMIN)
    assert jwt.get_unverified_header(new.text)["kid"] == "20270101T000000Z-ab12"
    assert claims_of(new.text, NEWER)["jti"] == new.id
    assert verified(both, old).token_claims and verified(both, new).token_claims
    only_new = OwnTokens(KeyRing({"20270101T000000Z-ab12": NEWER}), clock)
    assert only_new.verify(old.text.encode()) is NOT_OURS
    assert NOT_OURS == "the token is not one of this server's"


GOOD = {
    "iss": "htlease",
    "aud": "htlease",
    "iat": START,
    "exp": START + 60,
    "jti": "x",
    "workflow": "w",
}


def test_a_token_without_optional_claims_is_read_with_defaults(tokens: OwnTokens) -> None:
    caller = tokens.verify(jwt.encode(GOOD, KEY, "HS256").encode())
    assert caller == Caller(
        "token:x",
        Role.WORKFLOW,
        ("w",),
        None,
        START + 60,
        "admin",
        None,
        TokenClaims("x", "x", START, START + 60),
    )


@pytest.mark.parametrize(
    "claims",
    [
        *({name: value for name, value in GOOD.items() if name != left} for left in GOOD),
        {**GOOD, "iss": "other"},
        {**GOOD, "aud": "other"},
        {**GOOD, "exp": "soon"},
        {**GOOD, "exp": True},
        {**GOOD, "exp": 10**400},
        {**GOOD, "iat": 10**400},
        {**GOOD, "end": 10**400},
        {**GOOD, "role": "emperor", "workflows": ["*"]},
        {**GOOD, "role": "reader"},
        {**GOOD, "from": 5},
        {**GOOD, "job": {"id": "x"}},
    ],
)
def test_claims_that_make_no_sense_let_nobody_in(tokens: OwnTokens, claims: dict[str, Any]) -> None:
    assert tokens.verify(jwt.encode(claims, KEY, "HS256").encode()) is NOT_OURS


@pytest.mark.parametrize("algorithm", ["HS384", "HS512", "none"])
def test_another_algorithm_lets_nobody_in(tokens: OwnTokens, algorithm: str) -> None:
    key = "" if algorithm == "none" else KEY * 2
    assert tokens.verify(jwt.encode(GOOD, key, algorithm).encode()) is NOT_OURS


@pytest.mark.parametrize("text", [b"", b"x", b"a.b.c", b"\xff\xfe", b"[" * 5000])
def test_what_is_no_token_lets_nobody_in(tokens: OwnTokens, text: bytes) -> None:
    assert tokens.verify(text) is NOT_OURS


@pytest.mark.parametrize(("value", "at"), [(0, 0.0), (-5, -5.0), (1.5, 1.5)])
def test_an_instant_is_a_number(value: object, at: float) -> None:
    assert numeric_date(value) == at


@pytest.mark.parametrize("value", [True, False, "1", None, 10**400, -(10**400), float("nan")])
def test_what_is_no_number_or_too_large_a_one_is_no_instant(value: object) -> None:
    with pytest.raises(ValueError, match=r"^no (number|instant)$"):
        numeric_date(value)


# ------------------------------------------------------------ renewal

SUBJOB = SubjobKey("run7", "42.0")


def renewable(tokens: OwnTokens, **changes: Any) -> tuple[MintedToken, Caller]:
    minted = tokens.mint(job(**changes), ADMIN)
    return minted, verified(tokens, minted)


def test_a_fresh_token_comes_at_half_time_and_says_the_same(
    tokens: OwnTokens, clock: Clock
) -> None:
    minted, caller = renewable(tokens, binding=Binding("g#1.0#1", 3))
    clock.now = START + 1799
    assert tokens.renewed(caller, SUBJOB, 60) is None
    clock.now = START + 1801
    fresh = tokens.renewed(caller, SUBJOB, 60)
    assert fresh is not None
    claims, before = claims_of(fresh.text), claims_of(minted.text)
    assert claims["root"] == minted.id and claims["from"] == [] and fresh.id != minted.id
    for name in ("owner", "end", "workflow", "subjob", "job"):
        assert claims[name] == before[name]
    # As long as the one before, to the second.
    assert fresh.expires_at == int(clock.now + (minted.expires_at - START))
    again = verified(tokens, fresh)
    assert again.binding == Binding("g#1.0#1", 3) and again.subjob == "42.0"
    clock.now += 3000
    second = tokens.renewed(again, SUBJOB, 60)
    assert second is not None and claims_of(second.text)["root"] == minted.id


def test_a_fresh_token_comes_sooner_where_the_lease_outlasts_the_old_one(
    tokens: OwnTokens, clock: Clock
) -> None:
    minted, caller = renewable(tokens)
    clock.now = START + 100
    left_seconds = minted.expires_at - clock.now
    assert tokens.renewed(caller, SUBJOB, left_seconds - 1) is None
    assert tokens.renewed(caller, SUBJOB, left_seconds) is not None
    assert tokens.renewed(caller, SUBJOB, left_seconds + 1) is not None


def test_a_fresh_token_names_those_it_comes_from(tokens: OwnTokens, clock: Clock) -> None:
    above = tokens.mint(workflow("run7"), ADMIN)
    made = tokens.mint(job(ttl_seconds=600.0), verified(tokens, above))
    clock.now += 400
    fresh = tokens.renewed(verified(tokens, made), SUBJOB, 60)
    assert fresh is not None
    assert claims_of(fresh.text)["from"] == [above.id]
    assert claims_of(fresh.text)["end"] == above.expires_at


def test_a_token_that_cannot_last_longer_is_not_renewed(tokens: OwnTokens, clock: Clock) -> None:
    by = verified(tokens, tokens.mint(workflow("run7"), ADMIN))
    made = tokens.mint(job(ttl_seconds=1e6), by)
    clock.now = made.expires_at - 1
    assert tokens.renewed(verified(tokens, made), SUBJOB, 60) is None


def test_only_a_jobs_token_of_our_own_renews_itself(tokens: OwnTokens, clock: Clock) -> None:
    by = verified(tokens, tokens.mint(workflow("run7"), ADMIN))
    foreign = Caller("issuer", Role.JOB, ("run7",), "42.0", START + 10)
    clock.now += 7000
    for caller in (by, foreign, ADMIN, ANONYMOUS):
        assert tokens.renewed(caller, SUBJOB, 60) is None


# ------------------------------------------------------------ who may make which

MAKERS = {
    "admin": ADMIN,
    "operator": Caller("o", Role.OPERATOR),
    "submitter": Caller("s", Role.SUBMITTER, ("a*", "b")),
    "workflow": Caller("w", Role.WORKFLOW, ("a1",)),
    "job": Caller("j", Role.JOB, ("a1",), "x"),
    "reader": Caller("r", Role.READER),
}
ABOVE = "is made with the admin token, or a wider one than it; this one is for"


@pytest.mark.parametrize(
    ("wanted", "makers"),
    [
        (job(workflows=("a1",)), {"admin", "operator", "submitter", "workflow"}),
        (job(workflows=("b",)), {"admin", "operator", "submitter"}),
        (job(workflows=("c",)), {"admin", "operator"}),
        (workflow("a1"), {"admin", "operator", "submitter"}),
        (workflow("a2*", role=Role.READER), {"admin", "submitter"}),
        (workflow("a2", "c", role=Role.READER), {"admin"}),
        (workflow("*", role=Role.OPERATOR), {"admin"}),
        (workflow("*", role=Role.SUBMITTER), {"admin"}),
        (workflow("*", role=Role.SUBMITTER, name="alice"), {"admin"}),
        (workflow("*", role=Role.ADMIN), set()),
    ],
)
def test_who_may_make_a_token(wanted: TokenRequest, makers: set[str]) -> None:
    reasons = {name: why_not_mint(caller, wanted) for name, caller in MAKERS.items()}
    assert {name for name, why in reasons.items() if why is None} == makers


@pytest.mark.parametrize(
    ("name", "wanted", "why"),
    [
        ("job", job(workflows=("a1",)), f"a job token for a1/42.0 {ABOVE} a1/x"),
        ("workflow", workflow("c"), f"a workflow token for c {ABOVE} workflow a1"),
        ("reader", workflow("c", "d", role=Role.READER), f"a reader token for c, d {ABOVE} a reader of all workflows"),
        ("reader", workflow(role=Role.SUBMITTER), f"a submitter token for own workflows {ABOVE} a reader of all workflows"),
        ("operator", job(name="bob"), "only the administrator says who bob is; leave the name out"),
    ],
)  # fmt: skip
def test_who_may_not_is_told_why(name: str, wanted: TokenRequest, why: str) -> None:
    assert why_not_mint(MAKERS[name], wanted) == why


def test_roles_of_tokens_are_named(tokens: OwnTokens) -> None:
    assert role_named("reader") is Role.READER
    for text in ("emperor", "", "Reader", "admin"):
        with pytest.raises(InvalidField) as refused:
            role_named(text)
        assert refused.value.field == "role" and repr(text) in refused.value.problem
        offered = refused.value.problem.partition(" is not ")[2]
        for role in Role:
            assert (role.value in offered) is (role is not Role.ADMIN)
        assert "operator, submitter, workflow" in offered


# ------------------------------------------------------------ what a job's token reaches


def test_a_jobs_token_reaches_its_subjob_and_no_other() -> None:
    caller = Caller("j", Role.JOB, ("run7",), "42.0")
    reach = {
        (workflow, subjob): caller.may_see(workflow, subjob)
        for workflow in ("run7", "run70", "other")
        for subjob in ("42.0", "42.1", None)
    }
    assert {of for of, may in reach.items() if may} == {("run7", "42.0")}


def test_a_jobs_token_acquires_as_a_job_for_its_own_submission_and_start() -> None:
    caller = Caller("j", Role.JOB, ("run7",), "42.0", binding=Binding("g#1.0#1", 3))
    nonce = "nonce-0123456789abcdef"

    def why(kind: str = "job", job_id: str | None = "g#1.0#1", starts: int | None = 3) -> str:
        command = m.Acquire(nonce, kind, Evidence(starts), global_job_id=job_id)
        return caller.why_not_acquire(command) or "may"

    assert why() == "may"
    assert why(kind="pre") == "this token is for run7/42.0 and acquires as job only"
    assert why(job_id="g#2.0#1") == "this token is for job g#1.0#1, not g#2.0#1"
    assert why(job_id=None) == "this token is for job g#1.0#1, not None"
    assert why(starts=4) == "this token is for start 3 of g#1.0#1, not 4"
    assert Binding("g#1.0#1").why_not(m.Acquire(nonce, global_job_id="g#1.0#1")) is None


# ------------------------------------------------------------ the authenticator


def refusal(found: Caller | m.Rejection) -> str:
    assert isinstance(found, m.Rejection)
    assert found.code == "unauthorized"
    return found.detail


def test_the_administrators_token_is_its_text(authenticator: Authenticator) -> None:
    for header in (f"Bearer {ADMIN_TOKEN}", f"bearer   {ADMIN_TOKEN} ", f"BEARER \t{ADMIN_TOKEN}"):
        assert authenticator.caller(header.encode()) is ADMIN
    assert refusal(authenticator.caller(f"Bearer {ADMIN_TOKEN}x".encode())) == NOT_OURS


@pytest.mark.parametrize(
    "header", [b"", b"Bearer", b"Bearer ", b"Basic abc", b"Token x", b"Bearer " + b"x" * 16385]
)
def test_a_header_of_another_form_is_named(authenticator: Authenticator, header: bytes) -> None:
    assert refusal(authenticator.caller(header)) == (
        "the Authorization header is not of the form `Bearer TOKEN`"
    )


def test_no_header_is_told_what_to_send(authenticator: Authenticator) -> None:
    assert (
        refusal(authenticator.caller(None))
        == "no token was sent; send `Authorization: Bearer TOKEN`"
    )
    assert refusal(authenticator.caller(b"Bearer " + b"x" * 16384)) == NOT_OURS


def header_of(
    authenticator: Authenticator, wanted: TokenRequest | None = None
) -> tuple[bytes, MintedToken]:
    minted = authenticator.tokens.mint(wanted or job(), ADMIN)
    return f"Bearer {minted.text}".encode(), minted


def test_a_known_token_is_not_verified_again_but_expires(
    authenticator: Authenticator, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, minted = header_of(authenticator)
    first = authenticator.caller(header)
    assert isinstance(first, Caller)

    def never(token: bytes) -> Caller | str:
        raise AssertionError("verified again")

    with monkeypatch.context() as patch:
        patch.setattr(authenticator.tokens, "verify", never)
        assert authenticator.caller(header) is first
        clock.now = minted.expires_at
        assert refusal(authenticator.caller(header)) == EXPIRED
    assert refusal(authenticator.caller(header)) == EXPIRED
    assert authenticator.now() == clock.now


def test_a_revoked_token_lets_nobody_in_though_it_was_known(authenticator: Authenticator) -> None:
    header, minted = header_of(authenticator)
    other, _ = header_of(authenticator)
    assert isinstance(authenticator.caller(header), Caller)
    authenticator.revoke(
        [AuditRow(START, "revoke-token", "admin", None, None, minted.id, None, "{}")]
    )
    assert refusal(authenticator.caller(header)) == REVOKED
    assert isinstance(authenticator.caller(other), Caller)


def test_a_key_that_was_removed_is_noticed_when_all_are_verified_anew(
    authenticator: Authenticator,
) -> None:
    header, _ = header_of(authenticator)
    assert isinstance(authenticator.caller(header), Caller)
    authenticator.tokens.keys = KeyRing({"": NEWER})
    assert isinstance(authenticator.caller(header), Caller)
    authenticator.forget()
    assert refusal(authenticator.caller(header)) == NOT_OURS


def test_no_more_are_remembered_than_fit(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_module, "_VERIFIED_MAX", 2)
    headers = [header_of(authenticator)[0] for _ in range(3)]
    found = [authenticator.caller(header) for header in headers]
    assert (
        authenticator.caller(headers[1]) is found[1]
        and authenticator.caller(headers[2]) is found[2]
    )
    assert authenticator.caller(headers[0]) is not found[0]


class Issuers:
    def __init__(self, answer: Caller | m.Rejection | str) -> None:
        self.answer = answer
        self.asked: list[bytes] = []

    def verify(self, token: bytes) -> Caller | m.Rejection | str:
        self.asked.append(token)
        return self.answer


FOREIGN = Caller("alice@issuer", Role.SUBMITTER, ("a*",), expires_at=START + 100)


@pytest.mark.parametrize(
    ("answer", "check"),
    [
        (FOREIGN, lambda found: found is FOREIGN),
        ("no such key", lambda found: refusal(found) == "no such key"),
        (m.Rejection("overloaded", "later"), lambda found: found.code == "overloaded"),
    ],
)
def test_issuers_are_asked_about_what_is_not_ours(
    authenticator: Authenticator, answer: Any, check: Callable[[Any], bool]
) -> None:
    issuers = Issuers(answer)
    authenticator.issuers = issuers  # type: ignore[assignment]
    assert check(authenticator.caller(b"Bearer abc.def"))
    assert issuers.asked == [b"abc.def"]
    header, _ = header_of(authenticator)
    assert isinstance(authenticator.caller(header), Caller)
    assert len(issuers.asked) == 1, "they are not asked about ours"


def test_without_authentication_anybody_is_let_in_and_tokens_are_made(clock: Clock) -> None:
    authenticator = NoAuth(clock)
    for header in (None, b"", b"Bearer x"):
        assert authenticator.caller(header) is ANONYMOUS
    minted = authenticator.tokens.mint(job(), ANONYMOUS)
    assert verified(authenticator.tokens, minted).owner == "anonymous"
    assert NoAuth(clock).tokens.verify(minted.text.encode()) is NOT_OURS
