//go:build !linux

package async

// watch makes sure that the process is reaped.
func (c *Cmd) watch(*Runtime) { go c.reap() }
