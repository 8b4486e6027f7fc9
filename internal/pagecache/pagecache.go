// Package pagecache reads files as far as the system has them in memory, and never waits for a disk, a network or
// another process. Only Linux can do that; elsewhere all its functions fail or report false.
package pagecache

import "errors"

// ErrMiss says that the data is not in memory, or that the read fails for another reason.
var ErrMiss = errors.New("async: not in memory")

// A FileID identifies a regular file that is not empty, and has its size.
type FileID struct {
	Dev, Ino uint64
	Size     int64
}
