package async

import (
	"math"
)

// pubsubTopic is the common part of Broadcast and Watch: messages, which each subscriber (a
// Subscription or a Watcher) gets for itself. The tasks that wait with one subscriber share
// its messages: each is for one of them.
//
// So an event wakes one task of each subscriber that has tasks waiting, and no more than the
// subscriber has messages for. When a task that was woken gives up, the next task is woken.
type pubsubTopic struct {
	mu      lockOf[pubsubTopic] // guards everything, the subscribers included
	version uint64              // how many messages there have been
	closed  bool
	waiting linkedList[pubsubSubscriber, *pubsubSubscriber] // the subscribers with which tasks wait
}

// pubsubSubscriber is one view of a topic. Its fields are guarded by the topic's lock.
type pubsubSubscriber struct {
	of   *pubsubTopic
	seen uint64 // the version up to which it has got the messages

	queue  waiterQueue // tasks that wait for a message
	called int32       // how many tasks were woken for a message and have not tried yet
	listed bool        // in the topic's waiting, since tasks wait
	at     links[pubsubSubscriber]
	w      waiter // of the task that polls
}

// How many messages a subscriber of one kind has at most.
const (
	pubsubEach   = math.MaxUint64 // each message counts: a Subscription
	pubsubLatest = 1              // a newer message replaces the older one: a Watcher
)

// publish adds a message and chooses the tasks to wake for it. mu is held.
func (p *pubsubTopic) publish(most uint64, chosen *chosenTasks) {
	p.version++
	for f := range p.waiting.all() {
		f.call(most, chosen)
	}
}

// close ends the messages and chooses all tasks that wait. mu is held.
func (p *pubsubTopic) close(chosen *chosenTasks) (first bool) {
	first = !p.closed
	p.closed = true
	for f := range p.waiting.all() {
		f.callAll(chosen)
	}
	return first
}

// end implements Close of Broadcast and Watch.
func (p *pubsubTopic) end() error {
	var chosen chosenTasks
	p.mu.Lock()
	first := p.close(&chosen)
	p.mu.Unlock()
	chosen.wake()
	return closedNow(first)
}

// call chooses one more task, if there is a message for it. mu is held.
func (f *pubsubSubscriber) call(most uint64, chosen *chosenTasks) {
	if w := f.queue.first; w != nil && uint64(f.called) < min(f.of.version-f.seen, most) {
		f.called++
		chosen.add(f.queue.choose(w))
		f.list()
	}
}

// callAll chooses all tasks. mu is held.
func (f *pubsubSubscriber) callAll(chosen *chosenTasks) {
	f.called += int32(f.queue.n)
	f.queue.chooseAll(chosen)
	f.list()
}

// join makes t wait with w. If w was called and found nothing, it goes before the others.
// mu is held.
func (f *pubsubSubscriber) join(w *waiter, t *task) {
	if w.phase == waiterChosen {
		f.called--
		f.queue.joinFirst(w, t)
	} else {
		f.queue.join(w, t)
	}
	f.list()
}

// leave takes w out. mu is held. A caller that has not got the message for which w was called
// must call the next task (call).
func (f *pubsubSubscriber) leave(w *waiter) (was waiterPhase) {
	if was = f.queue.leave(w); was == waiterChosen {
		f.called--
	}
	f.list()
	return was
}

// topic returns the topic of the subscriber.
func (f *pubsubSubscriber) topic() *pubsubTopic {
	if f.of == nil {
		panic("async: a Subscription or Watcher that was not made by Broadcast.Subscribe or Watch.Watch was used")
	}
	return f.of
}

// giveUp takes w out. If w was called for a message, the next task is called for it.
func (f *pubsubSubscriber) giveUp(w *waiter, most uint64) {
	var chosen chosenTasks
	f.of.mu.Lock()
	f.leave(w)
	f.call(most, &chosen)
	f.of.mu.Unlock()
	chosen.wake()
}

// links implements linkedElement.
func (f *pubsubSubscriber) links() *links[pubsubSubscriber] { return &f.at }

// list has the subscriber in the topic's list while tasks wait. mu is held.
func (f *pubsubSubscriber) list() {
	switch waits := f.queue.n > 0; {
	case waits == f.listed:
	case waits:
		f.listed = true
		f.of.waiting.push(f)
	default:
		f.listed = false
		f.of.waiting.remove(f)
	}
}
