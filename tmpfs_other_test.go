//go:build !linux

package async

import "errors"

func mountTmpfs(string, int64) error { return errors.ErrUnsupported }

func unmountTmpfs(string) error { return nil }
