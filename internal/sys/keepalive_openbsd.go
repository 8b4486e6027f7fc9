package sys

// OpenBSD has these settings only for the whole system, not for a socket.
const (
	KeepAliveIdle     = keepAliveUnsupported
	KeepAliveInterval = keepAliveUnsupported
	KeepAliveCount    = keepAliveUnsupported
)
