package async

import (
	"io"
	"io/fs"
	"net"
)

// The functions below bind a value to a Context: their results have the methods of the
// standard library, without a cx, and wait through the Context. They are functions and not
// methods, so that a type that embeds a Conn, and has methods of its own, is bound with these.

// BindReader returns r as an io.Reader that waits through cx, for all code that knows
// package io. It may be used where cx may be used. Its errors are those of r.
func BindReader(cx *Context, r Reader) io.Reader { return boundReader{cx, r} }

type boundReader struct {
	cx *Context
	r  Reader
}

func (b boundReader) Read(p []byte) (int, error) { return b.r.Read(b.cx, p) }

// BindWriter returns w as an io.Writer that waits through cx. It may be used where cx may be
// used. Its errors are those of w.
func BindWriter(cx *Context, w Writer) io.Writer { return boundWriter{cx, w} }

type boundWriter struct {
	cx *Context
	w  Writer
}

func (b boundWriter) Write(p []byte) (int, error) { return b.w.Write(b.cx, p) }

// BindConn returns c as a net.Conn that waits through cx, for all code that knows package
// net: crypto/tls, bufio, a client library. It may be used where cx may be used; closing it
// closes c. For goroutines outside the pool use [NetConn].
//
// The result has every method of *net.TCPConn if c is a *TCPConn, of *net.UDPConn if c is a
// *UDPConn, and of *net.UnixConn if c is a *UnixConn or a *UnixDatagram; for
// net.UnixConn.WriteTo see NetConn. A c of another type is used by its own methods alone: a
// type that embeds one of these is read by its own Read. If it is a PacketConn, the result is
// a net.PacketConn; if it has a method CloseWrite() error, the result has it, too.
//
// The errors are those of c, and of the twin in package net where that wraps an error once
// more: ReadFrom and WriteTo of a *net.TCPConn, ReadMsgUnix at the end of a *net.UnixConn.
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

// writeCloser is a Conn whose writing side can be closed alone.
type writeCloser interface {
	Conn
	CloseWrite() error
}

// boundConn is the result of BindConn for a connection of another package.
type boundConn struct {
	Conn
	cx *Context
}

func (b *boundConn) Read(p []byte) (int, error)  { return b.Conn.Read(b.cx, p) }
func (b *boundConn) Write(p []byte) (int, error) { return b.Conn.Write(b.cx, p) }

// boundWriteCloser is the same for a writeCloser.
type boundWriteCloser struct {
	boundConn
	c writeCloser
}

func (b *boundWriteCloser) CloseWrite() error { return b.c.CloseWrite() }

// boundPacketConn is the result of BindConn for a datagram socket of another package.
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

// BindFile returns f with the interfaces that os.File has in the standard library, for all
// code that knows them: archive/zip, io.Copy, http.ServeContent. Its calls wait through cx,
// and it may be used where cx may be used. Closing it closes f. The errors are those of f.
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
