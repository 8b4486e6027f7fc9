package async

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// errorRow is an operation in a state, and the error that the operation returns in this state.
type errorRow struct {
	op    string // the name of the function, or "Type.Method"
	state string
	run   func(cx *Context) error
	typ   error        // a value of the type of the error; nil if the error is the field is itself
	is    error        // the error is this error or wraps this error; nil if any error will do
	std   func() error // the same operation of the standard library; nil if it has none
	stdIs error        // the field is for std, if it differs; errAny if any error will do
}

// Types of errors, for errorRow.typ.
var (
	opError    = (*net.OpError)(nil)
	dnsError   = (*net.DNSError)(nil)
	pathError  = (*fs.PathError)(nil)
	linkError  = (*os.LinkError)(nil)
	callFailed = (*os.SyscallError)(nil)
	exitError  = (*exec.ExitError)(nil)
	execError  = (*exec.Error)(nil)
	copyError  = (*CopyError)(nil)
	textError  = errors.New("") // an error with nothing but a text
	wrapError  = fmt.Errorf("%w", io.EOF)

	errAny = errors.New("any error")
)

// errorTable collects the rows.
type errorTable struct {
	*testing.T
	rt   *Runtime
	dir  string
	rows []errorRow
}

func (tab *errorTable) add(rows ...errorRow) { tab.rows = append(tab.rows, rows...) }

// path returns the name of a new file in the directory of the test.
func (tab *errorTable) path(name string) string {
	return filepath.Join(tab.dir, fmt.Sprint(name, len(tab.rows)))
}

// Every exported operation of files, sockets, resolvers, processes and so on returns the type of
// error that its comment names. Its twin in the standard library returns the same type.
func TestErrorTypes(t *testing.T) {
	tab := &errorTable{T: t, rt: newTestRuntime(t, Config{Workers: 1}), dir: netDir(t)}
	tab.fileRows()
	tab.fileSystemRows()
	tab.connRows()
	tab.dialRows()
	tab.listenRows()
	tab.resolverRows()
	tab.processRows()
	tab.pollRows()
	tab.copyRows()
	tab.limitRows()
	for _, row := range tab.rows {
		var err error
		returned := runTask(tab.rt, func(cx *Context) error { err = row.run(cx); return nil })
		name := row.op + ", " + row.state
		require.NoError(t, returned, name)
		row.check(t, name, err, row.is)
		if row.std != nil {
			want := row.is
			switch row.stdIs {
			case nil:
			case errAny:
				want = nil
			default:
				want = row.stdIs
			}
			row.check(t, "the standard library: "+name, row.std(), want)
		}
	}
	tab.isComplete()
}

func (row *errorRow) check(t *testing.T, name string, err, is error) {
	if !assert.Error(t, err, name) {
		return
	}
	if row.typ == nil {
		assert.True(t, err == is, "%s: %T %v, want %v as it is", name, err, err, is)
		return
	}
	assert.Equal(t, fmt.Sprintf("%T", row.typ), fmt.Sprintf("%T", err), "%s: %v", name, err)
	as := reflect.New(reflect.TypeOf(row.typ))
	assert.True(t, errors.As(err, as.Interface()), name)
	if is != nil {
		assert.ErrorIs(t, err, is, name)
	}
}

// errorFiles are the files whose exported functions must have rows if they return an error.
// errorTypes are the types whose methods must have rows if they return an error.
var (
	errorFiles = []string{"file*.go", "net.go", "netdialer.go", "netresolver.go", "netlistenconfig.go", "netconvert.go",
		"tcp.go", "udp*.go", "unix*.go", "socket*.go", "source.go", "poller.go", "process*.go", "signal.go", "io.go"}
	errorTypes = []string{"File", "TCPConn", "TCPListener", "UDPConn", "UnixConn", "UnixListener", "UnixDatagram", "Dialer",
		"ListenConfig", "Resolver", "Cmd", "Source", "Poller", "SignalStream"}
	// These functions return a value whose methods return the errors.
	errorResults = []string{"DialFuture", "Dialer.DialFuture", "File.CloseFuture", "SignalStream.All"}
)

// isComplete checks that each operation has a row.
func (tab *errorTable) isComplete() {
	have := map[string]bool{}
	for _, row := range tab.rows {
		have[row.op] = true
	}
	returnsError := func(fn *ast.FuncDecl) bool {
		if fn.Type.Results == nil {
			return false
		}
		list := fn.Type.Results.List
		last, ok := list[len(list)-1].Type.(*ast.Ident)
		return ok && last.Name == "error"
	}
	methods, _ := declaredAs(tab.T, returnsError)
	want := append([]string(nil), errorResults...)
	for _, m := range methods {
		of, _, _ := strings.Cut(m, ".")
		for _, name := range errorTypes {
			if of == name {
				want = append(want, m)
			}
		}
	}
	for _, pattern := range errorFiles {
		files, err := filepath.Glob(pattern)
		require.NoError(tab, err)
		require.NotEmpty(tab, files, pattern)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			require.NoError(tab, err)
			for _, d := range parsed.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.IsExported() && returnsError(fn) {
					want = append(want, fn.Name.Name)
				}
			}
		}
	}
	for _, op := range []string{"UDPConn.Read", "TCPListener.SetDeadline", "Rename"} {
		require.Contains(tab, want, op)
	}
	for _, op := range want {
		assert.True(tab, have[op], "%s has no row: what type has its error?", op)
	}
}

// cancelledCx calls run with a Context that is cancelled.
func cancelledCx(run func(cx *Context) error) func(cx *Context) error {
	return func(cx *Context) error {
		cx, cancel := cx.WithCancel()
		cancel()
		return run(cx)
	}
}

// lateCx calls run with a Context whose deadline has passed.
func lateCx(run func(cx *Context) error) func(cx *Context) error {
	return func(cx *Context) error {
		cx, cancel := cx.WithTimeout(-1)
		defer cancel()
		return run(cx)
	}
}

// cancelled adds rows for an operation whose Context has ended: one cancelled, one past its
// deadline.
func (tab *errorTable) cancelled(op string, run func(cx *Context) error, typ error) {
	tab.add(errorRow{op: op, state: "cancelled", run: cancelledCx(run), typ: typ, is: context.Canceled},
		errorRow{op: op, state: "cx timed out", run: lateCx(run), typ: typ, is: context.DeadlineExceeded})
}

// errorWhen tells which events end an operation.
type errorWhen int

const (
	atClose    errorWhen = iota // Close
	atDeadline                  // Close and a deadline, as for a poll
	atCancel                    // Close, a deadline and the end of the Context
)

// errorOp is an operation on an Own, and the same operation on its twin Std.
type errorOp[Own, Std any] struct {
	name string
	when errorWhen
	own  func(cx *Context, v Own) error
	std  func(v Std) error // nil if there is no twin
	is   error             // the field stdIs of the row for the closed twin
}

// errorValue has a value, and the functions that end operations on the value.
type errorValue[V any] struct {
	v      V
	close  func(cx *Context)
	expire func() error // sets a deadline that has passed; nil if the value has no deadlines
}

// addOps adds rows for operations on a value in each of its states. The errors have type typ, and
// type cancelled if cx has ended.
func addOps[Own, Std any](tab *errorTable, of string, own errorValue[Own], std errorValue[Std], typ, cancelled, closed error, ops []errorOp[Own, Std]) {
	type state struct {
		name   string
		least  errorWhen
		is     error
		own    func(cx *Context)
		std    func()
		exists bool
	}
	expire := func(f func() error) {
		if err := f(); err != nil {
			panic(err)
		}
	}
	for _, s := range []state{
		{"deadline", atDeadline, os.ErrDeadlineExceeded, func(*Context) { expire(own.expire) }, func() { expire(std.expire) }, own.expire != nil},
		{"closed", atClose, closed, own.close, func() { std.close(nil) }, true},
	} {
		for _, op := range ops {
			name := op.name
			if !strings.Contains(name, "BindConn") && !strings.Contains(name, "BindFile") {
				name = of + "." + name
			}
			run := func(cx *Context) error { return op.own(cx, own.v) }
			if s.least == atDeadline && op.when == atCancel {
				tab.cancelled(name, run, cancelled)
			}
			if !s.exists || op.when < s.least {
				continue
			}
			row := errorRow{op: name, state: s.name, typ: typ, is: s.is}
			row.run = func(cx *Context) error { s.own(cx); return run(cx) }
			if op.std != nil {
				row.std = func() error { s.std(); return op.std(std.v) }
				if s.least == atClose {
					row.stdIs = op.is
				}
			}
			tab.add(row)
		}
	}
}

// stdFile has the methods that os.File and the result of BindFile share.
type stdFileMethods interface {
	fs.ReadDirFile
	io.ReadWriteSeeker
	io.ReaderAt
	io.WriterAt
	io.StringWriter
	Sync() error
	Truncate(size int64) error
}

