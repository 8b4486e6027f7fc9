package async

// Readiness is the set of directions for which a descriptor is ready, as bits. See [Poller.Add] and
// [PollEvent].
type Readiness uint8

// The members of a [Readiness].
const (
	// Readable means that a read does not wait.
	Readable Readiness = 1 << iota
	// Writable means that a write does not wait.
	Writable

	// HungUp means that no more data will arrive from the peer, or that an error is pending. A
	// [Poller] reports it without being asked. It is reported together with the directions that
	// were asked for, because calls in these directions do not wait then. If the peer has closed
	// only its sending side, HungUp is reported only together with [Readable]. If no direction was
	// asked for, the system decides whether it is reported.
	HungUp

	// urgent means that there is urgent data, in front of which reads stop. Only epoll reports it,
	// and a Poller does not pass it on.
	urgent
)

// PollMode says how often a [Poller] reports that a descriptor is ready.
type PollMode uint8

const (
	// LevelTriggered reports the descriptor with every [Poller.Wait] while it is ready.
	LevelTriggered PollMode = iota

	// EdgeTriggered reports the descriptor once, when it has become ready. [Poller.Add] and
	// [Poller.Modify] report it, too, if it is ready then. After such an event the program must
	// read or write until EAGAIN.
	EdgeTriggered

	// OnceTriggered reports the descriptor once, and then not until [Poller.Modify] asks again.
	OnceTriggered
)
