"""Events through a small broker on a TCP socket."""

from lightbus_socket.transport import SocketTransport

__all__ = ["SocketTransport"]