func (tab *errorTable) fileRows() {
	t := tab
	p := make([]byte, 8)
	past := func() time.Time { return time.Now().Add(-time.Second) }

	// Each operation, and its twin if package os has one of the same meaning.
	both := func(name string, when errorWhen, is error, own func(cx *Context, f *File) error, std func(f *os.File) error) errorOp[*File, *os.File] {
		return errorOp[*File, *os.File]{name, when, own, std, is}
	}
	common := []errorOp[*File, *os.File]{
		both("Read", atCancel, nil, func(cx *Context, f *File) error { return second(f.Read(cx, p)) }, func(f *os.File) error { return second(f.Read(p)) }),
		both("PollRead", atDeadline, nil, func(cx *Context, f *File) error { return second(f.PollRead(cx, p)) }, nil),
	}
	writes := []errorOp[*File, *os.File]{
		both("Write", atCancel, nil, func(cx *Context, f *File) error { return second(f.Write(cx, p)) }, func(f *os.File) error { return second(f.Write(p)) }),
		both("WriteString", atCancel, nil, func(cx *Context, f *File) error { return second(f.WriteString(cx, "x")) }, func(f *os.File) error { return second(f.WriteString("x")) }),
		both("PollWrite", atDeadline, nil, func(cx *Context, f *File) error { return second(f.PollWrite(cx, p)) }, nil),
	}
	rest := []errorOp[*File, *os.File]{
		both("Seek", atClose, nil, func(cx *Context, f *File) error { return second(f.Seek(cx, 0, io.SeekStart)) }, func(f *os.File) error { return second(f.Seek(0, io.SeekStart)) }),
		both("ReadAt", atClose, nil, func(cx *Context, f *File) error { return second(f.ReadAt(cx, p, 0)) }, func(f *os.File) error { return second(f.ReadAt(p, 0)) }),
		both("WriteAt", atClose, nil, func(cx *Context, f *File) error { return second(f.WriteAt(cx, p, 0)) }, func(f *os.File) error { return second(f.WriteAt(p, 0)) }),
		both("Sync", atClose, nil, func(cx *Context, f *File) error { return f.Sync(cx) }, func(f *os.File) error { return f.Sync() }),
		both("Datasync", atClose, nil, func(cx *Context, f *File) error { return f.Datasync(cx) }, func(f *os.File) error { return f.Sync() }),
		both("Truncate", atClose, nil, func(cx *Context, f *File) error { return f.Truncate(cx, 0) }, func(f *os.File) error { return f.Truncate(0) }),
		both("Stat", atClose, nil, func(cx *Context, f *File) error { return second(f.Stat(cx)) }, func(f *os.File) error { return second(f.Stat()) }),
		both("Chmod", atClose, nil, func(cx *Context, f *File) error { return f.Chmod(cx, 0o600) }, func(f *os.File) error { return f.Chmod(0o600) }),
		both("Chown", atClose, nil, func(cx *Context, f *File) error { return f.Chown(cx, -1, -1) }, func(f *os.File) error { return f.Chown(-1, -1) }),
		both("ReadDir", atClose, errAny, func(cx *Context, f *File) error { return second(f.ReadDir(cx, -1)) }, func(f *os.File) error { return second(f.ReadDir(-1)) }), // package os returns an error of its own inside
		both("Flush", atClose, nil, func(cx *Context, f *File) error { return f.Flush(cx) }, nil),
		both("PollFlush", atClose, nil, func(cx *Context, f *File) error { return f.PollFlush(cx) }, nil),
		both("Close", atClose, nil, func(cx *Context, f *File) error { return f.Close(cx) }, func(f *os.File) error { return f.Close() }),
		both("CloseFuture", atClose, nil, func(cx *Context, f *File) error { return second(Await(cx, f.CloseFuture())) }, func(f *os.File) error { return f.Close() }),
	}
	bound := func(name string, when errorWhen, is error, do func(f stdFileMethods) error) errorOp[*File, *os.File] {
		return both("BindFile, "+name, when, is, func(cx *Context, f *File) error { return do(BindFile(cx, f)) }, func(f *os.File) error { return do(f) })
	}
	boundReads := []errorOp[*File, *os.File]{
		bound("Read", atCancel, nil, func(f stdFileMethods) error { return second(f.Read(p)) }),
	}
	boundWrites := []errorOp[*File, *os.File]{
		bound("Write", atCancel, nil, func(f stdFileMethods) error { return second(f.Write(p)) }),
		bound("WriteString", atCancel, nil, func(f stdFileMethods) error { return second(f.WriteString("x")) }),
	}
	boundRest := []errorOp[*File, *os.File]{
		bound("Seek", atClose, nil, func(f stdFileMethods) error { return second(f.Seek(0, io.SeekStart)) }),
		bound("ReadAt", atClose, nil, func(f stdFileMethods) error { return second(f.ReadAt(p, 0)) }),
		bound("WriteAt", atClose, nil, func(f stdFileMethods) error { return second(f.WriteAt(p, 0)) }),
		bound("Sync", atClose, nil, func(f stdFileMethods) error { return f.Sync() }),
		bound("Truncate", atClose, nil, func(f stdFileMethods) error { return f.Truncate(0) }),
		bound("Stat", atClose, nil, func(f stdFileMethods) error { return second(f.Stat()) }),
		bound("ReadDir", atClose, errAny, func(f stdFileMethods) error { return second(f.ReadDir(-1)) }),
		bound("Close", atClose, nil, func(f stdFileMethods) error { return f.Close() }),
	}
	deadlines := []errorOp[*File, *os.File]{ // package os returns an error of its own
		both("SetDeadline", atClose, nil, func(_ *Context, f *File) error { return f.SetDeadline(time.Time{}) }, nil),
		both("SetReadDeadline", atClose, nil, func(_ *Context, f *File) error { return f.SetReadDeadline(time.Time{}) }, nil),
		both("SetWriteDeadline", atClose, nil, func(_ *Context, f *File) error { return f.SetWriteDeadline(time.Time{}) }, nil),
		both("SyscallConn", atClose, nil, func(_ *Context, f *File) error { return second(f.SyscallConn()) }, nil),
	}

	cat := func(lists ...[]errorOp[*File, *os.File]) (all []errorOp[*File, *os.File]) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	ofFile := func(f *File) errorValue[*File] {
		v := errorValue[*File]{v: f, close: func(cx *Context) { f.Close(cx) }}
		if f.polled {
			v.expire = func() error { return f.SetDeadline(past()) }
		}
		return v
	}
	ofStd := func(f *os.File) errorValue[*os.File] {
		return errorValue[*os.File]{f, func(*Context) { f.Close() }, func() error { return f.SetDeadline(past()) }}
	}
	r, w, err := Pipe()
	require.NoError(t, err)
	stdR, stdW, err := os.Pipe()
	require.NoError(t, err)
	addOps(tab, "File", ofFile(r), ofStd(stdR), pathError, nil, os.ErrClosed, cat(common, boundReads, rest, boundRest, deadlines))
	addOps(tab, "File", ofFile(w), ofStd(stdW), pathError, nil, os.ErrClosed, cat(writes, boundWrites, rest, boundRest, deadlines))

	open := func(name string) (f *File) {
		require.NoError(t, runTask(tab.rt, func(cx *Context) (err error) { f, err = Create(cx, name); return err }))
		return f
	}
	create := func(name string) *os.File {
		f, err := os.Create(name)
		require.NoError(t, err)
		return f
	}
	// Without polls, and without Close, which closes the file all the same.
	cancelled := cat(rest, boundRest)
	for i := range cancelled {
		if name := cancelled[i].name; !strings.Contains(name, "Close") && !strings.Contains(name, "Poll") {
			cancelled[i].when = atCancel
		}
	}
	disk, stdDisk := open(t.path("disk")), create(t.path("disk"))
	addOps(tab, "File", ofFile(disk), ofStd(stdDisk), pathError, nil, os.ErrClosed, cat(common, writes, boundReads, boundWrites, cancelled))
	closing := open(t.path("closing"))
	tab.add(errorRow{op: "File.Close", state: "cancelled, with data to be written", is: context.Canceled, run: func(cx *Context) error {
		if _, err := closing.Write(cx, p); err != nil {
			return err
		}
		cx, cancel := cx.WithCancel()
		cancel()
		return closing.Close(cx)
	}})

	// Failures of the system, on pipes and on the disk.
	other := open(t.path("other"))
	stdOther := create(t.path("other"))
	r2, w2, err := Pipe()
	require.NoError(t, err)
	stdR2, stdW2, err := os.Pipe()
	require.NoError(t, err)
	var readOnly, appends, dir *File
	name := t.path("read-only")
	require.NoError(t, os.WriteFile(name, nil, 0o600))
	require.NoError(t, runTask(tab.rt, func(cx *Context) (err error) {
		if readOnly, err = Open(cx, name); err == nil {
			dir, err = Open(cx, tab.dir)
		}
		if err == nil {
			appends, err = OpenFile(cx, name, os.O_WRONLY|os.O_APPEND, 0)
		}
		return err
	}))
	stdReadOnly, err := os.Open(name)
	require.NoError(t, err)
	stdAppends, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	stdDir, err := os.Open(tab.dir)
	require.NoError(t, err)
	t.Cleanup(func() {
		runTask(tab.rt, func(cx *Context) error {
			for _, f := range []*File{other, r2, w2, readOnly, appends, dir} {
				f.Close(cx)
			}
			return nil
		})
		for _, f := range []*os.File{stdOther, stdR2, stdW2, stdReadOnly, stdAppends, stdDir} {
			f.Close()
		}
	})
	twin := func(name, state string, own *File, std *os.File, typ, is error) {
		for _, op := range cat(common, writes, rest) {
			if op.name == name {
				tab.add(errorRow{op: "File." + name, state: state, typ: typ, is: is,
					run: func(cx *Context) error { return op.own(cx, own) }, std: func() error { return op.std(std) }})
			}
		}
	}
	twin("Read", "the end", other, stdOther, nil, io.EOF)
	twin("ReadAt", "the end", other, stdOther, nil, io.EOF)
	twin("Read", "a pipe's writing end", w2, stdW2, pathError, syscall.EBADF)
	twin("Write", "a pipe's reading end", r2, stdR2, pathError, syscall.EBADF)
	for _, name := range []string{"Seek", "ReadAt", "WriteAt"} {
		twin(name, "a pipe", r2, stdR2, pathError, syscall.ESPIPE)
	}
	for _, name := range []string{"Sync", "Datasync", "Truncate"} {
		twin(name, "a pipe", r2, stdR2, pathError, nil) // the number depends on the system
	}
	twin("ReadDir", "a pipe", r2, stdR2, pathError, syscall.ENOTDIR)
	twin("ReadDir", "a file", other, stdOther, pathError, syscall.ENOTDIR)
	twin("Read", "a directory", dir, stdDir, pathError, syscall.EISDIR)
	twin("WriteAt", "read-only", readOnly, stdReadOnly, pathError, syscall.EBADF)
	tab.add(
		errorRow{op: "File.Flush", state: "a write has failed", typ: pathError, is: syscall.EBADF, run: func(cx *Context) error {
			if _, err := readOnly.Write(cx, p); err != nil {
				return err
			}
			return readOnly.Flush(cx)
		}, std: func() error { return second(stdReadOnly.Write(p)) }},
		errorRow{op: "File.ReadAt", state: "a negative offset", typ: pathError,
			run: func(cx *Context) error { return second(other.ReadAt(cx, p, -1)) },
			std: func() error { return second(stdOther.ReadAt(p, -1)) }},
		errorRow{op: "File.WriteAt", state: "O_APPEND", typ: textError,
			run: func(cx *Context) error { return second(appends.WriteAt(cx, p, 0)) },
			std: func() error { return second(stdAppends.WriteAt(p, 0)) }},
		errorRow{op: "File.Write", state: "the reader has gone", typ: pathError, is: syscall.EPIPE,
			run: func(cx *Context) error { r2.Close(cx); return second(w2.Write(cx, p)) },
			std: func() error { stdR2.Close(); return second(stdW2.Write(p)) }},
		errorRow{op: "File.SetDeadline", state: "a file of the disk", is: os.ErrNoDeadline,
			run: func(*Context) error { return other.SetDeadline(past()) }, std: func() error { return stdOther.SetDeadline(past()) }},
		errorRow{op: "FromFile", state: "closed", typ: pathError, is: os.ErrClosed, run: func(*Context) error {
			f := create(filepath.Join(tab.dir, "from"))
			f.Close()
			return second(FromFile(f))
		}},
		errorRow{op: "FromFile", state: "nil", is: os.ErrInvalid, run: func(*Context) error { return second(FromFile(nil)) },
			std: func() error { return second((*os.File)(nil).Stat()) }},
		errorRow{op: "File.Stat", state: "the zero File", typ: pathError, is: os.ErrInvalid,
			run: func(cx *Context) error { return second(new(File).Stat(cx)) }},
	)
	rawPipe, rawW, err := Pipe()
	require.NoError(t, err)
	require.NoError(t, rawW.src.close())
	raw, err := rawPipe.SyscallConn()
	require.NoError(t, err)
	tab.add(
		errorRow{op: "File.SyscallConn", state: "Read of a pipe", is: errors.ErrUnsupported,
			run: func(*Context) error { return raw.Read(func(uintptr) bool { return true }) }},
		errorRow{op: "File.SyscallConn", state: "closed", typ: pathError, is: os.ErrClosed,
			run: func(cx *Context) error { rawPipe.Close(cx); return raw.Control(func(uintptr) {}) }},
	)
}

