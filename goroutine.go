package async

// getg returns a number that identifies the calling goroutine: the address of its descriptor in the
// Go runtime, which is compared and never followed. It is implemented in assembly. With it a
// Context notices that it is used on a goroutine of other code, before the Go runtime would end the
// program for that.
//
// Go gives the descriptor of a goroutine that has ended to a new goroutine, which then has the same
// number. So a stored number means something only while its goroutine is known to live; see
// identityTable.
func getg() uintptr
