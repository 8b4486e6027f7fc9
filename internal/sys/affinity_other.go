//go:build !linux

package sys

import (
	"errors"
	"fmt"
)

// SetAffinity says that this system has nothing of the kind.
func SetAffinity([]int) error {
	return fmt.Errorf("async: Config.Affinity: %w", errors.ErrUnsupported)
}
