// Package nocopy copies values of types that must not be copied. go vet must report each copy: see make
// copies.
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
	channel async.Chan[int],
	receives async.RecvFuture[int],
	sends async.SendFuture[int],
	onRecv async.RecvCase[int],
	onSend async.SendCase[int],
	after async.TimerCase,
	oneshot async.Oneshot[int],
	broadcast async.Broadcast[int],
	subscription async.Subscription[int],
	watch async.Watch[int],
	watcher async.Watcher[int],
	set async.JoinSet[int],
	local async.TaskLocal[int],
	resolver async.Resolver,
) {
}