func (tab *errorTable) fileSystemRows() {
	dir := tab.dir
	missing := filepath.Join(dir, "missing", "file")
	plain := filepath.Join(dir, "plain")
	require.NoError(tab, os.WriteFile(plain, nil, 0o600))
	below := filepath.Join(plain, "below")
	files := fstest.MapFS{"a": &fstest.MapFile{Data: []byte("x")}}
	bad := errors.New("an error of the function")
	for _, f := range []struct {
		op  string
		at  string
		typ error
		is  error
		own func(cx *Context, name string) error
		std func(name string) error
	}{
		{"Open", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return second(Open(cx, s)) }, func(s string) error { return second(os.Open(s)) }},
		{"Create", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return second(Create(cx, s)) }, func(s string) error { return second(os.Create(s)) }},
		{"OpenFile", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return second(OpenFile(cx, s, os.O_RDWR, 0)) }, func(s string) error { return second(os.OpenFile(s, os.O_RDWR, 0)) }},
		{"OpenFile", plain, pathError, fs.ErrExist,
			func(cx *Context, s string) error {
				return second(OpenFile(cx, s, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600))
			},
			func(s string) error { return second(os.OpenFile(s, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)) }},
		{"CreateTemp", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return second(CreateTemp(cx, s, "x")) }, func(s string) error { return second(os.CreateTemp(s, "x")) }},
		{"CreateTemp", dir, pathError, nil, func(cx *Context, s string) error { return second(CreateTemp(cx, s, "a/b")) }, func(s string) error { return second(os.CreateTemp(s, "a/b")) }},
		{"ReadFile", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return second(ReadFile(cx, s)) }, func(s string) error { return second(os.ReadFile(s)) }},
		{"ReadFile", dir, pathError, syscall.EISDIR, func(cx *Context, s string) error { return second(ReadFile(cx, s)) }, func(s string) error { return second(os.ReadFile(s)) }},
		{"WriteFile", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return WriteFile(cx, s, nil, 0o600) }, func(s string) error { return os.WriteFile(s, nil, 0o600) }},
		{"ReadDir", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return second(ReadDir(cx, s)) }, func(s string) error { return second(os.ReadDir(s)) }},
		{"Mkdir", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return Mkdir(cx, s, 0o700) }, func(s string) error { return os.Mkdir(s, 0o700) }},
		{"MkdirAll", below, pathError, syscall.ENOTDIR, func(cx *Context, s string) error { return MkdirAll(cx, s, 0o700) }, func(s string) error { return os.MkdirAll(s, 0o700) }},
		{"MkdirTemp", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return second(MkdirTemp(cx, s, "x")) }, func(s string) error { return second(os.MkdirTemp(s, "x")) }},
		{"Remove", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return Remove(cx, s) }, os.Remove},
		{"RemoveAll", missing + "/.", pathError, syscall.EINVAL, func(cx *Context, s string) error { return RemoveAll(cx, s) }, os.RemoveAll},
		{"Rename", missing, linkError, fs.ErrNotExist, func(cx *Context, s string) error { return Rename(cx, s, s+"2") }, func(s string) error { return os.Rename(s, s+"2") }},
		{"Link", missing, linkError, fs.ErrNotExist, func(cx *Context, s string) error { return Link(cx, s, s+"2") }, func(s string) error { return os.Link(s, s+"2") }},
		{"Symlink", missing, linkError, fs.ErrNotExist, func(cx *Context, s string) error { return Symlink(cx, "x", s) }, func(s string) error { return os.Symlink("x", s) }},
		{"Readlink", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return second(Readlink(cx, s)) }, func(s string) error { return second(os.Readlink(s)) }},
		{"Readlink", plain, pathError, syscall.EINVAL, func(cx *Context, s string) error { return second(Readlink(cx, s)) }, func(s string) error { return second(os.Readlink(s)) }},
		{"Stat", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return second(Stat(cx, s)) }, func(s string) error { return second(os.Stat(s)) }},
		{"Lstat", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return second(Lstat(cx, s)) }, func(s string) error { return second(os.Lstat(s)) }},
		{"Chmod", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return Chmod(cx, s, 0) }, func(s string) error { return os.Chmod(s, 0) }},
		{"Chown", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return Chown(cx, s, -1, -1) }, func(s string) error { return os.Chown(s, -1, -1) }},
		{"Lchown", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return Lchown(cx, s, -1, -1) }, func(s string) error { return os.Lchown(s, -1, -1) }},
		{"Chtimes", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return Chtimes(cx, s, time.Now(), time.Time{}) }, func(s string) error { return os.Chtimes(s, time.Now(), time.Time{}) }},
		{"Truncate", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return Truncate(cx, s, 0) }, func(s string) error { return os.Truncate(s, 0) }},
		{"CopyFS", below, pathError, syscall.ENOTDIR, func(cx *Context, s string) error { return CopyFS(cx, s, files) }, func(s string) error { return os.CopyFS(s, files) }},
		{"EvalSymlinks", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return second(EvalSymlinks(cx, s)) }, func(s string) error { return second(filepath.EvalSymlinks(s)) }},
		{"EvalSymlinks", below, nil, syscall.ENOTDIR, func(cx *Context, s string) error { return second(EvalSymlinks(cx, s)) }, func(s string) error { return second(filepath.EvalSymlinks(s)) }},
		{"CopyFile", missing, pathError, fs.ErrNotExist, func(cx *Context, s string) error { return second(CopyFile(cx, plain+"2", s)) }, nil},
		{"CopyFile", plain, linkError, fs.ErrExist, func(cx *Context, s string) error { return second(CopyFile(cx, s, s)) }, nil},
		{"CopyFile", dir, pathError, syscall.EISDIR, func(cx *Context, s string) error { return second(CopyFile(cx, plain, s)) }, nil},
		{"WalkDir", missing, pathError, fs.ErrNotExist,
			func(cx *Context, s string) error {
				return WalkDir(cx, s, func(_ string, _ fs.DirEntry, err error) error { return err })
			},
			func(s string) error {
				return filepath.WalkDir(s, func(_ string, _ fs.DirEntry, err error) error { return err })
			}},
		{"WalkDir", dir, nil, bad,
			func(cx *Context, s string) error {
				return WalkDir(cx, s, func(_ string, _ fs.DirEntry, err error) error {
					if err == nil {
						err = bad
					}
					return err
				})
			}, nil},
	} {
		row := errorRow{op: f.op, state: strings.TrimPrefix(f.at, dir), typ: f.typ, is: f.is,
			run: func(cx *Context) error { return f.own(cx, f.at) }}
		if f.std != nil {
			row.std = func() error { return f.std(f.at) }
		}
		tab.add(row)
		tab.cancelled(f.op, row.run, nil)
	}
	fifo := filepath.Join(dir, "fifo")
	require.NoError(tab, unix.Mkfifo(fifo, 0o600))
	for op, run := range map[string]func(cx *Context) error{
		"OpenFile":  func(cx *Context) error { return second(OpenFile(cx, fifo, os.O_WRONLY, 0)) },
		"ReadFile":  func(cx *Context) error { return second(ReadFile(cx, fifo)) },
		"WriteFile": func(cx *Context) error { return WriteFile(cx, fifo, nil, 0) },
		"CopyFile":  func(cx *Context) error { return second(CopyFile(cx, plain, fifo)) },
	} {
		tab.add(errorRow{op: op, state: "a FIFO that waits", is: context.DeadlineExceeded, run: func(cx *Context) error {
			cx, cancel := cx.WithTimeout(time.Millisecond)
			defer cancel()
			return run(cx)
		}})
	}
}

