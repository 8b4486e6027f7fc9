// Package nocopy copies what must not be copied; go vet must say so for each line.
package nocopy

import "example.com/async"

func copies(
	mutex async.Mutex,
	rwmutex async.RWMutex,
	semaphore async.Semaphore,
	cond async.Cond,
	barrier async.Barrier,
	waitgroup async.WaitGroup,
	once async.Once[int],
	notify async.Notify,
) {
}
