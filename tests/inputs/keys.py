"""Keys and certificates, made for one test."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM


def private_key(file, *, passphrase=None, curve=ec.SECP256R1):
    """A private key, written to a file."""
    key = ec.generate_private_key(curve())
    kind = serialization.NoEncryption()
    if passphrase:
        kind = serialization.BestAvailableEncryption(passphrase.encode())
    file.write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, kind))
    return key


def key_pair(folder, name, **how):
    """Paths of a private and of its public key."""
    key = private_key(folder / f"{name}.pem", **how)
    public = key.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return folder / f"{name}.pem", folder / f"{name}.pub"


def authority(folder, name):
    """Paths of the certificates of a root and of an authority below it, and of a key and its certificate."""
    root = private_key(folder / f"{name}-root.key")
    middle = private_key(folder / f"{name}-middle.key")
    leaf = private_key(folder / f"{name}.key")
    certificates = (
        _certificate(folder / f"{name}-root.crt", "root", root, "root", root, signs=True),
        _certificate(folder / f"{name}-middle.crt", "middle", middle, "root", root, signs=True),
        _certificate(folder / f"{name}.crt", "signer", leaf, "middle", middle, signs=False),
    )
    return (*certificates[:2], folder / f"{name}.key", certificates[2])


def _certificate(file, subject, key, issuer, issuer_key, *, signs):
    now = datetime.datetime.now(datetime.timezone.utc)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    usage |= {"digital_signature": not signs, "key_cert_sign": signs, "crl_sign": signs}
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=signs, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    file.write_bytes(made.public_bytes(_PEM))
    return file
