// Package pagecache reads data of files that the system has in memory. It never waits for a disk, a
// network or another process. Only Linux can do that. On other systems all functions fail or report
// false.
package pagecache

import "errors"

// ErrMiss is returned if the data is not in memory, or if the read fails for any other reason. The
// caller repeats the read in a way that may wait, and gets the reason there.
var ErrMiss = errors.New("async: not in memory")

// A FileID identifies a regular file that is not empty, and holds its size in bytes.
type FileID struct {
	Dev, Ino uint64
	Size     int64
}
