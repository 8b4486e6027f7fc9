package async

import "context"

// runtimeFiles is what the files of a runtime share.
type runtimeFiles struct {
	rt      *Runtime
	fifos   fifoOpenings
	pipes   splicePipes // for Copy
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

// filesOf returns what the files of rt share.
func filesOf(rt *Runtime) *runtimeFiles { return rt.files.(*runtimeFiles) }

// finish implements fileLayer. Calls that come later are not waited for.
func (l *runtimeFiles) finish() error {
	return l.unwritten(whileTheyGetOn(l.unfinished(), func(all []unfinishedFile) []unfinishedFile {
		grace, cancel := l.rt.grace()
		defer cancel()
		return awaitFiles(grace, all)
	}))
}

// finishWithin implements fileLayer.
func (l *runtimeFiles) finishWithin(ctx context.Context) error {
	return l.unwritten(awaitFiles(ctx, l.unfinished()))
}

func (l *runtimeFiles) close() { l.pipes.close() }
