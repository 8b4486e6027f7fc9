package async

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// An UnwrittenError is returned by Run and Shutdown if data was lost that [File.Write]
// had accepted, and no call has reported this: because writing the data failed, or
// because it took too long.
type UnwrittenError struct {
	Files []UnwrittenFile

	// More says that writes of further files have failed, which are not in Files.
	More bool
}

// An UnwrittenFile is a file in an UnwrittenError.
type UnwrittenFile struct {
	Name  string
	Bytes int64 // how much of the accepted data is not known to be written; 0 if only the closing has not ended
	Err   error // the error of the write, or context.DeadlineExceeded if it has not ended
}

// Error names the files.
func (e *UnwrittenError) Error() string {
	const shown = 10
	var b strings.Builder
	b.WriteString("async: data that was accepted has not been written: ")
	for i, f := range e.Files {
		if i == shown {
			fmt.Fprintf(&b, ", and %d more", len(e.Files)-shown)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%d bytes of %s: %v", f.Bytes, f.Name, f.Err)
	}
	if e.More {
		b.WriteString("; and more files")
	}
	return b.String()
}

// Unwrap returns the errors of all files.
func (e *UnwrittenError) Unwrap() (errs []error) {
	for _, f := range e.Files {
		errs = append(errs, f.Err)
	}
	return errs
}

// fileLedger knows which files of a runtime are being closed, and which have lost data
// that no call has reported. The files that are being written are in the lists of the
// pool of blocking calls.
type fileLedger struct {
	mu      lockOf[fileLedger]
	closing map[*File]*JoinHandle[None]
	losses  map[*fileLoss]struct{}
	more    bool // losses was full
}

// fileLoss is data of a file that was accepted and could not be written. It does not
// refer to the File, which may have been dropped.
type fileLoss struct {
	in *fileLedger
	UnwrittenFile
}

// lossesMost is how many losses a runtime remembers. Programs that neither close their
// files nor look at errors could else fill the memory.
const lossesMost = 1000

// begin notes that f is being closed by the task of h.
func (l *fileLedger) begin(f *File, h *JoinHandle[None]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing == nil {
		l.closing = map[*File]*JoinHandle[None]{}
	}
	l.closing[f] = h
}

// end notes that f has been closed.
func (l *fileLedger) end(f *File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.closing, f)
}

// lose notes a loss. If was is not nil, it is a loss of the same file that no call has
// reported yet, and lose adds to it.
func (l *fileLedger) lose(was *fileLoss, name string, bytes int64, err error) *fileLoss {
	l.mu.Lock()
	defer l.mu.Unlock()
	if was != nil {
		was.Bytes += bytes
		return was
	}
	if len(l.losses) == lossesMost {
		l.more = true
		return nil
	}
	if l.losses == nil {
		l.losses = map[*fileLoss]struct{}{}
	}
	loss := &fileLoss{in: l, UnwrittenFile: UnwrittenFile{Name: name, Bytes: bytes, Err: err}}
	l.losses[loss] = struct{}{}
	return loss
}

// reported removes a loss that a call has reported. loss may be nil.
func (loss *fileLoss) reported() {
	if loss != nil {
		loss.in.mu.Lock()
		delete(loss.in.losses, loss)
		loss.in.mu.Unlock()
	}
}

// takeLosses returns the losses that no call has reported. They are reported by that.
func (l *fileLedger) takeLosses() (e UnwrittenError) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for loss := range l.losses {
		e.Files = append(e.Files, loss.UnwrittenFile)
	}
	e.More = l.more
	l.losses, l.more = nil, false
	return e
}

// An unfinishedFile has data that is being written, up to a mark, or is being closed.
type unfinishedFile struct {
	f       *File
	mark    int64
	closing *JoinHandle[None] // nil if it is not being closed
}

// unfinished returns the files of the runtime that are being closed, or written after
// their Write has returned.
func (l *runtimeFiles) unfinished() (all []unfinishedFile) {
	files := l.beingWritten()
	l.ledger.mu.Lock()
	closing := make(map[*File]*JoinHandle[None], len(l.ledger.closing))
	for f, h := range l.ledger.closing {
		closing[f] = h
		if !slices.Contains(files, f) {
			files = append(files, f)
		}
	}
	l.ledger.mu.Unlock()
	for _, f := range files {
		u := unfinishedFile{f: f, closing: closing[f]}
		f.mu.Lock()
		u.mark = f.accepted
		f.mu.Unlock()
		if !u.done() {
			all = append(all, u)
		}
	}
	return all
}

// beingWritten returns the files whose accepted data the pool writes, or is to write.
func (l *runtimeFiles) beingWritten() (files []*File) {
	for _, o := range l.rt.calls.unfinishedWriters() {
		if f, ok := o.(*File); ok {
			files = append(files, f)
		}
	}
	return files
}

// left returns how many bytes are not written.
func (u *unfinishedFile) left() int64 {
	u.f.mu.Lock()
	defer u.f.mu.Unlock()
	return max(0, u.mark-u.f.written)
}

func (u *unfinishedFile) done() bool {
	return u.left() == 0 && (u.closing == nil || u.closing.state.done())
}

// await waits until u is done, or ctx has ended.
func (u *unfinishedFile) await(ctx context.Context) {
	p := takeParker()
	defer p.free()
	for {
		for !u.f.changed.join(&p.task) {
		}
		if u.closing != nil && !u.closing.waiters.join(&p.task) {
			break // it has ended
		}
		if u.done() || p.park(ctx) != nil {
			break
		}
	}
	u.f.changed.leave(&p.task, nil)
	if u.closing != nil {
		u.closing.waiters.leave(&p.task, nil)
	}
}

// awaitFiles waits until the data of all files is written and the closings that have
// begun have ended, or ctx ends. It returns the files that are not done.
func awaitFiles(ctx context.Context, all []unfinishedFile) (left []unfinishedFile) {
	for _, u := range all {
		if u.await(ctx); !u.done() {
			left = append(left, u)
		}
	}
	return left
}

// whileTheyGetOn calls await, which returns the files that are not done. It stops when
// there are none, or when none has made progress during the call.
func whileTheyGetOn(all []unfinishedFile, await func([]unfinishedFile) []unfinishedFile) []unfinishedFile {
	for len(all) > 0 {
		before := amountLeft(all)
		if all = await(all); amountLeft(all) == before {
			break
		}
	}
	return all
}

// amountLeft measures the work that is not done. It only falls.
func amountLeft(all []unfinishedFile) (n int64) {
	for _, u := range all {
		n += 1 + u.left()
	}
	return n
}

// unwritten returns the error about files that are not done, and about losses; nil if
// there are none.
func (l *runtimeFiles) unwritten(late []unfinishedFile) error {
	e := l.ledger.takeLosses()
	for _, u := range late {
		e.Files = append(e.Files, UnwrittenFile{Name: u.f.name, Bytes: u.left(), Err: context.DeadlineExceeded})
	}
	if len(e.Files) == 0 && !e.More {
		return nil
	}
	slices.SortFunc(e.Files, func(a, b UnwrittenFile) int { return strings.Compare(a.Name, b.Name) })
	return &e
}
