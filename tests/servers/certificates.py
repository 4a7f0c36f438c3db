"""A certificate for 127.0.0.1 and the authority that signed it, both new."""

import ssl
from pathlib import Path
from typing import NamedTuple

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


class Certificate(NamedTuple):
    """What a server shows, and the file a client needs to believe it."""

    context: ssl.SSLContext  # of the server
    authority: Path


def certificate(folder: Path) -> Certificate:
    """A new one; the authority's file lies in *folder*."""
    authority = trustme.CA()
    file = folder / "authority.pem"
    authority.cert_pem.write_to_path(file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return Certificate(context, file)


class PemFiles(NamedTuple):
    """The same for a server that reads files of its own."""

    server: Path  # the key, in PKCS#8 as Java wants it, then the certificate
    authority: Path


def pem_files(folder: Path) -> PemFiles:
    """A new certificate and authority; both files lie in *folder*."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = PemFiles(folder / "server.pem", folder / "authority.pem")
    files.server.write_bytes(pkcs8 + b"".join(chain.bytes() for chain in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(files.authority)
    return files
