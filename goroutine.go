package async

// getg returns an identity of the calling goroutine: the address of its
// descriptor in the Go runtime, to be compared and never followed. It lets a
// Context notice that it is used on a goroutine that is not its own,
// before the Go runtime would end the program for it.
//
// Identities are reused once a goroutine has ended, so a kept identity means
// something only while its goroutine is known to live; see identityTable.
func getg() uintptr
