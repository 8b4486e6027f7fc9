package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Limits of a request. A larger request is an error that ends the connection.
const (
	maxArgs   = 1 << 16
	maxBulk   = 16 << 20 // bytes in one argument
	maxInline = 16 << 10 // bytes in a line
)

// protocolError is an error that is sent to the client before its connection is closed.
type protocolError string

func (e protocolError) Error() string { return "Protocol error: " + string(e) }

// requests reads the commands of one client. The arguments of a command are valid until the next
// command is read.
type requests struct {
	r    *bufio.Reader
	args [][]byte
	ends []int // the end of each argument in data
	data []byte
}

func newRequests(r io.Reader) *requests { return &requests{r: bufio.NewReaderSize(r, maxInline)} }

// next returns the next command: its name and its arguments. For an empty line the result is empty.
func (q *requests) next() ([][]byte, error) {
	q.data, q.ends = q.data[:0], q.ends[:0]
	if cap(q.data) > maxInline {
		q.data = nil // frees a large buffer after its command
	}
	line, err := q.line()
	if err != nil {
		return nil, err
	}
	if len(line) == 0 || line[0] != '*' {
		return bytes.Fields(line), nil // the inline form, as typed in telnet
	}
	n, err := number(line[1:], maxArgs)
	if err != nil {
		return nil, protocolError("invalid multibulk length")
	}
	for range n {
		if err := q.bulk(); err != nil {
			return nil, err
		}
	}
	q.args = q.args[:0]
	begin := 0
	for _, end := range q.ends {
		q.args = append(q.args, q.data[begin:end:end])
		begin = end
	}
	return q.args, nil
}

// bulk reads one argument and appends it to data.
func (q *requests) bulk() error {
	line, err := q.line()
	if err != nil {
		return noEOF(err)
	}
	if len(line) == 0 || line[0] != '$' {
		return protocolError(fmt.Sprintf("expected '$', got %.20q", line))
	}
	n, err := number(line[1:], maxBulk)
	if err != nil || len(q.data)+n > maxBulk {
		return protocolError("invalid bulk length")
	}
	begin := len(q.data)
	// The buffer grows with the data that arrives, not by the length that the client has announced:
	// a client cannot make the server allocate memory without sending data.
	for left := n + len("\r\n"); left > 0; {
		step := min(left, 64<<10)
		at := len(q.data)
		q.data = append(q.data, make([]byte, step)...)
		if _, err := io.ReadFull(q.r, q.data[at:]); err != nil {
			return noEOF(err)
		}
		left -= step
	}
	if !bytes.HasSuffix(q.data, []byte("\r\n")) {
		return protocolError("a bulk string does not end where it should")
	}
	q.data = q.data[:begin+n]
	q.ends = append(q.ends, begin+n)
	return nil
}

// line returns a line without its end. The line is valid until the next read.
func (q *requests) line() ([]byte, error) {
	line, err := q.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, protocolError("too big a line")
	}
	if err != nil {
		if len(line) > 0 {
			err = noEOF(err)
		}
		return nil, err
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

// waiting reports whether further input of the client has been read ahead.
func (q *requests) waiting() bool { return q.r.Buffered() > 0 }

// noEOF turns io.EOF in the middle of a command into io.ErrUnexpectedEOF.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// number parses a length of at most limit.
func number(digits []byte, limit int) (int, error) {
	n, err := strconv.Atoi(string(digits))
	if err != nil || n < 0 || n > limit {
		return 0, errNotInteger
	}
	return n, nil
}

// replies writes the answers to one client.
type replies struct {
	w   *bufio.Writer
	num [20]byte
}

func (r *replies) status(s string) { r.w.WriteByte('+'); r.w.WriteString(s); r.w.WriteString("\r\n") }

func (r *replies) fail(err error) {
	r.w.WriteByte('-')
	if _, coded := err.(codedError); !coded {
		r.w.WriteString("ERR ")
	}
	r.w.WriteString(err.Error())
	r.w.WriteString("\r\n")
}

func (r *replies) integer(n int64) { r.header(':', n) }
func (r *replies) array(n int)     { r.header('*', int64(n)) }
func (r *replies) null()           { r.w.WriteString("$-1\r\n") }

func (r *replies) bulk(s string) {
	r.header('$', int64(len(s)))
	r.w.WriteString(s)
	r.w.WriteString("\r\n")
}

func (r *replies) header(kind byte, n int64) {
	r.w.WriteByte(kind)
	r.w.Write(strconv.AppendInt(r.num[:0], n, 10))
	r.w.WriteString("\r\n")
}
