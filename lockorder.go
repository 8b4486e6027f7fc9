package async

// lockOrder is the order of all mutexes that are fields of this package's types, by the name
// of the type. A goroutine that holds a mutex locks only mutexes of types that stand below
// its type, so never two of the same type. The comments say which mutexes are locked under a mutex, and why.
//
// With the build tag lockorder each Lock is checked against this list; see lockOf.
var lockOrder = []string{
	"defaultState",  // held while the default runtime is started
	"netSide",       // held while a goroutine reads, writes or accepts: all that waiting for a descriptor takes
	"exitWatch",     // waiting for the descriptor of a process
	"File",          // the queue of the pool, the ledger of unwritten files, the terminal input, the waiters for the position
	"fileLedger",    //
	"terminalInput", //
	"sharedReactor", //
	"ioDeadline",    // the reactor whose timer is set
	"pollRetry",     // the same
	"cancelScope",   // the same
	"waitlist",      // the slots of the tasks that a primitive ends or joins
	"discardLock",   // the slot of a task that has a result to be closed
	"fanout",        //
	"fdTable",       //
	"reactor",       //
	"ownProcs",      // the count of the whole program
	"procCount",     //

	// Nothing is locked under these, and they are locked under none.
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
