//go:build !linux

package async

// watch makes sure that the process is reaped: a goroutine waits for its end.
func (c *Cmd) watch(*Runtime) { go c.reap() }
