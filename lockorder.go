package async

// lockOrder is the order of all mutexes that are fields of types of this package, by the name of
// the type.
//
// # Rules
//
//  1. A goroutine that holds a mutex locks only mutexes of types that are below its type in the
//     list. So it never holds two mutexes of one type, and there is no cycle of goroutines that
//     wait for each other.
//  2. A mutex is held for a few assignments. The code collects the tasks to wake while it holds the
//     mutex, and wakes them after it has unlocked it. It calls no function of the user meanwhile,
//     and waits for nothing.
//  3. No task waits while it holds a mutex of this list: the mutex would stay locked until its next
//     poll. The primitives for tasks (Mutex, RWMutex and so on) are not mutexes in this sense.
//
// The exceptions to rule 2 are mutexes that serialize goroutines outside the pool, and that no task
// locks: netSide is held while a goroutine reads, writes or accepts, also while it parks;
// defaultState is held while the default runtime is started; ownProcs and procCount are held while
// GOMAXPROCS changes, which stops the world. A task may have to wait for the last two, if it is the
// first to spawn on another runtime.
//
// # How it is checked
//
//   - Every mutex that is a field has the type lockOf[owner], and owner is in the list.
//     TestLockOrderIsComplete compares the list with the source. Mutexes that are local variables
//     are not in the list: nothing is locked under them.
//   - With the build tag lockorder, lockOf is a type that notes which mutexes each goroutine holds
//     (lockorder_on.go). A Lock against the order panics, also if no goroutine waits at that
//     moment. "make locks" runs the tests with the tag. So a wrong order is found if one test runs
//     through it once. It is not necessary that two goroutines meet.
//   - Without the tag, lockOf is sync.Mutex and costs nothing (lockorder_off.go).
//
// TryLock may be called in any order, since it does not wait.
//
// To add a mutex, put the name of its type as far down as the mutexes allow that are locked under
// it.
var lockOrder = []string{
	// The comments say what is locked under a mutex of the type.
	"defaultState",  // procCount, when a Config is completed; and all that New locks
	"netSide",       // all that waiting for a descriptor takes; Runtime, by BlockOn
	"exitWatch",     // sharedReactor, fdTable, reactor: it waits for the descriptor of a process
	"File",          // waitlist (of the pool), fileLedger, terminalInput, fanout, fdTable, reactor
	"fileLedger",    // nothing
	"terminalInput", // nothing
	"sharedReactor", // reactor, when a new reactor cannot be opened
	"ioDeadline",    // reactor, whose server is woken when a timer of another worker is stopped
	"pollRetry",     // the same
	"cancelScope",   // the same
	"waitlist",      // fanout: the slots of the tasks that a primitive ends or joins
	"discardLock",   // fanout: the slot of a task with a result that may have to be closed
	"fanout",        // nothing
	"fdTable",       // nothing
	"reactor",       // nothing
	"ownProcs",      // procCount
	"procCount",     // nothing

	// Nothing is locked under the following mutexes. Of these only Runtime is locked under another
	// mutex.
	"Cmd",
	"JoinSet",
	"Runtime",
	"SignalStream",
	"taskFailures",
	"fifoOpenings",
	"idleWatch",
	"identityTable",
	"serveRun",
	"spillQueue",
	"splicePipes",
	"stallReports",
	"pubsubTopic",
	"waitingList",
}
