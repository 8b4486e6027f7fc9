package async

// Readiness is the set of operations for which a descriptor is ready.
type Readiness uint8

// The operations for which a descriptor may be ready.
const (
	Readable Readiness = 1 << iota
	Writable

	// HungUp says that no more data will come from the peer, or that an error is
	// pending. It need not be asked for. It is reported together with the directions that
	// were asked for, since calls will not wait. If the peer has closed only its sending
	// side, HungUp is reported only together with Readable. For a want of nothing
	// the report depends on the system.
	HungUp

	// urgent says that there is urgent data, in front of which reads stop.
	// Kqueue does not, nor does a Poller.
	urgent
)

// PollMode says how often a Poller reports that a descriptor is ready.
type PollMode uint8

const (
	// LevelTriggered reports it with every Wait for as long as it is ready.
	LevelTriggered PollMode = iota

	// EdgeTriggered reports it once, when it has become ready, and at Add and
	// Modify if it is ready then: the receiver of the event must go on until EAGAIN.
	EdgeTriggered

	// OnceTriggered reports it once, and then nothing until Modify asks again.
	OnceTriggered
)
