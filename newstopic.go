package async

import (
	"math"
)

// newsTopic is the common part of Broadcast and Watch: news, which each follower (a
// Subscription or a Watcher) gets for itself. The tasks that wait with one follower share
// its news: each piece is for one of them.
//
// So an event wakes one task of each follower that has tasks waiting, and no more than the
// follower has news for. When a task that was woken gives up, the next task is woken.
type newsTopic struct {
	mu      lockOf[newsTopic] // guards everything, the followers included
	version uint64            // how much news there has been
	closed  bool
	waiting linkedList[newsFollower] // the followers with which tasks wait
}

// newsFollower is one view of a topic. Its fields are guarded by the topic's lock.
type newsFollower struct {
	of   *newsTopic
	seen uint64 // the version up to which it has got the news

	queue  waiterQueue         // tasks that wait for news
	called int                 // how many tasks were woken for news and have not tried yet
	at     links[newsFollower] // in the topic's waiting; in none if no task waits
	w      waiter              // of the task that polls
}

// How much news a follower of one kind has at most.
const (
	newsEach   = math.MaxUint64 // each piece counts: a Subscription
	newsLatest = 1              // newer news replaces older news: a Watcher
)

// publish adds a piece of news and chooses the tasks to wake for it. mu is held.
func (p *newsTopic) publish(most uint64, chosen *chosenTasks) {
	p.version++
	for f := range p.waiting.all() {
		f.call(most, chosen)
	}
}

// close ends the news and chooses all tasks that wait. mu is held.
func (p *newsTopic) close(chosen *chosenTasks) (first bool) {
	first = !p.closed
	p.closed = true
	for f := range p.waiting.all() {
		f.callAll(chosen)
	}
	return first
}

// call chooses one more task, if there is news for it. mu is held.
func (f *newsFollower) call(most uint64, chosen *chosenTasks) {
	if w := f.queue.first; w != nil && uint64(f.called) < min(f.of.version-f.seen, most) {
		f.called++
		chosen.add(f.queue.choose(w))
		f.list()
	}
}

// callAll chooses all tasks. mu is held.
func (f *newsFollower) callAll(chosen *chosenTasks) {
	f.called += f.queue.n
	f.queue.chooseAll(chosen)
	f.list()
}

// join makes t wait with w. If w was called and found nothing, it goes before the others.
// mu is held.
func (f *newsFollower) join(w *waiter, t *task) {
	if w.phase == waiterChosen {
		f.called--
		f.queue.joinFirst(w, t)
	} else {
		f.queue.join(w, t)
	}
	f.list()
}

// leave takes w out. mu is held. A caller that has not got the news for which w was called
// must call the next task (call).
func (f *newsFollower) leave(w *waiter) (was waiterPhase) {
	if was = f.queue.leave(w); was == waiterChosen {
		f.called--
	}
	f.list()
	return was
}

// giveUp takes w out. If w was called for news, the next task is called for it.
func (f *newsFollower) giveUp(w *waiter, most uint64) {
	var chosen chosenTasks
	f.of.mu.Lock()
	f.leave(w)
	f.call(most, &chosen)
	f.of.mu.Unlock()
	chosen.wake()
}

// list has the follower in the topic's list while tasks wait. mu is held.
func (f *newsFollower) list() {
	switch waits := f.queue.n > 0; {
	case waits == (f.at.in != nil):
	case waits:
		f.of.waiting.push(f, &f.at)
	default:
		f.of.waiting.remove(&f.at)
	}
}
