"""Who a connection is: where credentials come from, and every trick with a token that somebody has tried."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from server.auth import Authenticator, Credentials, NoCredentials, Refused, credentials
from server.identity import ANONYMOUS, Grants, Identity, User
from server.jwks import RemoteKeys

SECRET = "a secret of at least thirty-two characters"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS: dict[str, tuple[str, Any]] = {"RS256": ("rsa-1", RSA), "ES256": ("ec-1", EC), "EdDSA": ("ed-1", ED)}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(algorithm: str, **fields: Any) -> dict[str, Any]:
    key_id, key = KEYS[algorithm]
    known: Any = jwt.get_algorithm_by_name(algorithm)
    public = known.to_jwk(key.public_key(), as_dict=True)
    return {**public, "kid": key_id, "use": "sig", **fields}


def token(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    given = {"sub": "ann", "exp": time.time() + 60, **claims}
    return jwt.encode({k: v for k, v in given.items() if v is not None}, key, algorithm=algorithm, headers=headers)


def forged(header: dict[str, Any], claims: dict[str, Any], key: bytes = b"") -> str:
    """A token that no library would make."""
    body = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{body}.{b64(hmac.digest(key, body.encode(), hashlib.sha256)) if key else ''}"


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [jwk(algorithm) for algorithm in KEYS]}))
    return path


def checker(**given: Any) -> Authenticator:
    return Authenticator(**{"dev": False, "secret": SECRET, **given})


async def refusal(authenticator: Authenticator, text: str) -> str:
    with pytest.raises(Refused) as refused:
        await authenticator.verify(text)
    assert text not in str(refused.value), "a token is not repeated in an error text"
    return str(refused.value)


# Where credentials are found.


def scope(headers: dict[str, str], query: str = "", **more: Any) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"headers": pairs, "query_string": query.encode(), **more}


@pytest.mark.parametrize(
    "given",
    [
        scope({"authorization": "Bearer t.t.t"}),
        scope({"authorization": "bearer  t.t.t "}),
        scope({}, "token=t.t.t"),
        scope({}, "token=other&token=t.t.t"),
        scope({}, subprotocols=["roomcast.json.v1", "roomcast.token.t.t.t"]),
        scope({"authorization": "Bearer t.t.t"}, "token=other"),
        scope({"authorization": "Basic abc"}, "token=t.t.t"),
    ],
)
def test_a_token_comes_in_a_header_the_query_or_a_subprotocol(given: dict[str, Any]) -> None:
    assert credentials(given).token == "t.t.t"


def test_headers_that_come_twice_are_one_list() -> None:
    """So two Origins are none that is allowed, whichever of them a proxy has looked at, and two tokens none."""
    pairs = [(b"origin", b"https://evil"), (b"origin", b"https://a"), (b"cookie", b"a=1"), (b"cookie", b"b=2")]
    given = credentials({"headers": pairs, "query_string": b""})
    assert given.headers == {"origin": "https://evil, https://a", "cookie": "a=1; b=2"}


def test_a_session_without_an_origin_is_no_session() -> None:
    session = {"user_id": 42}
    assert credentials(scope({"origin": "https://a"}, session=session)).session == session
    assert credentials(scope({}, session=session)).session == {}


async def test_the_order_of_credentials() -> None:
    both = Credentials({}, {"token": token(), "user": "eve"}, session={"user_id": 42})
    assert (await checker(dev=True).identify(both)).user == '"ann"'
    assert (await checker(dev=True, secret=None).identify(both)).user == '"eve"'
    assert (await checker(sessions=True).identify(Credentials({}, {}, session={"user_id": 42}))).user == "42"
    with pytest.raises(Refused):
        await checker(dev=True).identify(both._replace(query={"token": "bad", "user": "eve"}))
    with pytest.raises(NoCredentials):
        await checker().identify(Credentials({}, {"user": "eve"}))
    assert await checker(dev=True).identify(Credentials({}, {})) == ANONYMOUS


# Users and claims.


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        ({"sub": "ann"}, '"ann"'),
        ({"sub": 42}, "42"),
        ({"sub": "42"}, '"42"'),
        ({"sub": "ann", "user_id": 7}, "7"),
    ],
)
async def test_the_user_is_user_id_else_sub_and_may_be_an_integer(claims: dict[str, Any], user: str) -> None:
    identity = await checker().verify(forged_well(claims))
    assert identity.user == user and identity.principal == User(json.loads(user), identity.principal.claims)


def forged_well(claims: dict[str, Any], **headers: Any) -> str:
    """A good HS256 token, with claims that PyJWT would refuse to encode."""
    return forged({"alg": "HS256", "typ": "JWT", **headers}, {"exp": int(time.time()) + 60, **claims}, SECRET.encode())


@pytest.mark.parametrize("user", [None, True, 1.5, "", "no spaces", "__x", [], {}, 2**54])
async def test_what_is_no_user_id_is_refused(user: Any) -> None:
    assert "user" in await refusal(checker(), forged_well({"sub": user}))


async def test_claims_carry_grants_an_id_and_times() -> None:
    exp = int(time.time()) + 60
    rooms = {"chat:*": ["join", "publish"], "news": ["join"]}
    identity = await checker().verify(token(exp=exp, iat=exp - 90, jti="t-1", rooms=rooms, broadcast=True))
    assert identity[:4] == ('"ann"', float(exp), "t-1", float(exp - 90))
    grants = identity.grants
    assert grants.broadcast and grants.allows("chat:a", "publish") and grants.allows("news", "history")
    assert not grants.allows("news", "publish") and not grants.allows("other", "join")
    assert not grants.allows("chat:a", "presence")
    assert Grants().allows("anything", "publish") and not Grants().broadcast


@pytest.mark.parametrize(
    "claims", [{"rooms": []}, {"rooms": {"a": "join"}}, {"rooms": {"a": ["own"]}}, {"broadcast": "yes"}]
)
async def test_misshapen_grants_are_refused_not_guessed(claims: dict[str, Any]) -> None:
    assert "claim" in await refusal(checker(), token(**claims))


# The traps (RFC 8725).


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
async def test_a_token_that_is_not_signed(algorithm: str, jwks: Path) -> None:
    unsigned = forged({"alg": algorithm}, {"sub": "ann", "exp": time.time() + 60})
    await refusal(checker(), unsigned)
    await refusal(checker(secret=None, keys=RemoteKeys(str(jwks))), unsigned)


@pytest.mark.parametrize("form", ["PEM", "DER", "JWK"])
async def test_a_public_key_is_no_secret(form: str, jwks: Path) -> None:
    public = RSA.public_key()
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    key = {
        "PEM": public.public_bytes(serialization.Encoding.PEM, info),
        "DER": public.public_bytes(serialization.Encoding.DER, info),
        "JWK": json.dumps(jwk("RS256")).encode(),
    }[form]
    confused = forged({"alg": "HS256", "kid": "rsa-1"}, {"sub": "ann", "exp": time.time() + 60}, key)
    await refusal(checker(secret=None, keys=RemoteKeys(str(jwks))), confused)
    await refusal(checker(keys=RemoteKeys(str(jwks))), confused)


async def test_the_secret_does_not_check_other_algorithms() -> None:
    for algorithm in ("HS384", "HS512"):
        await refusal(checker(), token("x" * 64, algorithm))
        await refusal(checker(), token(SECRET + "x" * 32, algorithm))


@pytest.mark.parametrize("algorithm", list(KEYS))
async def test_each_algorithm_with_its_own_key(algorithm: str, jwks: Path) -> None:
    key_id, key = KEYS[algorithm]
    authenticator = checker(keys=RemoteKeys(str(jwks)))
    assert (await authenticator.verify(token(key, algorithm, {"kid": key_id}))).user == '"ann"'
    for other in set(KEYS) - {algorithm}:
        await refusal(authenticator, token(key, algorithm, {"kid": KEYS[other][0]}))


async def test_an_ec_or_rsa_key_of_somebody_else(jwks: Path) -> None:
    authenticator = checker(keys=RemoteKeys(str(jwks)))
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    await refusal(authenticator, token(stranger, "RS256", {"kid": "rsa-1"}))


@pytest.mark.parametrize(
    "key_id", ["rsa-2", "", "../../etc/passwd", "rsa-1' OR '1'='1", "http://127.0.0.1/keys", "x" * 4000]
)
async def test_a_wrong_key_id(key_id: str, jwks: Path) -> None:
    authenticator = checker(secret=None, keys=RemoteKeys(str(jwks)))
    await refusal(authenticator, token(RSA, "RS256", {"kid": key_id}))


@pytest.mark.parametrize("key_id", [1, ["rsa-1"], {"a": 1}])
async def test_a_key_id_that_is_no_text(key_id: Any, jwks: Path) -> None:
    await refusal(checker(keys=RemoteKeys(str(jwks))), forged_well({"sub": "ann"}, kid=key_id))


async def test_a_token_without_key_id_is_for_the_only_key_there_is(jwks: Path, tmp_path: Path) -> None:
    several = checker(secret=None, keys=RemoteKeys(str(jwks)))
    await refusal(several, token(RSA, "RS256"))
    (tmp_path / "one.json").write_text(json.dumps({"keys": [jwk("RS256")]}))
    one = checker(secret=None, keys=RemoteKeys(str(tmp_path / "one.json")))
    assert (await one.verify(token(RSA, "RS256"))).user == '"ann"'


async def test_keys_inside_the_token_are_not_looked_at(jwks: Path) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    own: Any = jwt.get_algorithm_by_name("RS256").to_jwk(stranger.public_key(), as_dict=True)
    for header in ({"jwk": own}, {"jku": "http://127.0.0.1:9/keys"}, {"x5u": "http://127.0.0.1:9/cert"}):
        await refusal(checker(keys=RemoteKeys(str(jwks))), token(stranger, "RS256", {"kid": "rsa-1", **header}))


async def test_critical_extensions_are_not_passed_over() -> None:
    await refusal(checker(), forged_well({"sub": "ann"}, crit=["exp2"], exp2=1))


@pytest.mark.parametrize("exp", [None, "soon", [], {}, True and "never"])
async def test_exp_is_required_and_a_time(exp: Any) -> None:
    claims = {"sub": "ann"} if exp is None else {"sub": "ann", "exp": exp}
    await refusal(checker(), forged({"alg": "HS256"}, claims, SECRET.encode()))


async def test_the_leeway_is_thirty_seconds() -> None:
    now = time.time()
    assert (await checker().verify(token(exp=now - 25))).expires_at == pytest.approx(now - 25, abs=1)
    assert "expired" in await refusal(checker(), token(exp=now - 35))
    await refusal(checker(), token(nbf=now + 35))
    assert await checker().verify(token(nbf=now + 25))
    assert "expired" in await refusal(checker(leeway_s=0), token(exp=now - 1))


async def test_audience_and_issuer_are_required_where_they_are_set() -> None:
    strict = checker(audience="roomcast", issuer="https://id.example")
    good: dict[str, Any] = {"aud": "roomcast", "iss": "https://id.example"}
    assert await strict.verify(token(**good))
    assert await strict.verify(token(**{**good, "aud": ["other", "roomcast"]}))
    wrongs: list[dict[str, Any]] = [{"aud": None}, {"iss": None}, {"aud": "other"}, {"iss": "https://id.example.evil"}]
    for wrong in wrongs:
        await refusal(strict, token(**{**good, **wrong}))
    assert await checker().verify(token(aud="anybody")), "not set: not asked for"


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "ä.b.c", "x" * 9000, "eyJhbGciOiJIUzI1NiJ9", "\x00" * 10])
async def test_what_is_no_token(text: str) -> None:
    with pytest.raises(Refused):
        await checker().verify(text)


async def test_a_token_of_64_kib_is_refused_before_it_is_looked_at() -> None:
    assert "longer than" in await refusal(checker(), token(padding="x" * 65536))


async def test_a_token_changed_by_one_character() -> None:
    good = token()
    head, body, signature = good.split(".")
    for changed in (f"{head}.{body}.{signature[:-2]}AA", f"{head}.{body[:-2]}.{signature}", f"{head}.{body}."):
        await refusal(checker(), changed)


# An application's own.


async def call(function: Any, *args: Any) -> Any:
    answer = function(*args)
    return await answer if hasattr(answer, "__await__") else answer


class Account:
    id = 7


@pytest.mark.parametrize(
    ("answer", "user", "principal"),
    [
        (42, "42", User(42, {})),
        ("ann", '"ann"', User("ann", {})),
        (ANONYMOUS, None, None),
        (Identity('"ann"'), '"ann"', User("ann", {})),
        (Account, "7", Account),
    ],
)
async def test_what_authenticate_may_answer(answer: Any, user: str | None, principal: Any) -> None:
    authenticator = checker(authenticate=lambda given: answer, call=call)
    identity = await authenticator.identify(Credentials({}, {}))
    assert (identity.user, identity.principal) == (user, principal)


@pytest.mark.parametrize("answer", [None, False, "no spaces", object(), True])
async def test_what_refuses(answer: Any) -> None:
    with pytest.raises(Refused):
        await checker(authenticate=lambda given: answer, call=call).identify(Credentials({}, {"token": token()}))


async def test_load_user_makes_the_object_and_may_refuse() -> None:
    authenticator = checker(load_user=lambda user: Account if user == "ann" else None, call=call)
    assert (await authenticator.identify(Credentials({}, {"token": token()}))).principal is Account
    with pytest.raises(Refused, match="no such user"):
        await authenticator.identify(Credentials({}, {"token": token(sub="eve")}))
