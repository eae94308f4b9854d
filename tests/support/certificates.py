"""Authorities, certificates with one thing wrong, and revocation lists; `trustme` makes only right ones."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Collection, Sequence
from functools import cache

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
PEM = serialization.Encoding.PEM


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@cache
def rsa_key(size: int) -> rsa.RSAPrivateKey:
    """Slow to make: one for all."""
    return rsa.generate_private_key(65537, size)


@attrs.frozen
class Certified:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.der).hexdigest()

    def key_pem(self, password: bytes | None = None) -> bytes:
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption)

    @property
    def both(self) -> bytes:
        return self.key_pem() + self.pem


def certify(
    names: Sequence[str],
    issuer: Certified | None = None,
    *,
    common_name: str = "",
    begin: datetime.timedelta = -DAY,
    end: datetime.timedelta = DAY,
    usage: Collection[x509.ObjectIdentifier] = (SERVER, CLIENT),
    is_authority: bool = False,
    key: rsa.RSAPrivateKey | None = None,
    algorithm: hashes.HashAlgorithm | None = None,
    alternative_names: x509.ExtensionType | None = None,
) -> Certified:
    """A certificate for `names`, DNS names or addresses; without an issuer, it is its own.

    `alternative_names` take the place of `names`, if these cannot be written so.
    """
    mine = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or names[0])])
    signer = issuer.key if issuer else mine
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(mine.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() + begin)
        .not_valid_after(now() + end)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if is_authority:
        uses = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
        )
        uses |= {"digital_signature": True, "key_cert_sign": True, "crl_sign": True, "decipher_only": False}
        builder = builder.add_extension(x509.KeyUsage(**uses), critical=True)
    else:
        alternative = alternative_names or x509.SubjectAlternativeName([_name(name) for name in names])
        builder = builder.add_extension(alternative, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    return Certified(builder.sign(signer, algorithm or hashes.SHA256()), mine)


def authority(name: str = "Test authority") -> Certified:
    return certify([name], is_authority=True)


def revocation_list(
    issuer: Certified, *revoked: Certified, begin: datetime.timedelta = -DAY, end: datetime.timedelta = DAY
) -> bytes:
    """In PEM."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(now() + begin).next_update(now() + end)
    for each in revoked:
        serial = each.certificate.serial_number
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now() + begin).build()
        )
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(PEM)


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
