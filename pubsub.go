package async

import (
	"math"
)

// pubsubTopic is the common part of Broadcast and Watch: messages that are sent to all subscribers.
// A subscriber is a Subscription or a Watcher. The tasks that wait with one subscriber share its
// messages: each message is for one of these tasks.
//
//  1. publish adds a message. For each subscriber with waiting tasks it calls the first task that
//     was not called, if the subscriber has a message for it: it takes the task's waiter off the
//     queue and counts it in called. The tasks are woken after the unlock.
//  2. The called task is polled. If it gets a message or an error, its wait ends (leave).
//  3. If another task has taken the message, the called task goes back to the front of the queue
//     (join).
//  4. If the called task is given up, its wait ends, and the next task is called (giveUp).
//
// So an event wakes one task of each subscriber, and no more tasks than the subscriber has
// messages. While the lock is free, a subscriber that has uncalled tasks has called a task for each
// message that it has not received.
type pubsubTopic struct {
	mu      lockOf[pubsubTopic] // guards everything, the subscribers included
	version uint64              // how many messages have been published
	closed  bool
	waiting linkedList[pubsubSubscriber, *pubsubSubscriber] // the subscribers with uncalled tasks
}

// pubsubSubscriber is one view of a topic. Its fields are guarded by the topic's lock.
type pubsubSubscriber struct {
	of   *pubsubTopic
	seen uint64 // the version up to which it has received the messages

	queue  waiterQueue             // the tasks that wait and are not called
	called int32                   // how many tasks were called and have not tried yet
	listed bool                    // it is in the topic's waiting, since queue is not empty
	at     links[pubsubSubscriber] // its place there
	w      waiter                  // of the task that uses PollNext
}

// The most messages that a subscriber of one kind has.
const (
	pubsubEach   = math.MaxUint64 // each message counts: a Subscription
	pubsubLatest = 1              // a newer message replaces the older one: a Watcher
)

// publish adds a message and calls the tasks to wake for it. mu is held.
func (p *pubsubTopic) publish(most uint64, chosen *chosenTasks) {
	p.version++
	for f := range p.waiting.all() {
		f.call(most, chosen)
	}
}

// close says that there will be no more messages, and calls all tasks that wait. It reports whether
// it was the first close. mu is held.
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

// call calls one more task, if there is a message for it. mu is held.
func (f *pubsubSubscriber) call(most uint64, chosen *chosenTasks) {
	if w := f.queue.first; w != nil && uint64(f.called) < min(f.of.version-f.seen, most) {
		f.called++
		chosen.add(f.queue.choose(w))
		f.list()
	}
}

// callAll calls all tasks. mu is held.
func (f *pubsubSubscriber) callAll(chosen *chosenTasks) {
	f.called += int32(f.queue.n)
	f.queue.chooseAll(chosen)
	f.list()
}

// join makes t wait with w. If w was called and found nothing, it goes to the front of the queue.
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

// leave ends the wait of w, and returns the phase that w had. mu is held. If w was called and did
// not get its message, the caller must call the next task (call).
func (f *pubsubSubscriber) leave(w *waiter) (was waiterPhase) {
	if was = f.queue.leave(w); was == waiterChosen {
		f.called--
	}
	f.list()
	return was
}

// topic returns the topic of the subscriber. It panics for a zero Subscription or Watcher.
func (f *pubsubSubscriber) topic() *pubsubTopic {
	if f.of == nil {
		panic("async: a Subscription or Watcher that was not made by Broadcast.Subscribe or Watch.Watch was used")
	}
	return f.of
}

// giveUp ends the wait of w. If w was called for a message, the next task is called for it.
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

// list puts the subscriber into the topic's list when queue gets its first task, and takes it out
// after the last. So publish looks only at subscribers with tasks to call. mu is held.
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
