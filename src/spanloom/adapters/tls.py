"""The certificates a server shows and the ones it asks for, from PEM files: for HTTP and for gRPC alike."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from spanloom.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. With `client_ca` a client must show a certificate that it has signed (mutual TLS)."""

    certificate: Path  # the server's, then the intermediate ones
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For a socket. Raises ConfigError naming the file."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996 ended the older ones
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as exc:
            raise ConfigError(f"{self.certificate}, {self.key}: no PEM certificate with its key: {exc}") from exc
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except OSError as exc:
                raise ConfigError(f"{self.client_ca}: expected PEM certificates: {exc}") from exc
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For a gRPC server. Raises ConfigError naming the file."""
        self.context()  # gRPC itself would only say so in its own log, later
        ca = self.client_ca.read_bytes() if self.client_ca is not None else None
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        return grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=ca is not None)


def _no_password() -> str:
    """A key that needs one is refused; OpenSSL would ask at the terminal."""
    raise ValueError("the key is encrypted")
