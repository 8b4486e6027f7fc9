package sys

// OpenBSD has these settings for the system as a whole only.
const (
	KeepAliveIdle     = keepAliveUnsupported
	KeepAliveInterval = keepAliveUnsupported
	KeepAliveCount    = keepAliveUnsupported
)