// Methods that connections of package net share with the results of BindConn.
type (
	stdConnMethods interface {
		net.Conn
		syscall.Conn
		SetReadBuffer(bytes int) error
		SetWriteBuffer(bytes int) error
		File() (*os.File, error)
	}
	stdTCPMethods interface {
		stdConnMethods
		io.ReaderFrom
		io.WriterTo
		CloseRead() error
		CloseWrite() error
		SetNoDelay(on bool) error
		SetKeepAlive(on bool) error
		SetKeepAlivePeriod(d time.Duration) error
		SetKeepAliveConfig(config net.KeepAliveConfig) error
		SetLinger(sec int) error
		MultipathTCP() (bool, error)
	}
	stdUDPMethods interface {
		stdConnMethods
		net.PacketConn
		ReadFromUDP(p []byte) (int, *net.UDPAddr, error)
		ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error)
		ReadMsgUDP(p, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
		ReadMsgUDPAddrPort(p, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error)
		WriteToUDP(p []byte, addr *net.UDPAddr) (int, error)
		WriteToUDPAddrPort(p []byte, addr netip.AddrPort) (int, error)
		WriteMsgUDP(p, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
		WriteMsgUDPAddrPort(p, oob []byte, addr netip.AddrPort) (n, oobn int, err error)
	}
	stdUnixMethods interface {
		stdConnMethods
		CloseRead() error
		CloseWrite() error
		ReadFrom(p []byte) (int, net.Addr, error)
		ReadFromUnix(p []byte) (int, *net.UnixAddr, error)
		ReadMsgUnix(p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
		WriteMsgUnix(p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
	}
)

func fourth[A, B, C, D any](_ A, _ B, _ C, _ D, err error) error { return err }

func third[A, B any](_ A, _ B, err error) error { return err }

// connOps are the operations that all connections have. bind returns the result of BindConn.
func connOps[Own interface {
	PollConn
	SyscallConn() (syscall.RawConn, error)
	File() (*os.File, error)
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
	Peek(cx *Context, p []byte) (int, error)
}, Std stdConnMethods]() []errorOp[Own, Std] {
	p := make([]byte, 8)
	return []errorOp[Own, Std]{
		{"Read", atCancel, func(cx *Context, c Own) error { return second(c.Read(cx, p)) }, func(c Std) error { return second(c.Read(p)) }, nil},
		{"Write", atCancel, func(cx *Context, c Own) error { return second(c.Write(cx, p)) }, func(c Std) error { return second(c.Write(p)) }, nil},
		{"Peek", atCancel, func(cx *Context, c Own) error { return second(c.Peek(cx, p)) }, nil, nil},
		{"PollRead", atDeadline, func(cx *Context, c Own) error { return second(c.PollRead(cx, p)) }, nil, nil},
		{"PollWrite", atDeadline, func(cx *Context, c Own) error { return second(c.PollWrite(cx, p)) }, nil, nil},
		{"Close", atClose, func(_ *Context, c Own) error { return c.Close() }, func(c Std) error { return c.Close() }, nil},
		{"SetDeadline", atClose, func(_ *Context, c Own) error { return c.SetDeadline(time.Time{}) }, func(c Std) error { return c.SetDeadline(time.Time{}) }, nil},
		{"SetReadDeadline", atClose, func(_ *Context, c Own) error { return c.SetReadDeadline(time.Time{}) }, func(c Std) error { return c.SetReadDeadline(time.Time{}) }, nil},
		{"SetWriteDeadline", atClose, func(_ *Context, c Own) error { return c.SetWriteDeadline(time.Time{}) }, func(c Std) error { return c.SetWriteDeadline(time.Time{}) }, nil},
		{"SetReadBuffer", atClose, func(_ *Context, c Own) error { return c.SetReadBuffer(1) }, func(c Std) error { return c.SetReadBuffer(1) }, nil},
		{"SetWriteBuffer", atClose, func(_ *Context, c Own) error { return c.SetWriteBuffer(1) }, func(c Std) error { return c.SetWriteBuffer(1) }, nil},
		{"SyscallConn", atClose, func(_ *Context, c Own) error { return second(c.SyscallConn()) }, nil, nil},
		{"File", atClose, func(_ *Context, c Own) error { return second(c.File()) }, func(c Std) error { return second(c.File()) }, nil},
		{"BindConn, Read", atCancel, func(cx *Context, c Own) error { return second(BindConn(cx, c).Read(p)) }, func(c Std) error { return second(c.Read(p)) }, nil},
		{"BindConn, Write", atCancel, func(cx *Context, c Own) error { return second(BindConn(cx, c).Write(p)) }, func(c Std) error { return second(c.Write(p)) }, nil},
		{"BindConn, Close", atClose, func(cx *Context, c Own) error { return BindConn(cx, c).Close() }, func(c Std) error { return c.Close() }, nil},
		{"BindConn, SetDeadline", atClose, func(cx *Context, c Own) error { return BindConn(cx, c).SetDeadline(time.Time{}) }, func(c Std) error { return c.SetDeadline(time.Time{}) }, nil},
	}
}

// streamOps are the operations of streams that connOps does not have.
func streamOps[Own interface {
	PollReadable(cx *Context) error
	Readable(cx *Context) error
	ReadBuffers(cx *Context, bufs net.Buffers) (int64, error)
	WriteBuffers(cx *Context, bufs *net.Buffers) (int64, error)
	CloseRead() error
	CloseWrite() error
}, Std interface {
	CloseRead() error
	CloseWrite() error
}]() []errorOp[Own, Std] {
	return []errorOp[Own, Std]{
		{"PollReadable", atDeadline, func(cx *Context, c Own) error { return c.PollReadable(cx) }, nil, nil},
		{"Readable", atCancel, func(cx *Context, c Own) error { return c.Readable(cx) }, nil, nil},
		{"ReadBuffers", atCancel, func(cx *Context, c Own) error { return second(c.ReadBuffers(cx, net.Buffers{make([]byte, 8)})) }, nil, nil},
		{"WriteBuffers", atCancel, func(cx *Context, c Own) error { return second(c.WriteBuffers(cx, &net.Buffers{make([]byte, 8)})) }, nil, nil},
		{"CloseRead", atClose, func(_ *Context, c Own) error { return c.CloseRead() }, func(c Std) error { return c.CloseRead() }, nil},
		{"CloseWrite", atClose, func(_ *Context, c Own) error { return c.CloseWrite() }, func(c Std) error { return c.CloseWrite() }, nil},
	}
}

// deadlined is a value whose deadline can be set.
type deadlined interface {
	Close() error
	SetDeadline(t time.Time) error
}

func valueOf[V deadlined](v V) errorValue[V] {
	return errorValue[V]{v, func(*Context) { v.Close() }, func() error { return v.SetDeadline(time.Now().Add(-time.Second)) }}
}

func (tab *errorTable) connRows() {
	p, oob := make([]byte, 8), make([]byte, 8)
	must := func(err error) { require.NoError(tab, err) }

	// TCP.
	tcp := func(name string, when errorWhen, do func(c stdTCPMethods) error) errorOp[*TCPConn, *net.TCPConn] {
		return errorOp[*TCPConn, *net.TCPConn]{"BindConn, " + name, when,
			func(cx *Context, c *TCPConn) error { return do(BindConn(cx, c).(stdTCPMethods)) }, func(c *net.TCPConn) error { return do(c) }, nil}
	}
	own, _ := tcpPair(tab, tab.rt)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	dialled, err := net.Dial("tcp", ln.Addr().String())
	must(err)
	std := dialled.(*net.TCPConn)
	must(ln.Close())
	type tcpOp = errorOp[*TCPConn, *net.TCPConn]
	ops := append(connOps[*TCPConn, *net.TCPConn](), streamOps[*TCPConn, *net.TCPConn]()...)
	ops = append(ops,
		tcpOp{"SetNoDelay", atClose, func(_ *Context, c *TCPConn) error { return c.SetNoDelay(true) }, func(c *net.TCPConn) error { return c.SetNoDelay(true) }, nil},
		tcpOp{"SetKeepAlive", atClose, func(_ *Context, c *TCPConn) error { return c.SetKeepAlive(true) }, func(c *net.TCPConn) error { return c.SetKeepAlive(true) }, nil},
		tcpOp{"SetKeepAlivePeriod", atClose, func(_ *Context, c *TCPConn) error { return c.SetKeepAlivePeriod(1) }, func(c *net.TCPConn) error { return c.SetKeepAlivePeriod(1) }, nil},
		tcpOp{"SetKeepAliveConfig", atClose, func(_ *Context, c *TCPConn) error { return c.SetKeepAliveConfig(net.KeepAliveConfig{}) },
			func(c *net.TCPConn) error { return c.SetKeepAliveConfig(net.KeepAliveConfig{}) }, nil},
		tcpOp{"MultipathTCP", atClose, func(_ *Context, c *TCPConn) error { return second(c.MultipathTCP()) }, nil, nil}, // package net returns an error of its own
		tcpOp{"SetLinger", atClose, func(_ *Context, c *TCPConn) error { return c.SetLinger(0) }, func(c *net.TCPConn) error { return c.SetLinger(0) }, nil},
		tcpOp{"SetTTL", atClose, func(_ *Context, c *TCPConn) error { return c.SetTTL(1) }, nil, nil},
		tcpOp{"TTL", atClose, func(_ *Context, c *TCPConn) error { return second(c.TTL()) }, nil, nil},
		tcp("ReadFrom", atCancel, func(c stdTCPMethods) error { return second(c.ReadFrom(strings.NewReader("x"))) }),
		tcp("WriteTo", atCancel, func(c stdTCPMethods) error { return second(c.WriteTo(io.Discard)) }),
		tcp("CloseRead", atClose, func(c stdTCPMethods) error { return c.CloseRead() }),
		tcp("SetNoDelay", atClose, func(c stdTCPMethods) error { return c.SetNoDelay(true) }),
	)
	rawOps(tab, own)
	tab.ends("TCPConn")
	addOps(tab, "TCPConn", valueOf(own), valueOf(std), opError, opError, net.ErrClosed, ops)

	// UDP.
	udp := func(name string, when errorWhen, do func(c stdUDPMethods) error) errorOp[*UDPConn, *net.UDPConn] {
		return errorOp[*UDPConn, *net.UDPConn]{"BindConn, " + name, when,
			func(cx *Context, c *UDPConn) error { return do(BindConn(cx, c).(stdUDPMethods)) }, func(c *net.UDPConn) error { return do(c) }, nil}
	}
	local := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	ownUDP, err := ListenUDP("udp", local)
	must(err)
	stdUDP, err := net.ListenUDP("udp", local)
	must(err)
	to, port := ownUDP.LocalAddr().(*net.UDPAddr), ownUDP.LocalAddr().(*net.UDPAddr).AddrPort()
	batch := func() []Message { return []Message{{Buffers: [][]byte{p}, Addr: to}} }
	type udpOp = errorOp[*UDPConn, *net.UDPConn]
	set := func(name string, do func(c *UDPConn) error) udpOp {
		return udpOp{name, atClose, func(_ *Context, c *UDPConn) error { return do(c) }, nil, nil}
	}
	wait := func(name string, do func(cx *Context, c *UDPConn) error) udpOp {
		return udpOp{name, atCancel, do, nil, nil}
	}
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 250)}
	rawOps(tab, ownUDP)
	tab.add(
		errorRow{op: "UDPConn.Write", state: "no peer", typ: opError, is: syscall.EDESTADDRREQ,
			run: func(cx *Context) error { return second(ownUDP.Write(cx, p)) }, std: func() error { return second(stdUDP.Write(p)) }},
		errorRow{op: "UDPConn.WriteTo", state: "another type of address", typ: opError, is: syscall.EINVAL,
			run: func(cx *Context) error { return second(ownUDP.WriteTo(cx, p, &net.TCPAddr{})) },
			std: func() error { return second(stdUDP.WriteTo(p, &net.TCPAddr{})) }},
		errorRow{op: "UDPConn.WriteToUDPAddrPort", state: "no address", typ: opError,
			run: func(cx *Context) error { return second(ownUDP.WriteToUDPAddrPort(cx, p, netip.AddrPort{})) },
			std: func() error { return second(stdUDP.WriteToUDPAddrPort(p, netip.AddrPort{})) }},
		errorRow{op: "UDPConn.WriteMsgUDP", state: "no address", typ: opError,
			run: func(cx *Context) error { return third(ownUDP.WriteMsgUDP(cx, p, nil, nil)) },
			std: func() error { return third(stdUDP.WriteMsgUDP(p, nil, nil)) }},
		errorRow{op: "UDPConn.JoinGroup", state: "no group", typ: opError, is: syscall.EINVAL,
			run: func(*Context) error { return ownUDP.JoinGroup(nil, local) }},
	)
	addOps(tab, "UDPConn", valueOf(ownUDP), valueOf(stdUDP), opError, opError, net.ErrClosed, append(connOps[*UDPConn, *net.UDPConn](),
		wait("ReadFrom", func(cx *Context, c *UDPConn) error { return third(c.ReadFrom(cx, p)) }),
		wait("ReadFromUDP", func(cx *Context, c *UDPConn) error { return third(c.ReadFromUDP(cx, p)) }),
		wait("ReadFromUDPAddrPort", func(cx *Context, c *UDPConn) error { return third(c.ReadFromUDPAddrPort(cx, p)) }),
		wait("PeekFrom", func(cx *Context, c *UDPConn) error { return third(c.PeekFrom(cx, p)) }),
		wait("ReadMsgUDP", func(cx *Context, c *UDPConn) error { return fourth(c.ReadMsgUDP(cx, p, oob)) }),
		wait("ReadMsgUDPAddrPort", func(cx *Context, c *UDPConn) error { return fourth(c.ReadMsgUDPAddrPort(cx, p, oob)) }),
		wait("ReadBatch", func(cx *Context, c *UDPConn) error { return second(c.ReadBatch(cx, batch(), 0)) }),
		wait("WriteTo", func(cx *Context, c *UDPConn) error { return second(c.WriteTo(cx, p, to)) }),
		wait("WriteToUDP", func(cx *Context, c *UDPConn) error { return second(c.WriteToUDP(cx, p, to)) }),
		wait("WriteToUDPAddrPort", func(cx *Context, c *UDPConn) error { return second(c.WriteToUDPAddrPort(cx, p, port)) }),
		wait("WriteMsgUDP", func(cx *Context, c *UDPConn) error { return third(c.WriteMsgUDP(cx, p, nil, to)) }),
		wait("WriteMsgUDPAddrPort", func(cx *Context, c *UDPConn) error { return third(c.WriteMsgUDPAddrPort(cx, p, nil, port)) }),
		wait("WriteBatch", func(cx *Context, c *UDPConn) error { return second(c.WriteBatch(cx, batch(), 0)) }),
		set("SetBroadcast", func(c *UDPConn) error { return c.SetBroadcast(true) }),
		set("Broadcast", func(c *UDPConn) error { return second(c.Broadcast()) }),
		set("SetTTL", func(c *UDPConn) error { return c.SetTTL(1) }),
		set("TTL", func(c *UDPConn) error { return second(c.TTL()) }),
		set("SetMulticastTTL", func(c *UDPConn) error { return c.SetMulticastTTL(1) }),
		set("MulticastTTL", func(c *UDPConn) error { return second(c.MulticastTTL()) }),
		set("SetMulticastLoopback", func(c *UDPConn) error { return c.SetMulticastLoopback(true) }),
		set("MulticastLoopback", func(c *UDPConn) error { return second(c.MulticastLoopback()) }),
		set("JoinGroup", func(c *UDPConn) error { return c.JoinGroup(nil, group) }),
		set("LeaveGroup", func(c *UDPConn) error { return c.LeaveGroup(nil, group) }),
		udp("ReadFrom", atCancel, func(c stdUDPMethods) error { return third(c.ReadFrom(p)) }),
		udp("ReadFromUDP", atCancel, func(c stdUDPMethods) error { return third(c.ReadFromUDP(p)) }),
		udp("ReadFromUDPAddrPort", atCancel, func(c stdUDPMethods) error { return third(c.ReadFromUDPAddrPort(p)) }),
		udp("ReadMsgUDP", atCancel, func(c stdUDPMethods) error { return fourth(c.ReadMsgUDP(p, oob)) }),
		udp("ReadMsgUDPAddrPort", atCancel, func(c stdUDPMethods) error { return fourth(c.ReadMsgUDPAddrPort(p, oob)) }),
		udp("WriteTo", atCancel, func(c stdUDPMethods) error { return second(c.WriteTo(p, to)) }),
		udp("WriteToUDP", atCancel, func(c stdUDPMethods) error { return second(c.WriteToUDP(p, to)) }),
		udp("WriteToUDPAddrPort", atCancel, func(c stdUDPMethods) error { return second(c.WriteToUDPAddrPort(p, port)) }),
		udp("WriteMsgUDP", atCancel, func(c stdUDPMethods) error { return third(c.WriteMsgUDP(p, nil, to)) }),
		udp("WriteMsgUDPAddrPort", atCancel, func(c stdUDPMethods) error { return third(c.WriteMsgUDPAddrPort(p, nil, port)) }),
	))

	// Unix-domain streams.
	a, b, err := SocketPair()
	must(err)
	tab.Cleanup(func() { b.Close() })
	at := &net.UnixAddr{Name: tab.path("s"), Net: "unix"}
	unixLn, err := net.ListenUnix("unix", at)
	must(err)
	stdUnix, err := net.DialUnix("unix", nil, at)
	must(err)
	tab.Cleanup(func() { unixLn.Close() })
	closedFile, err := os.Open(tab.dir)
	must(err)
	must(closedFile.Close())
	type unixOp = errorOp[*UnixConn, *net.UnixConn]
	boundUnix := func(name string, do func(c stdUnixMethods) error) unixOp {
		return unixOp{"BindConn, " + name, atCancel, func(cx *Context, c *UnixConn) error { return do(BindConn(cx, c).(stdUnixMethods)) }, func(c *net.UnixConn) error { return do(c) }, nil}
	}
	rawOps(tab, a)
	tab.ends("UnixConn")
	tab.add(
		errorRow{op: "UnixConn.SendFiles", state: "a file that is closed", typ: opError, is: os.ErrClosed,
			run: func(cx *Context) error { return second(a.SendFiles(cx, p, closedFile)) }},
		errorRow{op: "UnixConn.SendFiles", state: "no data", typ: opError, is: syscall.EINVAL,
			run: func(cx *Context) error { return second(a.SendFiles(cx, nil)) }},
		errorRow{op: "UnixConn.ReceiveFiles", state: "too many files", typ: opError, is: syscall.EMSGSIZE, run: func(cx *Context) error {
			if _, err := b.SendFiles(cx, p, os.Stdin); err != nil {
				return err
			}
			return third(a.ReceiveFiles(cx, p, 0))
		}},
		errorRow{op: "UnixConn.WriteMsgUnix", state: "an address of another network", typ: opError, is: syscall.EAFNOSUPPORT,
			run: func(cx *Context) error { return third(a.WriteMsgUnix(cx, p, nil, &net.UnixAddr{Net: "unixgram"})) }},
	)
	addOps(tab, "UnixConn", valueOf(a), valueOf(stdUnix), opError, opError, net.ErrClosed,
		append(append(connOps[*UnixConn, *net.UnixConn](), streamOps[*UnixConn, *net.UnixConn]()...),
			unixOp{"ReadMsgUnix", atCancel, func(cx *Context, c *UnixConn) error { return fourth(c.ReadMsgUnix(cx, p, oob)) }, nil, nil},
			unixOp{"WriteMsgUnix", atCancel, func(cx *Context, c *UnixConn) error { return third(c.WriteMsgUnix(cx, p, nil, nil)) }, nil, nil},
			unixOp{"SendFiles", atCancel, func(cx *Context, c *UnixConn) error { return second(c.SendFiles(cx, p)) }, nil, nil},
			unixOp{"ReceiveFiles", atCancel, func(cx *Context, c *UnixConn) error { return third(c.ReceiveFiles(cx, p, 1)) }, nil, nil},
			unixOp{"PeerCred", atClose, func(_ *Context, c *UnixConn) error { return second(c.PeerCred()) }, nil, nil},
			boundUnix("ReadFrom", func(c stdUnixMethods) error { return third(c.ReadFrom(p)) }),
			boundUnix("ReadFromUnix", func(c stdUnixMethods) error { return third(c.ReadFromUnix(p)) }),
			boundUnix("ReadMsgUnix", func(c stdUnixMethods) error { return fourth(c.ReadMsgUnix(p, oob)) }),
			boundUnix("WriteMsgUnix", func(c stdUnixMethods) error { return third(c.WriteMsgUnix(p, nil, nil)) }),
		))

	// Unix-domain datagrams.
	at = &net.UnixAddr{Name: tab.path("g"), Net: "unixgram"}
	gram, err := ListenUnixgram("unixgram", at)
	must(err)
	stdAt := &net.UnixAddr{Name: tab.path("h"), Net: "unixgram"}
	stdGram, err := net.ListenUnixgram("unixgram", stdAt)
	must(err)
	type gramOp = errorOp[*UnixDatagram, *net.UnixConn]
	rawOps(tab, gram)
	tab.add(
		errorRow{op: "UnixDatagram.WriteTo", state: "no receiver", typ: opError, is: syscall.ENOENT,
			run: func(cx *Context) error {
				return second(gram.WriteTo(cx, p, &net.UnixAddr{Name: "none", Net: "unixgram"}))
			},
			std: func() error { return second(stdGram.WriteTo(p, &net.UnixAddr{Name: "none", Net: "unixgram"})) }},
		errorRow{op: "UnixDatagram.WriteTo", state: "another type of address", typ: opError, is: syscall.EINVAL,
			run: func(cx *Context) error { return second(gram.WriteTo(cx, p, &net.TCPAddr{})) },
			std: func() error { return second(stdGram.WriteTo(p, &net.TCPAddr{})) }},
		errorRow{op: "UnixDatagram.SendFiles", state: "a file that is closed", typ: opError, is: os.ErrClosed,
			run: func(cx *Context) error { return second(gram.SendFiles(cx, p, closedFile)) }},
	)
	addOps(tab, "UnixDatagram", valueOf(gram), valueOf(stdGram), opError, opError, net.ErrClosed, append(connOps[*UnixDatagram, *net.UnixConn](),
		gramOp{"ReadFrom", atCancel, func(cx *Context, c *UnixDatagram) error { return third(c.ReadFrom(cx, p)) }, func(c *net.UnixConn) error { return third(c.ReadFrom(p)) }, nil},
		gramOp{"ReadFromUnix", atCancel, func(cx *Context, c *UnixDatagram) error { return third(c.ReadFromUnix(cx, p)) }, func(c *net.UnixConn) error { return third(c.ReadFromUnix(p)) }, nil},
		gramOp{"WriteTo", atCancel, func(cx *Context, c *UnixDatagram) error { return second(c.WriteTo(cx, p, at)) }, func(c *net.UnixConn) error { return second(c.WriteTo(p, at)) }, nil},
		gramOp{"WriteToUnix", atCancel, func(cx *Context, c *UnixDatagram) error { return second(c.WriteToUnix(cx, p, at)) }, func(c *net.UnixConn) error { return second(c.WriteToUnix(p, at)) }, nil},
		gramOp{"ReadMsgUnix", atCancel, func(cx *Context, c *UnixDatagram) error { return fourth(c.ReadMsgUnix(cx, p, oob)) }, func(c *net.UnixConn) error { return fourth(c.ReadMsgUnix(p, oob)) }, nil},
		gramOp{"WriteMsgUnix", atCancel, func(cx *Context, c *UnixDatagram) error { return third(c.WriteMsgUnix(cx, p, nil, at)) },
			func(c *net.UnixConn) error { return third(c.WriteMsgUnix(p, nil, at)) }, nil},
		gramOp{"SendFiles", atCancel, func(cx *Context, c *UnixDatagram) error { return second(c.SendFiles(cx, p)) }, nil, nil},
		gramOp{"ReceiveFiles", atCancel, func(cx *Context, c *UnixDatagram) error { return third(c.ReceiveFiles(cx, p, 1)) }, nil, nil},
		gramOp{"CloseRead", atClose, func(_ *Context, c *UnixDatagram) error { return c.CloseRead() }, func(c *net.UnixConn) error { return c.CloseRead() }, nil},
		gramOp{"CloseWrite", atClose, func(_ *Context, c *UnixDatagram) error { return c.CloseWrite() }, func(c *net.UnixConn) error { return c.CloseWrite() }, nil},
	))
}

// rawOps adds rows for the SyscallConn of a connection. The rows that close c must be added later.
func rawOps(tab *errorTable, c interface {
	Conn
	SyscallConn() (syscall.RawConn, error)
}) {
	of := strings.TrimPrefix(fmt.Sprintf("%T", c), "*async.")
	raw, err := c.SyscallConn()
	require.NoError(tab, err)
	bound := func(cx *Context) (syscall.RawConn, error) {
		return BindConn(cx, c).(syscall.Conn).SyscallConn()
	}
	never := func(uintptr) bool { return false }
	tab.add(errorRow{op: of + ".SyscallConn", state: "Read would wait", typ: opError, is: errors.ErrUnsupported,
		run: func(*Context) error { return raw.Read(never) }})
	tab.cancelled("BindConn, SyscallConn", func(cx *Context) error {
		raw, err := bound(cx)
		if err != nil {
			return err
		}
		return raw.Read(never)
	}, opError)
}

// ends adds rows for the end of a stream.
func (tab *errorTable) ends(of string) {
	var a, b interface {
		PollConn
		CloseWrite() error
		Peek(cx *Context, p []byte) (int, error)
		ReadBuffers(cx *Context, bufs net.Buffers) (int64, error)
	}
	if of == "TCPConn" {
		a, b = tcpPair(tab, tab.rt)
	} else {
		c, d, err := SocketPair()
		require.NoError(tab, err)
		a, b = c, d
		tab.Cleanup(func() { c.Close(); d.Close() })
	}
	require.NoError(tab, b.CloseWrite())
	p := make([]byte, 8)
	ends := map[string]func(cx *Context) error{
		"Read":        func(cx *Context) error { return second(a.Read(cx, p)) },
		"Peek":        func(cx *Context) error { return second(a.Peek(cx, p)) },
		"ReadBuffers": func(cx *Context) error { return second(a.ReadBuffers(cx, net.Buffers{p})) },
	}
	if u, ok := a.(*UnixConn); ok {
		ends["ReadMsgUnix"] = func(cx *Context) error { return fourth(u.ReadMsgUnix(cx, p, nil)) }
		ends["ReceiveFiles"] = func(cx *Context) error { return third(u.ReceiveFiles(cx, p, 1)) }
		tab.add(errorRow{op: "BindConn, ReadMsgUnix", state: "the end", typ: opError, is: io.EOF, // as with package net
			run: func(cx *Context) error { return fourth(BindConn(cx, u).(stdUnixMethods).ReadMsgUnix(p, nil)) }})
	}
	for op, run := range ends {
		tab.add(errorRow{op: of + "." + op, state: "the end", is: io.EOF, run: run})
	}
	tab.add(errorRow{op: of + ".Write", state: "CloseWrite", typ: opError, is: syscall.EPIPE, run: func(cx *Context) error { return second(b.Write(cx, p)) }})
}

// refusing returns an address of TCP at which no socket listens, and which no other program can
// get.
func (tab *errorTable) refusing() *net.TCPAddr {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	require.NoError(tab, err)
	tab.Cleanup(func() { unix.Close(fd) })
	require.NoError(tab, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	at, err := unix.Getsockname(fd)
	require.NoError(tab, err)
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: at.(*unix.SockaddrInet4).Port}
}

// errNoServer is the error of a look-up that may not use the network.
var errNoServer = errors.New("this test has no name server")

func noServer(context.Context, string, string) (net.Conn, error) { return nil, errNoServer }

func (tab *errorTable) dialRows() {
	to := tab.refusing()
	address := to.String()
	nowhere := &net.UnixAddr{Name: filepath.Join(tab.dir, "none"), Net: "unix"}
	nowhereGram := &net.UnixAddr{Name: nowhere.Name, Net: "unixgram"}
	resolver := &Resolver{PreferGo: true, Dial: noServer}
	stdResolver := &net.Resolver{PreferGo: true, Dial: noServer}
	await := func(cx *Context, f Future[Conn]) error { return second(Await(cx, f)) }
	bad := errors.New("an error of Control")
	control := func(string, string, syscall.RawConn) error { return bad }
	dial := func(d Dialer, address string) func(cx *Context) error {
		return func(cx *Context) error { return second(d.Dial(cx, "tcp", address)) }
	}
	stdDial := func(d net.Dialer, address string) func() error {
		return func() error { return second(d.Dial("tcp", address)) }
	}
	past := time.Now().Add(-time.Second)
	tab.add(
		errorRow{op: "Dial", state: "refused", typ: opError, is: syscall.ECONNREFUSED, run: func(cx *Context) error { return second(Dial(cx, "tcp", address)) },
			std: func() error { return second(net.Dial("tcp", address)) }},
		errorRow{op: "Dial", state: "an unknown network", typ: opError, is: net.UnknownNetworkError("x"), run: func(cx *Context) error { return second(Dial(cx, "x", address)) },
			std: func() error { return second(net.Dial("x", address)) }},
		errorRow{op: "Dial", state: "a bad address", typ: opError, run: func(cx *Context) error { return second(Dial(cx, "tcp", "x")) },
			std: func() error { return second(net.Dial("tcp", "x")) }},
		errorRow{op: "DialFuture", state: "refused", typ: opError, is: syscall.ECONNREFUSED, run: func(cx *Context) error { return await(cx, DialFuture("tcp", address)) }},
		errorRow{op: "DialTCP", state: "refused", typ: opError, is: syscall.ECONNREFUSED, run: func(cx *Context) error { return second(DialTCP(cx, "tcp", nil, to)) },
			std: func() error { return second(net.DialTCP("tcp", nil, to)) }},
		errorRow{op: "DialTCP", state: "no address", typ: opError, run: func(cx *Context) error { return second(DialTCP(cx, "tcp", nil, nil)) },
			std: func() error { return second(net.DialTCP("tcp", nil, nil)) }},
		errorRow{op: "DialUDP", state: "an unknown network", typ: opError, is: net.UnknownNetworkError("tcp"), run: func(*Context) error { return second(DialUDP("tcp", nil, &net.UDPAddr{})) },
			std: func() error { return second(net.DialUDP("tcp", nil, &net.UDPAddr{})) }},
		errorRow{op: "DialUDP", state: "no address", typ: opError, run: func(*Context) error { return second(DialUDP("udp", nil, nil)) },
			std: func() error { return second(net.DialUDP("udp", nil, nil)) }},
		errorRow{op: "DialUnix", state: "no socket", typ: opError, is: fs.ErrNotExist, run: func(cx *Context) error { return second(DialUnix(cx, "unix", nil, nowhere)) },
			std: func() error { return second(net.DialUnix("unix", nil, nowhere)) }},
		errorRow{op: "DialUnix", state: "no address", typ: opError, run: func(cx *Context) error { return second(DialUnix(cx, "unix", nil, nil)) },
			std: func() error { return second(net.DialUnix("unix", nil, nil)) }},
		errorRow{op: "DialUnixgram", state: "no socket", typ: opError, is: fs.ErrNotExist, run: func(*Context) error { return second(DialUnixgram("unixgram", nil, nowhereGram)) },
			std: func() error { return second(net.DialUnix("unixgram", nil, nowhereGram)) }},
		errorRow{op: "Dialer.Dial", state: "refused", typ: opError, is: syscall.ECONNREFUSED, run: dial(Dialer{}, address), std: stdDial(net.Dialer{}, address)},
		errorRow{op: "Dialer.Dial", state: "the Timeout has passed", typ: opError, is: context.DeadlineExceeded,
			run: dial(Dialer{Timeout: 1}, address), std: stdDial(net.Dialer{Timeout: 1}, address), stdIs: errAny}, // or os.ErrDeadlineExceeded
		errorRow{op: "Dialer.Dial", state: "the Deadline has passed", typ: opError, is: context.DeadlineExceeded,
			run: dial(Dialer{Deadline: past}, address), std: stdDial(net.Dialer{Deadline: past}, address), stdIs: errAny},
		errorRow{op: "Dialer.Dial", state: "Control", typ: opError, is: bad, run: dial(Dialer{Control: control}, address), std: stdDial(net.Dialer{Control: control}, address)},
		errorRow{op: "Dialer.Dial", state: "no such host", typ: opError, run: dial(Dialer{Resolver: resolver}, "host.test.:80"), std: stdDial(net.Dialer{Resolver: stdResolver}, "host.test.:80")},
		errorRow{op: "Dialer.Dial", state: "no such host, what is wrapped", typ: dnsError,
			run: func(cx *Context) error { return errors.Unwrap(dial(Dialer{Resolver: resolver}, "host.test.:80")(cx)) },
			std: func() error { return errors.Unwrap(stdDial(net.Dialer{Resolver: stdResolver}, "host.test.:80")()) }},
		errorRow{op: "Dialer.DialFuture", state: "refused", typ: opError, is: syscall.ECONNREFUSED,
			run: func(cx *Context) error { return await(cx, new(Dialer).DialFuture("tcp", address)) }},
	)
	for op, run := range map[string]func(cx *Context) error{
		"Dial":        func(cx *Context) error { return second(Dial(cx, "tcp", address)) },
		"DialTCP":     func(cx *Context) error { return second(DialTCP(cx, "tcp", nil, to)) },
		"DialUnix":    func(cx *Context) error { return second(DialUnix(cx, "unix", nil, nowhere)) },
		"Dialer.Dial": dial(Dialer{Resolver: resolver}, "host.test.:80"),
	} {
		tab.cancelled(op, run, opError)
	}
	tab.cancelled("DialFuture", func(cx *Context) error { return await(cx, DialFuture("tcp", address)) }, nil) // Await's error
	tab.add(errorRow{op: "Dial", state: "cancelled, the twin", typ: opError, is: context.Canceled,
		run: cancelledCx(func(cx *Context) error { return second(Dial(cx, "tcp", address)) }),
		std: func() error { return second(new(net.Dialer).DialContext(ended(), "tcp", address)) }})
}

func (tab *errorTable) listenRows() {
	used := tcpListen(tab)
	address := used.Addr().String()
	at := used.Addr().(*net.TCPAddr)
	udp, err := ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(tab, err)
	tab.Cleanup(func() { udp.Close() })
	udpAt := udp.LocalAddr().(*net.UDPAddr)
	below := filepath.Join(tab.dir, "missing", "socket")
	unixAt, gramAt := &net.UnixAddr{Name: below, Net: "unix"}, &net.UnixAddr{Name: below, Net: "unixgram"}
	lc := new(ListenConfig)
	notAGroup := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1)}
	tab.add(
		errorRow{op: "Listen", state: "in use", typ: opError, is: syscall.EADDRINUSE, run: func(cx *Context) error { return second(Listen(cx, "tcp", address)) },
			std: func() error { return second(net.Listen("tcp", address)) }},
		errorRow{op: "Listen", state: "a network of datagrams", typ: opError, run: func(cx *Context) error { return second(Listen(cx, "udp", address)) },
			std: func() error { return second(net.Listen("udp", address)) }},
		errorRow{op: "ListenPacket", state: "in use", typ: opError, is: syscall.EADDRINUSE, run: func(cx *Context) error { return second(ListenPacket(cx, "udp", udpAt.String())) },
			std: func() error { return second(net.ListenPacket("udp", udpAt.String())) }},
		errorRow{op: "ListenPacket", state: "a network of streams", typ: opError, run: func(cx *Context) error { return second(ListenPacket(cx, "tcp", address)) },
			std: func() error { return second(net.ListenPacket("tcp", address)) }},
		errorRow{op: "ListenTCP", state: "in use", typ: opError, is: syscall.EADDRINUSE, run: func(*Context) error { return second(ListenTCP("tcp", at)) },
			std: func() error { return second(net.ListenTCP("tcp", at)) }},
		errorRow{op: "ListenUDP", state: "in use", typ: opError, is: syscall.EADDRINUSE, run: func(*Context) error { return second(ListenUDP("udp", udpAt)) },
			std: func() error { return second(net.ListenUDP("udp", udpAt)) }},
		errorRow{op: "ListenMulticastUDP", state: "no group", typ: opError, run: func(*Context) error { return second(ListenMulticastUDP("udp", nil, nil)) },
			std: func() error { return second(net.ListenMulticastUDP("udp", nil, nil)) }},
		errorRow{op: "ListenMulticastUDP", state: "not an address of a group", typ: opError, run: func(*Context) error { return second(ListenMulticastUDP("udp", nil, notAGroup)) },
			std: func() error { return second(net.ListenMulticastUDP("udp", nil, notAGroup)) }},
		errorRow{op: "ListenUnix", state: "no directory", typ: opError, is: fs.ErrNotExist, run: func(*Context) error { return second(ListenUnix("unix", unixAt)) },
			std: func() error { return second(net.ListenUnix("unix", unixAt)) }},
		errorRow{op: "ListenUnixgram", state: "no directory", typ: opError, is: fs.ErrNotExist, run: func(*Context) error { return second(ListenUnixgram("unixgram", gramAt)) },
			std: func() error { return second(net.ListenUnixgram("unixgram", gramAt)) }},
		errorRow{op: "ListenConfig.Listen", state: "in use", typ: opError, is: syscall.EADDRINUSE, run: func(cx *Context) error { return second(lc.Listen(cx, "tcp", address)) },
			std: func() error { return second(new(net.ListenConfig).Listen(context.Background(), "tcp", address)) }},
		errorRow{op: "ListenConfig.ListenEach", state: "in use", typ: opError, is: syscall.EADDRINUSE, run: func(cx *Context) error { return second(lc.ListenEach(cx, "tcp", address, 2)) }},
		errorRow{op: "ListenConfig.ListenEach", state: "another network", typ: opError, run: func(cx *Context) error { return second(lc.ListenEach(cx, "unix", below, 2)) }},
		errorRow{op: "ListenConfig.ListenPacket", state: "in use", typ: opError, is: syscall.EADDRINUSE, run: func(cx *Context) error { return second(lc.ListenPacket(cx, "udp", udpAt.String())) },
			std: func() error {
				return second(new(net.ListenConfig).ListenPacket(context.Background(), "udp", udpAt.String()))
			}},
	)
	for op, run := range map[string]func(cx *Context) error{ // with a name that has to be looked up
		"Listen":                    func(cx *Context) error { return second(Listen(cx, "tcp", "localhost:0")) },
		"ListenPacket":              func(cx *Context) error { return second(ListenPacket(cx, "udp", "localhost:0")) },
		"ListenConfig.Listen":       func(cx *Context) error { return second(lc.Listen(cx, "tcp", "localhost:0")) },
		"ListenConfig.ListenEach":   func(cx *Context) error { return second(lc.ListenEach(cx, "tcp", "localhost:0", 2)) },
		"ListenConfig.ListenPacket": func(cx *Context) error { return second(lc.ListenPacket(cx, "udp", "localhost:0")) },
	} {
		tab.cancelled(op, run, opError)
	}

	// The methods of listeners.
	own := tcpListen(tab)
	std, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(tab, err)
	type tcpOp = errorOp[*TCPListener, *net.TCPListener]
	addOps(tab, "TCPListener", valueOf(own), valueOf(std), opError, opError, net.ErrClosed,
		append(listenerOps[*TCPListener, *net.TCPListener](),
			tcpOp{"AcceptTCP", atCancel, func(cx *Context, l *TCPListener) error { return second(l.AcceptTCP(cx)) }, func(l *net.TCPListener) error { return second(l.AcceptTCP()) }, nil}))
	raw, err := used.SyscallConn()
	require.NoError(tab, err)
	tab.add(errorRow{op: "TCPListener.SyscallConn", state: "Read", is: syscall.EINVAL, run: func(*Context) error { return raw.Read(func(uintptr) bool { return true }) }})

	ownUnix, err := ListenUnix("unix", &net.UnixAddr{Name: tab.path("l"), Net: "unix"})
	require.NoError(tab, err)
	stdUnix, err := net.ListenUnix("unix", &net.UnixAddr{Name: tab.path("m"), Net: "unix"})
	require.NoError(tab, err)
	type unixOp = errorOp[*UnixListener, *net.UnixListener]
	addOps(tab, "UnixListener", valueOf(ownUnix), valueOf(stdUnix), opError, opError, net.ErrClosed,
		append(listenerOps[*UnixListener, *net.UnixListener](),
			unixOp{"AcceptUnix", atCancel, func(cx *Context, l *UnixListener) error { return second(l.AcceptUnix(cx)) }, func(l *net.UnixListener) error { return second(l.AcceptUnix()) }, nil}))

	tab.conversionRows()
}

