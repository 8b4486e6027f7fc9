package async

import "context"

// runtimeFiles is the state that all files of a runtime share.
type runtimeFiles struct {
	rt      *Runtime
	fifos   fifoOpenings
	pipes   splicePipes // of Copy
	devices devices
	ledger  fileLedger
}

func init() {
	newFileLayer = func(rt *Runtime) fileLayer {
		l := &runtimeFiles{rt: rt}
		l.fifos.init(rt.cfg.Blocking.Limit)
		return l
	}
}

// filesOf returns the state that the files of rt share.
func filesOf(rt *Runtime) *runtimeFiles { return rt.files.(*runtimeFiles) }

// finish implements fileLayer: it waits for the files that are being written or closed now. It does
// not wait for calls that begin later. It waits longer than Config.Grace only while the files make
// progress.
func (l *runtimeFiles) finish() error {
	return l.unwritten(whileTheyGetOn(l.unfinished(), func(all []unfinishedFile) []unfinishedFile {
		grace, cancel := l.rt.grace()
		defer cancel()
		return awaitFiles(grace, all)
	}))
}

// finishWithin implements fileLayer: it is finish, but ends with ctx.
func (l *runtimeFiles) finishWithin(ctx context.Context) error {
	return l.unwritten(awaitFiles(ctx, l.unfinished()))
}

// close implements fileLayer.
func (l *runtimeFiles) close() { l.pipes.close() }
