// Package sys has system calls of three kinds: calls that differ between platforms; calls that
// x/sys/unix lacks; and calls that x/sys/unix has only in a form that allocates, or that tells the
// Go scheduler about a call that does not wait. The package does not refer to tasks or workers.
package sys
