package async

import (
	"io"
	"io/fs"
	"net"
)

// The functions of this file bind a value to a Context: a result has the methods of the standard
// library, without a cx, and waits through the Context. They are functions and not methods. A type
// that embeds a Conn and overrides its methods would promote a method, which would bind the
// embedded Conn; a function binds the type itself.

// BindReader returns r as an [io.Reader] that waits through cx, for code that reads by package io:
// [bufio.Scanner], [io.ReadAll], a decoder. It may be used where cx may be used. Its errors are
// those of r.
func BindReader(cx *Context, r Reader) io.Reader { return boundReader{cx, r} }

// boundReader is the result of BindReader.
type boundReader struct {
	cx *Context
	r  Reader
}

func (b boundReader) Read(p []byte) (int, error) { return b.r.Read(b.cx, p) }

// BindWriter returns w as an [io.Writer] that waits through cx, for code that writes by package io:
// [fmt.Fprintf], [bufio.Writer], an encoder. It may be used where cx may be used. Its errors are
// those of w.
func BindWriter(cx *Context, w Writer) io.Writer { return boundWriter{cx, w} }

// boundWriter is the result of BindWriter.
type boundWriter struct {
	cx *Context
	w  Writer
}

func (b boundWriter) Write(p []byte) (int, error) { return b.w.Write(b.cx, p) }

// BindConn returns c as a [net.Conn] that waits through cx, for code that uses package net:
// crypto/tls, bufio, a client library. It may be used where cx may be used: by the code of cx's
// task. For other goroutines use [NetConn]. Closing the result closes c.
//
// The methods of the result depend on the type of c:
//
//   - For a [*TCPConn], a [*UDPConn], a [*UnixConn] or a [*UnixDatagram], the result has every
//     method of the twin in package net: [net.TCPConn], [net.UDPConn] or [net.UnixConn]. WriteTo of
//     a *UnixConn always fails; see [NetConn].
//   - For a [PacketConn] of another type, the result is a [net.PacketConn].
//   - For a [Conn] of another type with a method CloseWrite() error, the result has this method,
//     too.
//
// A c of another type is used by its own methods alone. For example, a type that embeds a *TCPConn
// is read by its own Read, and not by the Read of the *TCPConn.
//
// The errors are those of c, which wrap cx.Err() if cx is cancelled. Where the twin in package net
// wraps an error once more, the result does so, too: ReadFrom and WriteTo of [net.TCPConn], and
// ReadMsgUnix of [net.UnixConn] at the end.
func BindConn(cx *Context, c Conn) net.Conn {
	switch c := c.(type) {
	case *TCPConn:
		return &boundTCPConn{c, cx}
	case *UDPConn:
		return &boundUDPConn{c, cx}
	case *UnixConn:
		return &boundUnixConn{c, cx}
	case *UnixDatagram:
		return &boundUnixDatagram{c, cx}
	case PacketConn:
		return &boundPacketConn{c, cx}
	case writeCloser:
		return &boundWriteCloser{boundConn{c, cx}, c}
	}
	return &boundConn{c, cx}
}

// A writeCloser is a Conn whose writing side can be closed alone.
type writeCloser interface {
	Conn
	CloseWrite() error
}

// boundConn is the result of BindConn for a Conn of another package.
type boundConn struct {
	Conn
	cx *Context
}

func (b *boundConn) Read(p []byte) (int, error)  { return b.Conn.Read(b.cx, p) }
func (b *boundConn) Write(p []byte) (int, error) { return b.Conn.Write(b.cx, p) }

// boundWriteCloser is the result of BindConn for a writeCloser of another package.
type boundWriteCloser struct {
	boundConn
	c writeCloser
}

func (b *boundWriteCloser) CloseWrite() error { return b.c.CloseWrite() }

// boundPacketConn is the result of BindConn for a PacketConn of another package.
type boundPacketConn struct {
	PacketConn
	cx *Context
}

var _ net.PacketConn = (*boundPacketConn)(nil)

func (b *boundPacketConn) Read(p []byte) (int, error)  { return b.PacketConn.Read(b.cx, p) }
func (b *boundPacketConn) Write(p []byte) (int, error) { return b.PacketConn.Write(b.cx, p) }

func (b *boundPacketConn) ReadFrom(p []byte) (int, net.Addr, error) {
	return b.PacketConn.ReadFrom(b.cx, p)
}

func (b *boundPacketConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	return b.PacketConn.WriteTo(b.cx, p, addr)
}

// BindFile returns f with the interfaces of an [os.File], for code that uses packages io and io/fs:
// archive/zip, [io.Copy], [net/http.ServeContent]. Its calls wait through cx, and it may be used
// where cx may be used. Its errors are those of f. Closing the result closes f.
func BindFile(cx *Context, f *File) interface {
	fs.ReadDirFile
	io.ReadWriteSeeker
	io.ReaderAt
	io.WriterAt
	io.StringWriter
	Name() string
	Sync() error
	Truncate(size int64) error
} {
	return &boundFile{f, cx}
}

// boundFile is the result of BindFile.
type boundFile struct {
	f  *File
	cx *Context
}

func (b *boundFile) Read(p []byte) (int, error)                { return b.f.Read(b.cx, p) }
func (b *boundFile) Write(p []byte) (int, error)               { return b.f.Write(b.cx, p) }
func (b *boundFile) WriteString(s string) (int, error)         { return b.f.WriteString(b.cx, s) }
func (b *boundFile) ReadAt(p []byte, off int64) (int, error)   { return b.f.ReadAt(b.cx, p, off) }
func (b *boundFile) WriteAt(p []byte, off int64) (int, error)  { return b.f.WriteAt(b.cx, p, off) }
func (b *boundFile) Seek(off int64, whence int) (int64, error) { return b.f.Seek(b.cx, off, whence) }
func (b *boundFile) Stat() (fs.FileInfo, error)                { return b.f.Stat(b.cx) }
func (b *boundFile) ReadDir(n int) ([]fs.DirEntry, error)      { return b.f.ReadDir(b.cx, n) }
func (b *boundFile) Name() string                              { return b.f.name }
func (b *boundFile) Sync() error                               { return b.f.Sync(b.cx) }
func (b *boundFile) Truncate(size int64) error                 { return b.f.Truncate(b.cx, size) }
func (b *boundFile) Close() error                              { return b.f.Close(b.cx) }
