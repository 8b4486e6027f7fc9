package async

// wakeThief lets other workers take from the queue, and wakes a parked worker: an active one (see activeSet), or any
// worker if all is set.
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

// steal takes tasks of another worker: half the queue of a worker that wants a thief or is stuck in a poll, and from a
// stuck worker also its run-next task and the movable tasks of its inbox. It reports whether there were any. It leaves the
// tasks of all other workers alone: that they wait at this moment does not mean that they wait for long.
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
		victim.probe.t.Store(nil) // it may be among what was taken
		if w.hasTasks() {
			return true
		}
	}
	return false
}

// stuck reports whether w is in a turn in which the watchdog has found it to be stuck.
func (w *worker) stuck() bool {
	turn := w.stuckTurn.Load()
	return turn != 0 && turn == w.turn.Load()
}

// rescue takes the run-next task of a stuck worker and the movable tasks of its inbox, sends the other tasks of the inbox
// back, and returns how many it has taken.
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

// wakeOneOf wakes a worker among some that sleeps, so that it takes over some of w's tasks: if there is one, one that is not
// parked without a P, since that wakes faster.
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
