package async

// OpenBSD has these settings for the system as a whole only.
const (
	keepAliveIdle     = keepAliveUnsupported
	keepAliveInterval = keepAliveUnsupported
	keepAliveCount    = keepAliveUnsupported
)
