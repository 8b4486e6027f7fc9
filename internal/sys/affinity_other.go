//go:build !linux

package sys

import (
	"errors"
	"fmt"
)

// SetAffinity fails: this system has no such call.
func SetAffinity([]int) error {
	return fmt.Errorf("async: Config.Tuning.Affinity: %w", errors.ErrUnsupported)
}