// listenerOps are the operations that all listeners have.
func listenerOps[Own interface {
	Listener
	PollAccept(cx *Context) (Conn, error)
	SetDeadline(t time.Time) error
	SyscallConn() (syscall.RawConn, error)
	File() (*os.File, error)
}, Std interface {
	net.Listener
	SetDeadline(t time.Time) error
	File() (*os.File, error)
}]() []errorOp[Own, Std] {
	return []errorOp[Own, Std]{
		{"Accept", atCancel, func(cx *Context, l Own) error { return second(l.Accept(cx)) }, func(l Std) error { return second(l.Accept()) }, nil},
		{"PollAccept", atDeadline, func(cx *Context, l Own) error { return second(l.PollAccept(cx)) }, nil, nil},
		{"SetDeadline", atClose, func(_ *Context, l Own) error { return l.SetDeadline(time.Time{}) }, nil, nil}, // package net does not wrap this error
		{"SyscallConn", atClose, func(_ *Context, l Own) error { return second(l.SyscallConn()) }, nil, nil},
		{"File", atClose, func(_ *Context, l Own) error { return second(l.File()) }, func(l Std) error { return second(l.File()) }, nil},
		{"Close", atClose, func(_ *Context, l Own) error { return l.Close() }, func(l Std) error { return l.Close() }, nil},
	}
}

