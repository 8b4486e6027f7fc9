package async

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Unwritten data
//
// Run and Shutdown wait for the data that Write has accepted, and report data that is lost:
//
//  1. A File whose data is being written has a call in the pool, whose lists lead to it
//     (beingWritten). A File that is being closed is in the ledger (beginClose). So no list of all
//     Files is needed, and a program may drop a File.
//  2. finish and finishWithin collect these files, and note for each the place f.accepted
//     (unfinished). They wait until all bytes before this place are written or dropped, and the
//     closing has ended. They do not wait for data that is accepted later. So tasks that continue
//     to write do not keep Run from returning.
//  3. Run (finish) waits while a file makes progress within Config.Grace. Shutdown (finishWithin)
//     waits until its ctx ends.
//  4. A write that fails adds a loss to the ledger (noteWritten). A call that returns the error
//     removes it (reportedLoss). The losses that are left, and the files that are not done, are the
//     UnwrittenError.

// An UnwrittenError is returned by [Run] and [Runtime.Shutdown] if data that [File.Write] has
// accepted is lost, and no call has returned an error for it. Either writing the data has failed,
// or it has taken too long.
type UnwrittenError struct {
	Files []UnwrittenFile // the files with lost data, sorted by name

	// More says that there are further files with lost data, which are not in Files. The first
	// 1,000 are.
	More bool
}

// An UnwrittenFile is a file in an [UnwrittenError].
type UnwrittenFile struct {
	Name  string // the name with which the file was opened
	Bytes int64  // how many accepted bytes may be lost; 0 if only the closing has not ended
	Err   error  // the error of the write, or context.DeadlineExceeded if it or the closing has not ended
}

// Error names the files, up to ten of them.
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

// Unwrap returns the errors of all files, for [errors.Is] and [errors.As].
func (e *UnwrittenError) Unwrap() (errs []error) {
	for _, f := range e.Files {
		errs = append(errs, f.Err)
	}
	return errs
}

// fileLedger lists the files of a runtime that are being closed, and the losses that no call has
// returned. It does not list the files that are being written: the pool of blocking calls has their
// calls.
type fileLedger struct {
	mu      lockOf[fileLedger]
	closing map[*File]*JoinHandle[None] // with the call that closes each file
	losses  map[*fileLoss]struct{}
	more    bool // a loss was left out, since losses was full
}

// fileLoss is accepted data of a file that could not be written. It does not refer to the File, so
// the program may drop the File.
type fileLoss struct {
	in *fileLedger
	UnwrittenFile
}

// lossesMost is the number of losses that a runtime keeps. Without a bound, a program that neither
// closes its files nor looks at errors could fill the memory.
const lossesMost = 1000

// begin notes that the call of h closes f.
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

// lose notes a loss. If was is not nil, it is an earlier loss of the same file that no call has
// returned, and lose adds to it.
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

// reported removes a loss, because a call has returned it. loss may be nil.
func (loss *fileLoss) reported() {
	if loss != nil {
		loss.in.mu.Lock()
		delete(loss.in.losses, loss)
		loss.in.mu.Unlock()
	}
}

// takeLosses returns the losses that no call has returned, and removes them.
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

// An unfinishedFile is a file that is being written, up to the place mark, or that is being closed.
// See filewritebehind.go for places.
type unfinishedFile struct {
	f       *File
	mark    int64
	closing *JoinHandle[None] // nil if it is not being closed
}

// unfinished returns the files of the runtime that are being closed, and the files that have
// accepted data that is not written.
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

// beingWritten returns the files for which the pool has a call that writes, or that waits to begin.
func (l *runtimeFiles) beingWritten() (files []*File) {
	for _, o := range l.rt.calls.unfinishedWriters() {
		if f, ok := o.(*File); ok {
			files = append(files, f)
		}
	}
	return files
}

// left returns how many bytes before mark are not written.
func (u *unfinishedFile) left() int64 {
	u.f.mu.Lock()
	defer u.f.mu.Unlock()
	return max(0, u.mark-u.f.written)
}

// done reports whether the data is written and the file, if it was being closed, is closed.
func (u *unfinishedFile) done() bool {
	return u.left() == 0 && (u.closing == nil || u.closing.state.done())
}

// await waits until u is done, or ctx ends.
func (u *unfinishedFile) await(ctx context.Context) {
	p := takeParker()
	defer p.free()
	for {
		for !u.f.changed.join(&p.task) {
		}
		// Join both before the look at done, so that no event between the two is missed.
		if u.closing != nil && !u.closing.waiters.join(&p.task) {
			break // the closing has ended
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

// awaitFiles waits until the data of all files is written and their closings have ended, or ctx
// ends. It returns the files that are not done.
func awaitFiles(ctx context.Context, all []unfinishedFile) (left []unfinishedFile) {
	for _, u := range all {
		if u.await(ctx); !u.done() {
			left = append(left, u)
		}
	}
	return left
}

// whileTheyGetOn calls await, which returns the files that are not done, until all are done, or a
// call has made no progress.
func whileTheyGetOn(all []unfinishedFile, await func([]unfinishedFile) []unfinishedFile) []unfinishedFile {
	for len(all) > 0 {
		before := amountLeft(all)
		if all = await(all); amountLeft(all) == before {
			break
		}
	}
	return all
}

// amountLeft measures the work that is left: the bytes, and one for each file. It never grows.
func amountLeft(all []unfinishedFile) (n int64) {
	for _, u := range all {
		n += 1 + u.left()
	}
	return n
}

// unwritten returns the error about the files in late, which have not been written or closed in
// time, and about losses. It returns nil if there are none.
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
