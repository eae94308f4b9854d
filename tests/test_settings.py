"""Timeouts, Limits, AssociationSettings: safe defaults, and nothing that could not work is taken."""

from __future__ import annotations

import copy
import math
import pickle

import attrs
import pytest

from trio_dicom import AssociationSettings, Limits, Role, Secret, Timeouts, UserIdentity, UserIdentityType
from trio_dicom.protocol.negotiation import as_presentation_contexts, propose
from trio_dicom.protocol.user_information import UserIdentityAC, UserIdentityRQ

CT = "1.2.840.10008.5.1.4.1.1.2"


def test_the_timeouts() -> None:
    assert attrs.asdict(Timeouts()) == {
        "connect": 10,
        "tls_handshake": 10,
        "association": 30,
        "response": 30,
        "pdu": 30,
        "release": 10,
        "artim": 10,
        "idle": 60,
        "handler": 60,
        "abort_grace": 1,
        "abort_linger": 1,
    }


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(Timeouts)])
@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, True, "1", None])
def test_a_timeout_is_seconds_above_0(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number of seconds above 0"):
        Timeouts(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0.001, 1, 5.5, math.inf])
def test_timeouts_that_are_taken(value: float) -> None:
    assert Timeouts(release=value).release == value


def test_timeouts_are_named() -> None:
    with pytest.raises(TypeError):
        Timeouts(5.0)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("pdu_length", 4096),
        ("user_items", 1),
        ("transfer_syntaxes", 1),
        ("command_set", 256),
        ("command_fragments", 1),
        ("empty_pdvs", 0),
        ("response_data_set", 0),
        ("operations_window", 1),
        ("minimum_rate", 0),
        ("pdvs", 2),
    ],
)
def test_the_least_of_each_limit(name: str, least: int) -> None:
    assert getattr(Limits(**{name: least}), name) == least
    for value in (least - 1, float(least), str(least), None, bool(least)):
        with pytest.raises(ValueError, match=f"{name} must be a whole number, at least {least}"):
            Limits(**{name: value})  # type: ignore[arg-type]


def test_the_limits() -> None:
    limits = Limits()
    assert limits.pdu_length == 1 << 20
    assert limits.command_set == 16 << 10
    assert limits.operations_window == 64


def test_the_settings() -> None:
    settings = AssociationSettings()
    assert settings.calling_ae_title == "TRIO_DICOM"
    assert settings.max_pdu_length == settings.send_pdu_length == 131_072
    assert settings.operations_window == 1
    assert settings.roles == {}
    assert settings.user_identity is None
    assert settings.timeouts == Timeouts()
    assert settings.limits == Limits()


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("max_pdu_length", 4096, 1 << 20), ("send_pdu_length", 8, 1 << 20), ("operations_window", 0, 65_535)],
)
def test_the_bounds_of_the_settings(name: str, least: int, most: int) -> None:
    for value in (least, most):
        assert getattr(AssociationSettings(**{name: value}), name) == value
    for value in (least - 1, most + 1, None, "8192", 8192.0, True):
        with pytest.raises(ValueError, match=f"{name} must be a whole number, {least} to {most}"):
            AssociationSettings(**{name: value})


@pytest.mark.parametrize("title", ["", "   ", "SEVENTEEN_CHARS_X", "A\\B", "A\nB"])
def test_the_calling_ae_title_is_one(title: str) -> None:
    with pytest.raises(ValueError, match="not an AE title"):
        AssociationSettings(calling_ae_title=title)


