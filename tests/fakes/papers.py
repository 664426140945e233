"""Certificates made at run time: an issuer, and what it issued to a host.

`Papers` lie in a folder of their own, in PEM, as operators have them: `ca`, `cert`, `key`.
"""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from typing import Self

DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM


class Papers:
    """An issuer's certificate, and one for `names` with its key: names of hosts, and 127.0.0.1."""

    def __init__(self, *names: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="papers-"))
        self.ca, self.cert, self.key = (str(self.folder / name) for name in ("ca", "cert", "key"))
        issuer, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        above = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
        below = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "host")])
        hosts: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        hosts.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        rank = x509.BasicConstraints(ca=True, path_length=0)
        root = _begun(above, above, issuer).add_extension(rank, critical=True).sign(issuer, hashes.SHA256())
        alternative = x509.SubjectAlternativeName(hosts)
        made = (
            _begun(below, above, own).add_extension(alternative, critical=False).sign(issuer, hashes.SHA256())
        )
        Path(self.ca).write_bytes(root.public_bytes(PEM))
        Path(self.cert).write_bytes(made.public_bytes(PEM))
        forms = (PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        Path(self.key).write_bytes(own.private_bytes(*forms))
        self.context = ssl.create_default_context(cafile=self.ca)
        self.context.load_cert_chain(self.cert, self.key)

    def options(self, port: int, *, asks: bool) -> dict[str, str]:
        """Return the settings of a Redis that shows these, and whether it `asks` for a client's."""
        return {
            "port": "0",
            "tls-port": str(port),
            "tls-ca-cert-file": self.ca,
            "tls-cert-file": self.cert,
            "tls-key-file": self.key,
            "tls-auth-clients": "yes" if asks else "no",
            "tls-replication": "yes",
        }

    def remove(self) -> None:
        """Remove them."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _begun(of: x509.Name, by: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    today = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(of)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - DAY)
        .not_valid_after(today + DAY)
    )
