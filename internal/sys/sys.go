// Package sys has the system calls that differ between platforms, or that x/sys/unix has not, or only in a form that
// allocates or tells the Go scheduler of a call that does not wait. It knows nothing of tasks and workers.
package sys
