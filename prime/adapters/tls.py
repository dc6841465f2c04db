"""Mutual TLS between services: each shows a certificate, and accepts only those of the same authority.

The bearer token is asked for as well. HTTP (health, metrics, the PRM's API) is not covered: put what faces people
behind an ingress.
"""

from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from prime.errors import SettingsError

_log = structlog.get_logger()
_AUTHORITY, _CERTIFICATE, _KEY = "ca.crt", "tls.crt", "tls.key"


@dataclass(frozen=True, slots=True)
class Tls:
    """A process' certificates: `ca.crt`, `tls.crt` and `tls.key` in a folder, as cert-manager writes them."""

    folder: Path

    @classmethod
    def of(cls, folder: Path | None) -> "Tls | None":
        """None without a folder: plain connections.

        Raises:
            SettingsError: a file is missing.
        """
        if folder is None:
            return None
        tls = cls(folder)
        tls._read()
        return tls

    def for_server(self) -> grpc.ServerCredentials:
        """Refuses clients without a certificate; a renewed one is used from the next connection on."""
        used = [self._read()]

        def renewed() -> "grpc.ServerCertificateConfiguration | None":
            try:
                files = self._read()
            except SettingsError as error:
                _log.warning("certificates cannot be read; going on with the old ones", reason=str(error))
                return None
            if files == used[0]:
                return None
            used[0] = files
            return _configuration(files)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(used[0]),
            renewed,  # type: ignore[arg-type]  # None means: no change
            require_client_authentication=True,
        )

    def for_client(self) -> grpc.ChannelCredentials:
        """Read once: a client that outlives its certificate has to be started anew."""
        authority, certificate, key = self._read()
        return grpc.ssl_channel_credentials(authority, key, certificate)

    def _read(self) -> tuple[bytes, bytes, bytes]:
        try:
            authority, certificate, key = (
                (self.folder / name).read_bytes() for name in (_AUTHORITY, _CERTIFICATE, _KEY)
            )
        except OSError as error:
            raise SettingsError(
                f"run.tls_folder = {self.folder} has to hold {_AUTHORITY}, {_CERTIFICATE} and {_KEY}: {error}"
            ) from None
        return authority, certificate, key


def _configuration(files: tuple[bytes, bytes, bytes]) -> grpc.ServerCertificateConfiguration:
    authority, certificate, key = files
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)
