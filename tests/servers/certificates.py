"""A certificate for 127.0.0.1 and the authority that signed it, both new."""

import ssl
from pathlib import Path
from typing import NamedTuple

import trustme


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