// conversionRows adds rows for the functions of netconvert.go.
func (tab *errorTable) conversionRows() {
	plain, err := os.Create(tab.path("no socket"))
	require.NoError(tab, err)
	tab.Cleanup(func() { plain.Close() })
	closed, err := os.Open(tab.dir)
	require.NoError(tab, err)
	require.NoError(tab, closed.Close())
	noFD, other := net.Pipe()
	tab.Cleanup(func() { noFD.Close(); other.Close() })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tab, err)
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(tab, err)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(tab, err)
	require.NoError(tab, errors.Join(ln.Close(), c.Close(), udp.Close()))
	for op, f := range map[string]struct {
		own func(f *os.File) error
		std func(f *os.File) error
	}{
		"FileConn":       {func(f *os.File) error { return second(FileConn(f)) }, func(f *os.File) error { return second(net.FileConn(f)) }},
		"FileListener":   {func(f *os.File) error { return second(FileListener(f)) }, func(f *os.File) error { return second(net.FileListener(f)) }},
		"FilePacketConn": {func(f *os.File) error { return second(FilePacketConn(f)) }, func(f *os.File) error { return second(net.FilePacketConn(f)) }},
	} {
		tab.add(
			errorRow{op: op, state: "no socket", typ: opError, is: syscall.ENOTSOCK, run: func(*Context) error { return f.own(plain) }, std: func() error { return f.std(plain) }},
			errorRow{op: op, state: "closed", typ: opError, is: os.ErrClosed, run: func(*Context) error { return f.own(closed) }, std: func() error { return f.std(closed) }, stdIs: syscall.EBADF},
		)
	}
	tab.add(
		errorRow{op: "FromConn", state: "no descriptor", typ: opError, is: errors.ErrUnsupported, run: func(*Context) error { return second(FromConn(noFD)) }},
		errorRow{op: "FromConn", state: "closed", typ: opError, is: net.ErrClosed, run: func(*Context) error { return second(FromConn(c)) }},
		errorRow{op: "FromListener", state: "closed", typ: opError, is: net.ErrClosed, run: func(*Context) error { return second(FromListener(ln)) }},
		errorRow{op: "FromPacketConn", state: "closed", typ: opError, is: net.ErrClosed, run: func(*Context) error { return second(FromPacketConn(udp)) }},
	)
}