@pytest.mark.parametrize("name", ["roles", "extended_negotiation"])
def test_what_is_by_sop_class_is_by_uid(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: not a UID: 'CT'"):
        AssociationSettings(**{name: {"CT": None}})  # type: ignore[arg-type]


def test_roles_by_sop_class() -> None:
    assert AssociationSettings(roles={CT: Role(scp=True)}).roles[CT] == Role(scu=True, scp=True)


def test_settings_do_not_change() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        AssociationSettings().max_pdu_length = 4096  # type: ignore[misc]


def everywhere(identity: UserIdentity) -> list[str]:
    """All the ways in which an identity may come into a text."""
    settings = AssociationSettings(user_identity=identity)
    request = propose(as_presentation_contexts([CT]), "PACS", settings)
    (item,) = (each for each in request.user_information if isinstance(each, UserIdentityRQ))
    shown = [text(each) for each in (identity, settings, request, item, item.primary) for text in (repr, str, format)]
    shown += [f"{identity.primary!r:>10} {identity.secondary!s}", "%s" % (item,)]  # noqa: UP031
    shown += [repr(attrs.asdict(each)) for each in (identity, settings, item)]
    shown += [repr(attrs.astuple(identity)), repr(UserIdentityAC(identity.primary)), repr(vars(errors_of(identity)))]
    return shown


def errors_of(identity: UserIdentity) -> Exception:
    try:
        attrs.evolve(identity, type=9)
    except ValueError as error:
        return error
    raise AssertionError("there is no such type")


@pytest.mark.parametrize(
    ("identity", "primary", "secondary"),
    [
        (UserIdentity(type=2, primary=b"operator-7", secondary=b"open sesame"), b"operator-7", b"open sesame"),  # type: ignore[arg-type]
        (UserIdentity.user("operator-7", "open sesame"), b"operator-7", b"open sesame"),
        (UserIdentity.user("operator-7", b""), b"operator-7", b""),
        (UserIdentity.user("operator-7"), b"operator-7", b""),
        (UserIdentity.token(UserIdentityType.JWT, "operator-7.sesame"), b"operator-7.sesame", b""),
        (UserIdentity.token(UserIdentityType.KERBEROS, Secret(b"operator-7")), b"operator-7", b""),
    ],
    ids=["fields", "user", "empty passcode", "no passcode", "token", "ticket"],
)
def test_secrets_do_not_show(identity: UserIdentity, primary: bytes, secondary: bytes) -> None:
    assert (identity.primary.reveal(), identity.secondary.reveal()) == (primary, secondary)
    assert isinstance(identity.type, UserIdentityType)
    for shown in everywhere(identity):
        assert "operator-7" not in shown
        assert "sesame" not in shown
    for each in (identity, AssociationSettings(user_identity=identity), identity.primary):
        with pytest.raises(TypeError, match="a secret is not pickled"):
            pickle.dumps(each)
        assert copy.deepcopy(each) == copy.copy(each) == each


def test_a_secret_is_itself() -> None:
    secret = Secret(b"a")
    assert secret == b"a" == secret.reveal() == Secret(secret)
    assert secret != b"b"
    assert secret != "a"
    assert len({secret, Secret(b"a"), Secret(b"b")}) == 2
    assert secret
    assert not Secret(b"")
    with pytest.raises(AttributeError):
        secret.value = b"b"  # type: ignore[attr-defined]


def test_what_is_no_identity() -> None:
    with pytest.raises(ValueError, match="JWT has no secondary field"):
        UserIdentity(type=UserIdentityType.JWT, primary=b"x", secondary=b"y")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"USERNAME is no token: see UserIdentity\.user"):
        UserIdentity.token(UserIdentityType.USERNAME, "x")


@pytest.mark.parametrize("wrong", [{"type": 6}, {"primary": 7}, {"secondary": None}])
def test_an_identity_is_checked(wrong: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        UserIdentity(**{"type": 1, "primary": b"operator-7", **wrong})  # type: ignore[arg-type]
    assert "operator-7" not in str(caught.value)


def test_an_identity_fits_into_a_request() -> None:
    longest = UserIdentity.token(UserIdentityType.SAML, b"x" * 65_000)
    (buffer,) = propose(["1.2.3"], "ANY", AssociationSettings(user_identity=longest, operations_window=8)).encode()
    assert len(buffer) > 65_000
    with pytest.raises(ValueError, match="an identity of 65001 bytes, where 65000 are the most that can be sent"):
        UserIdentity.token(UserIdentityType.SAML, b"x" * 65_001)
    with pytest.raises(ValueError, match="an identity of 65001 bytes"):
        UserIdentity.user("alice", b"x" * 64_996)
    with pytest.raises(ValueError, match="there is nothing in primary"):
        UserIdentity.token(UserIdentityType.JWT, "")
