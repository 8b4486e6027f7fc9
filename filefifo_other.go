//go:build !linux

package async

// Other systems open a FIFO by its name only: if the name has gone meanwhile, an opening
// that is given up waits for a peer.

const openPathFlag = 0

func openPath(name string, flag int) int { return -1 }

func nameOfPath(path int) string { panic("async: no descriptor of a name") }
