//go:build !linux

package async

import "os"

func datasync(f *os.File) error { return f.Sync() }
