//go:build !lockorder

package async

import "sync"

// lockOf is the mutex of an owner. Without the build tag lockorder it is a plain sync.Mutex.
// lockOrder has the order, and how it is checked.
type lockOf[owner any] = sync.Mutex