func (tab *errorTable) resolverRows() {
	own := &Resolver{PreferGo: true, Dial: noServer}
	std := &net.Resolver{PreferGo: true, Dial: noServer}
	before := DefaultResolver
	DefaultResolver = own
	tab.Cleanup(func() { DefaultResolver = before })
	ctx := context.Background()
	for _, f := range []struct {
		op  string
		own func(cx *Context) error
		std func(ctx context.Context) error
	}{
		{"LookupHost", func(cx *Context) error { return second(own.LookupHost(cx, "host.test.")) }, func(ctx context.Context) error { return second(std.LookupHost(ctx, "host.test.")) }},
		{"LookupIPAddr", func(cx *Context) error { return second(own.LookupIPAddr(cx, "host.test.")) }, func(ctx context.Context) error { return second(std.LookupIPAddr(ctx, "host.test.")) }},
		{"LookupIP", func(cx *Context) error { return second(own.LookupIP(cx, "ip4", "host.test.")) }, func(ctx context.Context) error { return second(std.LookupIP(ctx, "ip4", "host.test.")) }},
		{"LookupNetIP", func(cx *Context) error { return second(own.LookupNetIP(cx, "ip", "host.test.")) }, func(ctx context.Context) error { return second(std.LookupNetIP(ctx, "ip", "host.test.")) }},
		{"LookupPort", func(cx *Context) error { return second(own.LookupPort(cx, "tcp", "no-such-service")) }, func(ctx context.Context) error { return second(std.LookupPort(ctx, "tcp", "no-such-service")) }},
		{"LookupAddr", func(cx *Context) error { return second(own.LookupAddr(cx, "203.0.113.7")) }, func(ctx context.Context) error { return second(std.LookupAddr(ctx, "203.0.113.7")) }},
		{"LookupCNAME", func(cx *Context) error { return second(own.LookupCNAME(cx, "host.test.")) }, func(ctx context.Context) error { return second(std.LookupCNAME(ctx, "host.test.")) }},
		{"LookupMX", func(cx *Context) error { return second(own.LookupMX(cx, "host.test.")) }, func(ctx context.Context) error { return second(std.LookupMX(ctx, "host.test.")) }},
		{"LookupNS", func(cx *Context) error { return second(own.LookupNS(cx, "host.test.")) }, func(ctx context.Context) error { return second(std.LookupNS(ctx, "host.test.")) }},
		{"LookupTXT", func(cx *Context) error { return second(own.LookupTXT(cx, "host.test.")) }, func(ctx context.Context) error { return second(std.LookupTXT(ctx, "host.test.")) }},
		{"LookupSRV", func(cx *Context) error { return third(own.LookupSRV(cx, "sip", "udp", "host.test.")) }, func(ctx context.Context) error { return third(std.LookupSRV(ctx, "sip", "udp", "host.test.")) }},
	} {
		op := "Resolver." + f.op
		tab.add(errorRow{op: op, state: "not found", typ: dnsError, run: f.own, std: func() error { return f.std(ctx) }})
		tab.cancelled(op, f.own, dnsError)
		// Package net returns the error of the context or another failure, by chance.
		tab.add(errorRow{op: op, state: "cancelled, the twin", typ: dnsError, is: context.Canceled, run: cancelledCx(f.own), std: func() error { return f.std(ended()) }, stdIs: errAny})
	}
	for op, run := range map[string]func(cx *Context) error{
		"LookupHost":  func(cx *Context) error { return second(LookupHost(cx, "host.test.")) },
		"LookupIP":    func(cx *Context) error { return second(LookupIP(cx, "host.test.")) },
		"LookupPort":  func(cx *Context) error { return second(LookupPort(cx, "tcp", "no-such-service")) },
		"LookupAddr":  func(cx *Context) error { return second(LookupAddr(cx, "203.0.113.7")) },
		"LookupCNAME": func(cx *Context) error { return second(LookupCNAME(cx, "host.test.")) },
		"LookupMX":    func(cx *Context) error { return second(LookupMX(cx, "host.test.")) },
		"LookupNS":    func(cx *Context) error { return second(LookupNS(cx, "host.test.")) },
		"LookupTXT":   func(cx *Context) error { return second(LookupTXT(cx, "host.test.")) },
		"LookupSRV":   func(cx *Context) error { return third(LookupSRV(cx, "sip", "udp", "host.test.")) },
	} {
		tab.add(errorRow{op: op, state: "not found", typ: dnsError, run: run})
		tab.cancelled(op, run, dnsError)
	}
	tab.add(
		errorRow{op: "Resolver.LookupIP", state: "an unknown network", typ: net.UnknownNetworkError(""), run: func(cx *Context) error { return second(own.LookupIP(cx, "x", "host.test.")) },
			std: func() error { return second(std.LookupIP(ctx, "x", "host.test.")) }},
		errorRow{op: "Resolver.LookupNetIP", state: "an unknown network", typ: net.UnknownNetworkError(""), run: func(cx *Context) error { return second(own.LookupNetIP(cx, "x", "host.test.")) },
			std: func() error { return second(std.LookupNetIP(ctx, "x", "host.test.")) }},
		errorRow{op: "Resolver.LookupPort", state: "an unknown network", typ: (*net.AddrError)(nil), run: func(cx *Context) error { return second(own.LookupPort(cx, "x", "https")) },
			std: func() error { return second(std.LookupPort(ctx, "x", "https")) }},
		errorRow{op: "Resolver.LookupPort", state: "no port", typ: (*net.AddrError)(nil), run: func(cx *Context) error { return second(own.LookupPort(cx, "tcp", "99999")) },
			std: func() error { return second(std.LookupPort(ctx, "tcp", "99999")) }},
	)
}

func (tab *errorTable) processRows() {
	missing := filepath.Join(tab.dir, "missing")
	start := func(c *Cmd) func(cx *Context) error { return func(cx *Context) error { return c.Start(cx) } }
	in := func(c *Cmd, dir string) *Cmd { c.Dir = dir; return c }
	taken := func(set func(c *Cmd)) *Cmd { c := Command("true"); set(c); return c }
	stdTaken := func(set func(c *exec.Cmd)) *exec.Cmd { c := exec.Command("true"); set(c); return c }
	stdin := func(c *exec.Cmd) { c.Stdin = strings.NewReader("") }
	stdout := func(c *exec.Cmd) { c.Stdout = io.Discard }
	stderr := func(c *exec.Cmd) { c.Stderr = io.Discard }
	own := func(set func(c *exec.Cmd)) *Cmd { return taken(func(c *Cmd) { set(c.Cmd) }) }
	tab.add(
		errorRow{op: "Cmd.Start", state: "not in PATH", typ: execError, is: exec.ErrNotFound, run: start(Command("no-such-program")),
			std: func() error { return exec.Command("no-such-program").Start() }},
		errorRow{op: "Cmd.Start", state: "no such file", typ: pathError, is: fs.ErrNotExist, run: start(Command(missing)),
			std: func() error { return exec.Command(missing).Start() }},
		errorRow{op: "Cmd.Start", state: "no such directory", typ: pathError, is: fs.ErrNotExist, run: start(in(Command("true"), missing)),
			std: func() error { c := exec.Command("true"); c.Dir = missing; return c.Start() }},
	)
	again := func(cx *Context) error {
		c := Command("true")
		if err := c.Run(cx); err != nil {
			return nil
		}
		return c.Start(cx)
	}
	stdAgain := func() error {
		c := exec.Command("true")
		if err := c.Run(); err != nil {
			return nil
		}
		return c.Start()
	}
	tab.add(
		errorRow{op: "Cmd.Start", state: "started", typ: textError, run: again, std: stdAgain},
		errorRow{op: "Cmd.Wait", state: "not started", typ: textError, run: func(cx *Context) error { return Command("true").Wait(cx) },
			std: func() error { return exec.Command("true").Wait() }},
		errorRow{op: "Cmd.PollWait", state: "not started", typ: textError, run: func(cx *Context) error { return Command("true").PollWait(cx) }},
		errorRow{op: "Cmd.PollWait", state: "failed", typ: exitError, run: func(cx *Context) error {
			c := Command("false")
			if err := c.Start(cx); err != nil {
				return err
			}
			_, err := Await(cx, PollFunc(func(cx *Context) (None, error) { return None{}, c.PollWait(cx) }))
			return err
		}},
		errorRow{op: "Cmd.Wait", state: "failed", typ: exitError, run: func(cx *Context) error {
			c := Command("false")
			if err := c.Start(cx); err != nil {
				return err
			}
			return c.Wait(cx)
		}},
		errorRow{op: "Cmd.Wait", state: "cancelled", is: context.Canceled, run: func(cx *Context) error {
			c := Command("cat")
			if _, err := c.StdinPipe(); err != nil {
				return err
			}
			if err := c.Start(cx); err != nil {
				return err
			}
			err := cancelledCx(c.Wait)(cx)
			var killed *exec.ExitError
			if over := c.Wait(cx); !errors.As(over, &killed) {
				return fmt.Errorf("another Wait: %w", over)
			}
			return err
		}},
		errorRow{op: "Cmd.Run", state: "failed", typ: exitError, run: func(cx *Context) error { return Command("false").Run(cx) },
			std: func() error { return exec.Command("false").Run() }},
		errorRow{op: "Cmd.Run", state: "not in PATH", typ: execError, is: exec.ErrNotFound, run: func(cx *Context) error { return Command("no-such-program").Run(cx) },
			std: func() error { return exec.Command("no-such-program").Run() }},
		errorRow{op: "Cmd.Output", state: "failed", typ: exitError, run: func(cx *Context) error { return second(Command("false").Output(cx)) },
			std: func() error { return second(exec.Command("false").Output()) }},
		errorRow{op: "Cmd.Output", state: "Stdout is set", typ: textError, run: func(cx *Context) error { return second(own(stdout).Output(cx)) },
			std: func() error { return second(stdTaken(stdout).Output()) }},
		errorRow{op: "Cmd.CombinedOutput", state: "failed", typ: exitError, run: func(cx *Context) error { return second(Command("false").CombinedOutput(cx)) },
			std: func() error { return second(exec.Command("false").CombinedOutput()) }},
		errorRow{op: "Cmd.CombinedOutput", state: "Stderr is set", typ: textError, run: func(cx *Context) error { return second(own(stderr).CombinedOutput(cx)) },
			std: func() error { return second(stdTaken(stderr).CombinedOutput()) }},
		errorRow{op: "Cmd.StdinPipe", state: "Stdin is set", typ: textError, run: func(*Context) error { return second(own(stdin).StdinPipe()) },
			std: func() error { return second(stdTaken(stdin).StdinPipe()) }},
		errorRow{op: "Cmd.StdoutPipe", state: "Stdout is set", typ: textError, run: func(*Context) error { return second(own(stdout).StdoutPipe()) },
			std: func() error { return second(stdTaken(stdout).StdoutPipe()) }},
		errorRow{op: "Cmd.StderrPipe", state: "Stderr is set", typ: textError, run: func(*Context) error { return second(own(stderr).StderrPipe()) },
			std: func() error { return second(stdTaken(stderr).StderrPipe()) }},
	)
	for op, f := range map[string]struct {
		own func(cx *Context) error
		std func() error
	}{
		"Cmd.Start":          {func(cx *Context) error { return Command("true").Start(cx) }, func() error { return exec.CommandContext(ended(), "true").Start() }},
		"Cmd.Run":            {func(cx *Context) error { return Command("true").Run(cx) }, func() error { return exec.CommandContext(ended(), "true").Run() }},
		"Cmd.Output":         {func(cx *Context) error { return second(Command("true").Output(cx)) }, func() error { return second(exec.CommandContext(ended(), "true").Output()) }},
		"Cmd.CombinedOutput": {func(cx *Context) error { return second(Command("true").CombinedOutput(cx)) }, func() error { return second(exec.CommandContext(ended(), "true").CombinedOutput()) }},
	} {
		tab.cancelled(op, f.own, nil)
		tab.add(errorRow{op: op, state: "cancelled, the twin", is: context.Canceled, run: cancelledCx(f.own), std: f.std})
	}
}

