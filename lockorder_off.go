//go:build !lockorder

package async

import "sync"

// lockOf is the mutex of an owner; see lockOrder.
type lockOf[owner any] = sync.Mutex
