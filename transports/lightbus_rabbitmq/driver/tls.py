"""The TLS context for ``amqps://``, from the files that the settings name."""

from __future__ import annotations

import ssl

from lightbus_rabbitmq.settings import TLSSettings


def tls_context(settings: TLSSettings) -> ssl.SSLContext:
    """Return a TLS context. This reads files, so call it in a thread.

    Raises:
        OSError: A file cannot be read, or the key has a password.
        ssl.SSLError: A file holds no valid certificate or key.
    """
    context = ssl.create_default_context(cafile=settings.ca_file)
    if settings.certificate_file is not None:

        def refuse_password() -> str:
            # Otherwise OpenSSL asks for the password on the terminal.
            raise OSError(f"the key of {settings.certificate_file} has a password")

        context.load_cert_chain(settings.certificate_file, settings.key_file, refuse_password)
    return context