// pollRows adds rows for Source, Poller and SignalStream.
func (tab *errorTable) pollRows() {
	plain, err := os.Create(tab.path("plain"))
	require.NoError(tab, err)
	tab.Cleanup(func() { plain.Close() })
	fd := int(plain.Fd())
	var fds [2]int
	require.NoError(tab, openPipe(&fds))
	tab.Cleanup(func() { unix.Close(fds[1]) })
	s, err := NewSource(fds[0])
	require.NoError(tab, err)
	bad := errors.New("an error of the caller's")
	fails := func(int) (int, error) { return 0, bad }
	again := func(int) (int, error) { return 0, unix.EAGAIN }
	tab.add(
		errorRow{op: "NewSource", state: "no descriptor", typ: callFailed, is: syscall.EBADF, run: func(*Context) error { return second(NewSource(-1)) }},
		errorRow{op: "NewSource", state: "a file of the disk", typ: wrapError, is: ErrNotPollable, run: func(*Context) error { return second(NewSource(fd)) }},
		errorRow{op: "Source.ReadWith", state: "the function fails", is: bad, run: func(cx *Context) error { return second(s.ReadWith(cx, fails)) }},
		errorRow{op: "Source.WriteWith", state: "the function fails", is: bad, run: func(cx *Context) error { return second(s.WriteWith(cx, fails)) }},
		errorRow{op: "Source.Control", state: "the function fails", is: bad, run: func(*Context) error { return s.Control(func(int) error { return bad }) }},
		errorRow{op: "Source.Detach", state: "in use", is: ErrSourceInUse, run: func(*Context) error { return s.Control(func(int) error { return second(s.Detach()) }) }},
	)
	type sourceOp = errorOp[*Source, None]
	addOps(tab, "Source", errorValue[*Source]{s, func(*Context) { s.Close() }, func() error { return s.setDeadline(time.Now().Add(-time.Second)) }}, errorValue[None]{},
		nil, nil, os.ErrClosed, []sourceOp{
			{"Readable", atCancel, func(cx *Context, s *Source) error { return s.Readable(cx) }, nil, nil},
			{"Writable", atCancel, func(cx *Context, s *Source) error { return s.Writable(cx) }, nil, nil},
			{"PollReadable", atDeadline, func(cx *Context, s *Source) error { return s.PollReadable(cx) }, nil, nil},
			{"PollWritable", atDeadline, func(cx *Context, s *Source) error { return s.PollWritable(cx) }, nil, nil},
			{"ReadWith", atCancel, func(cx *Context, s *Source) error { return second(s.ReadWith(cx, again)) }, nil, nil},
			{"WriteWith", atCancel, func(cx *Context, s *Source) error { return second(s.WriteWith(cx, again)) }, nil, nil},
			{"Control", atClose, func(_ *Context, s *Source) error { return s.Control(func(int) error { return nil }) }, nil, nil},
			{"Detach", atClose, func(_ *Context, s *Source) error { return second(s.Detach()) }, nil, nil},
			{"Close", atClose, func(_ *Context, s *Source) error { return s.Close() }, nil, nil},
		})

	p, err := NewPoller()
	require.NoError(tab, err)
	tab.add(
		errorRow{op: "Poller.Add", state: "no descriptor", typ: callFailed, is: syscall.EBADF, run: func(*Context) error { return p.Add(-1, nil, Readable, LevelTriggered) }},
		errorRow{op: "Poller.Modify", state: "not added", typ: callFailed, is: syscall.ENOENT, run: func(*Context) error { return p.Modify(fds[1], nil, Readable, LevelTriggered) }},
		errorRow{op: "Poller.Delete", state: "not added", typ: callFailed, is: syscall.ENOENT, run: func(*Context) error { return p.Delete(fds[1]) }},
	)
	if filesAreRefused {
		tab.add(errorRow{op: "Poller.Add", state: "a file of the disk", typ: wrapError, is: ErrNotPollable, run: func(*Context) error { return p.Add(fd, nil, Readable, LevelTriggered) }})
	}
	type pollerOp = errorOp[*Poller, None]
	addOps(tab, "Poller", errorValue[*Poller]{p, func(*Context) { p.Close() }, nil}, errorValue[None]{}, nil, nil, os.ErrClosed, []pollerOp{
		{"Add", atClose, func(_ *Context, p *Poller) error { return p.Add(fds[1], nil, Writable, LevelTriggered) }, nil, nil},
		{"Modify", atClose, func(_ *Context, p *Poller) error { return p.Modify(fds[1], nil, Writable, LevelTriggered) }, nil, nil},
		{"Delete", atClose, func(_ *Context, p *Poller) error { return p.Delete(fds[1]) }, nil, nil},
		{"Wait", atClose, func(_ *Context, p *Poller) error { return second(p.Wait(make([]PollEvent, 1), 0)) }, nil, nil},
		{"Notify", atClose, func(_ *Context, p *Poller) error { return p.Notify() }, nil, nil},
		{"Close", atClose, func(_ *Context, p *Poller) error { return p.Close() }, nil, nil},
	})

	sig := Signals(syscall.SIGUSR2)
	all := func(cx *Context) (last error) {
		for _, err := range sig.All(cx) {
			last = err
		}
		return last
	}
	tab.cancelled("SignalStream.Next", func(cx *Context) error { return second(sig.Next(cx)) }, nil)
	tab.cancelled("SignalStream.All", all, nil)
	tab.add(
		errorRow{op: "SignalStream.Next", state: "closed", is: io.EOF, run: func(cx *Context) error { sig.Close(); return second(sig.Next(cx)) }},
		errorRow{op: "SignalStream.PollNext", state: "closed", is: io.EOF, run: func(cx *Context) error { return second(sig.PollNext(cx)) }},
		errorRow{op: "SignalStream.Close", state: "closed", is: ErrClosed, run: func(*Context) error { return sig.Close() }},
	)
}

// dataReader is a Reader of another package that has data.
type dataReader struct{ err error }

func (r dataReader) Read(_ *Context, p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	return len(p), nil
}

func (tab *errorTable) copyRows() {
	var whole, part, disk, empty *File
	name := tab.path("copy")
	require.NoError(tab, os.WriteFile(name, []byte("data"), 0o600))
	require.NoError(tab, runTask(tab.rt, func(cx *Context) (err error) {
		if disk, err = Create(cx, name+"2"); err != nil {
			return err
		}
		if empty, err = Create(cx, name+"3"); err != nil {
			return err
		}
		if part, err = Open(cx, name); err != nil {
			return err
		}
		whole, err = Open(cx, name)
		return err
	}))
	a, b := tcpPair(tab, tab.rt)
	closed, _ := tcpPair(tab, tab.rt)
	require.NoError(tab, closed.Close())
	r, w, err := Pipe()
	require.NoError(tab, err)
	closedPipe, closedW, err := Pipe()
	require.NoError(tab, err)
	require.NoError(tab, errors.Join(closedPipe.src.close(), closedW.src.close()))
	tab.Cleanup(func() {
		runTask(tab.rt, func(cx *Context) error {
			for _, f := range []*File{whole, part, disk, empty, r, w} {
				f.Close(cx)
			}
			return nil
		})
	})
	bad := errors.New("an error of the reader")
	for _, f := range []struct {
		state   string
		dst     Writer
		src     Reader
		typ, is error
	}{
		{"from a connection that is closed", a, closed, opError, net.ErrClosed},
		{"from a pipe that is closed", a, closedPipe, pathError, os.ErrClosed},
		{"from the disk to a connection that is closed", closed, whole, opError, net.ErrClosed},
		{"from the disk to a pipe that is closed", closedW, whole, pathError, os.ErrClosed},
		{"of data to a connection that is closed", closed, dataReader{}, copyError, net.ErrClosed},
		{"of data to a pipe that is closed", closedW, dataReader{}, copyError, os.ErrClosed},
		{"from a reader that fails", a, dataReader{bad}, nil, bad},
		{"from the disk to a file that is read-only", part, whole, pathError, syscall.EBADF},
	} {
		tab.add(errorRow{op: "Copy", state: f.state, typ: f.typ, is: f.is, run: func(cx *Context) error { return second(Copy(cx, f.dst, f.src)) }},
			errorRow{op: "CopyN", state: f.state, typ: f.typ, is: f.is, run: func(cx *Context) error { return second(CopyN(cx, f.dst, f.src, 2)) }})
	}
	tab.add(errorRow{op: "CopyN", state: "the end comes before", is: io.EOF, run: func(cx *Context) error { return second(CopyN(cx, disk, empty, 1)) },
		std: func() error { return second(io.CopyN(io.Discard, strings.NewReader(""), 1)) }})
	for _, f := range []struct {
		dst Writer
		src Reader
		typ error
	}{
		{a, b, opError},
		{w, b, opError},
		{a, r, nil},
		{a, whole, opError},
		{w, whole, nil},
		{disk, whole, nil},
		{a, dataReader{}, copyError},
	} {
		tab.cancelled("Copy", func(cx *Context) error { return second(Copy(cx, f.dst, f.src)) }, f.typ)
		tab.cancelled("CopyN", func(cx *Context) error { return second(CopyN(cx, f.dst, f.src, 1)) }, f.typ)
	}
}

// limitRows adds rows for operations that fail only when the process has no descriptors left.
func (tab *errorTable) limitRows() {
	r, w, err := Pipe()
	require.NoError(tab, err)
	tab.Cleanup(func() { r.src.close(); w.src.close() })
	exhausted := func(run func() error) error {
		var before unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			return err
		}
		none := before
		none.Cur = 1 // not 0: with 0 the duplication of a descriptor fails as an invalid argument
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
			return err
		}
		defer unix.Setrlimit(unix.RLIMIT_NOFILE, &before)
		return run()
	}
	for op, f := range map[string]struct {
		typ error
		own func(cx *Context) error
		std func() error
	}{
		"File.Stat":     {pathError, func(cx *Context) error { return second(r.Stat(cx)) }, nil}, // it duplicates the descriptor of a pipe
		"Pipe":          {callFailed, func(*Context) error { return third(Pipe()) }, func() error { return third(os.Pipe()) }},
		"SocketPair":    {opError, func(*Context) error { return third(SocketPair()) }, nil},
		"DatagramPair":  {opError, func(*Context) error { return third(DatagramPair()) }, nil},
		"NewPoller":     {callFailed, func(*Context) error { return second(NewPoller()) }, nil},
		"Cmd.StdinPipe": {callFailed, func(*Context) error { return second(Command("true").StdinPipe()) }, func() error { return second(exec.Command("true").StdinPipe()) }},
	} {
		row := errorRow{op: op, state: "no descriptors left", typ: f.typ, is: syscall.EMFILE, run: func(cx *Context) error { return exhausted(func() error { return f.own(cx) }) }}
		if f.std != nil {
			row.std = func() error { return exhausted(f.std) }
		}
		tab.add(row)
	}
}
