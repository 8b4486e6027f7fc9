package async

// Moving tasks to another worker, in two cases. In both the thief moves the tasks itself, when it
// has none of its own (turns):
//
//  1. The worker asks. Its queue is too long (sizeRound, push), so it sets wantsThief and wakes a
//     sleeping worker. The first thief clears wantsThief, so a request is good for one thief. A
//     worker that still has too much work asks again in its next turn.
//  2. The worker is stuck: the watchdog has stored its turn in stuckTurn (markStuck), and has woken
//     a sleeping worker. The request holds until the worker begins another turn, which changes
//     turn.
//
// A thief takes from no other worker. That tasks wait at this moment does not mean that they wait
// for long, and waking a thread costs more than a hundred short polls. A version that took tasks
// wherever it saw them moved the handlers of connections that had just been assigned, and spread
// the connections of an echo server 2 to 1 over two workers.
//
// A wake of a thief may be lost: a worker that is about to sleep has looked for tasks to steal, but
// has not set asleep yet. The protocol in idle.go does not cover this, since the tasks are not
// lost: their worker polls them, and asks again in its next turn, or the watchdog marks it again at
// its next check.

// wakeThief asks for a thief for the queue of w, and wakes a sleeping worker: an active worker (see
// activeSet), or any worker if all is set. The load before the store keeps the cache line shared
// while the request stands.
func (w *worker) wakeThief(all bool) {
	if !w.wantsThief.Load() {
		w.wantsThief.Store(true)
	}
	if all {
		w.rt.wakeOneOf(w, w.rt.workers)
	} else {
		w.rt.wakeOneOf(w, w.rt.activeWorkers())
	}
}

// steal takes tasks from the first worker that wants a thief or is stuck and has tasks that may
// move. It takes half of the queue, and from a stuck worker also the task in the shared run-next
// slot and the movable tasks in the inbox. It reports whether w has tasks now.
func (w *worker) steal() bool {
	workers := w.rt.workers
	for i := 1; i < len(workers); i++ {
		victim := workers[(w.index+i)%len(workers)]
		stuck := victim.stuck()
		asked := victim.wantsThief.Load() && victim.wantsThief.CompareAndSwap(true, false)
		if !asked && !stuck {
			continue
		}
		w.counts[countStolen] += w.pushList(victim.queue.steal())
		if stuck {
			w.counts[countStolen] += w.rescue(victim)
		}
		victim.probe.t.Store(nil) // its task may be among the stolen tasks
		if w.hasTasks() {
			return true
		}
	}
	return false
}

// stuck reports whether w is still in the turn in which the watchdog has found it stuck.
func (w *worker) stuck() bool {
	turn := w.stuckTurn.Load()
	return turn != 0 && turn == w.turn.Load()
}

// rescue takes the task in the shared run-next slot of a stuck worker and the movable tasks in its
// inbox, and returns how many tasks it has taken. It sends the other tasks of the inbox back. While
// it has the inbox, w is the holder of these tasks, so it may ask whether they may move.
//
// The local queue and runNextLocal cannot be rescued: their tasks have begun, or are bound to the
// worker.
func (w *worker) rescue(victim *worker) (n uint64) {
	if t := victim.runNext.Swap(nil); t != nil {
		w.push(t)
		n++
	}
	for t := victim.takeInbox(); t != nil; {
		next := t.next
		t.next = nil
		if t.movable() {
			w.push(t)
			n++
		} else {
			victim.send(t)
		}
		t = next
	}
	return n
}

// wakeOneOf unparks one sleeping worker among the given workers, so that it takes over tasks of w.
// It prefers a worker that is not parked without a P, since it wakes faster: in 20 microseconds
// instead of 80. The search begins after w, so that requests of several workers go to different
// workers.
func (rt *Runtime) wakeOneOf(w *worker, among []*worker) {
	var helper *worker
	for i := range among {
		if o := among[(w.index+1+i)%len(among)]; o != w && o.asleep.Load() {
			helper = o
			if !o.withoutP.Load() {
				break
			}
		}
	}
	if helper != nil {
		helper.unpark()
	}
}
