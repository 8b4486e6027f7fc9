//go:build !linux

package async

import (
	"errors"
	"fmt"
)

// setAffinity says that this system has nothing of the kind.
func setAffinity([]int) error {
	return fmt.Errorf("async: Config.Affinity: %w", errors.ErrUnsupported)
}
