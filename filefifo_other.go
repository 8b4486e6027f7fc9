//go:build !linux

package async

// Other systems open a FIFO by its name only. If the name has gone by then, release cannot open the
// other end, so an opening that is given up continues to wait for a peer (step 6 in filefifo.go).

const openPathFlag = 0

func openPath(name string, flag int) int { return -1 }

func nameOfPath(path int) string { panic("async: no descriptor of a name") }
