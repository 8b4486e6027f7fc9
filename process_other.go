//go:build !linux

package async

// watch sees to it that the process is reaped.
func (c *Cmd) watch(*Runtime) { go c.reap() }
