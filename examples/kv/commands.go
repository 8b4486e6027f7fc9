package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// session serves one client.
type session struct {
	store *store
	out   replies
}

// serve answers commands until the client leaves. It writes the answers only when no further
// command has arrived, so that a pipeline of commands costs few system calls.
func (s *session) serve(conn net.Conn) error {
	in := newRequests(conn)
	s.out.w = bufio.NewWriterSize(conn, 16<<10)
	for {
		args, err := in.next()
		if err != nil {
			return s.farewell(err)
		}
		if len(args) > 0 && !s.run(args) {
			return s.out.w.Flush()
		}
		if !in.waiting() {
			if err := s.out.w.Flush(); err != nil {
				return gone(err)
			}
		}
	}
}

// farewell ends the session after a read has failed: it writes the answers that are left, and the
// error if the client has sent something that is not a command.
func (s *session) farewell(err error) error {
	if bad := protocolError(""); errors.As(err, &bad) {
		s.out.fail(bad)
		err = nil
	}
	return errors.Join(gone(err), gone(s.out.w.Flush()))
}

// gone returns nil if err only means that the client has left. It returns any other error
// unchanged.
func gone(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// command is a command of the protocol.
type command struct {
	min, max int // how many arguments
	do       func(s *session, args [][]byte)
}

// many is the max of a command that takes any number of arguments.
const many = math.MaxInt

var commands = map[string]command{
	"PING":     {0, 1, (*session).ping},
	"ECHO":     {1, 1, func(s *session, args [][]byte) { s.out.bulk(string(args[0])) }},
	"SET":      {2, 5, (*session).set},
	"SETNX":    {2, 2, (*session).setIfNew},
	"GET":      {1, 1, (*session).get},
	"MGET":     {1, many, (*session).getAll},
	"MSET":     {2, many, (*session).setAll},
	"APPEND":   {2, 2, (*session).append},
	"STRLEN":   {1, 1, (*session).length},
	"INCR":     {1, 1, func(s *session, args [][]byte) { s.add(args[0], []byte("1"), 1) }},
	"DECR":     {1, 1, func(s *session, args [][]byte) { s.add(args[0], []byte("1"), -1) }},
	"INCRBY":   {2, 2, func(s *session, args [][]byte) { s.add(args[0], args[1], 1) }},
	"DECRBY":   {2, 2, func(s *session, args [][]byte) { s.add(args[0], args[1], -1) }},
	"LPUSH":    {2, many, func(s *session, args [][]byte) { s.push(args, true) }},
	"RPUSH":    {2, many, func(s *session, args [][]byte) { s.push(args, false) }},
	"LPOP":     {1, 1, func(s *session, args [][]byte) { s.pop(args[0], true) }},
	"RPOP":     {1, 1, func(s *session, args [][]byte) { s.pop(args[0], false) }},
	"LLEN":     {1, 1, (*session).listLength},
	"LRANGE":   {3, 3, (*session).listRange},
	"DEL":      {1, many, func(s *session, args [][]byte) { s.count(args, true) }},
	"EXISTS":   {1, many, func(s *session, args [][]byte) { s.count(args, false) }},
	"EXPIRE":   {2, 2, func(s *session, args [][]byte) { s.expire(args, time.Second) }},
	"PEXPIRE":  {2, 2, func(s *session, args [][]byte) { s.expire(args, time.Millisecond) }},
	"TTL":      {1, 1, func(s *session, args [][]byte) { s.left(args[0], time.Second) }},
	"PTTL":     {1, 1, func(s *session, args [][]byte) { s.left(args[0], time.Millisecond) }},
	"DBSIZE":   {0, 0, func(s *session, _ [][]byte) { s.out.integer(int64(s.store.size())) }},
	"FLUSHALL": {0, 1, func(s *session, _ [][]byte) { s.store.clear(); s.out.status("OK") }},
	"COMMAND":  {0, many, func(s *session, _ [][]byte) { s.out.array(0) }}, // redis-cli asks for hints
	"CONFIG":   {1, many, func(s *session, _ [][]byte) { s.out.array(0) }}, // redis-benchmark asks for settings
}

// run answers one command. It reports false if the command ends the session.
func (s *session) run(args [][]byte) bool {
	name := strings.ToUpper(string(args[0]))
	if name == "QUIT" {
		s.out.status("OK")
		return false
	}
	c, ok := commands[name]
	switch n := len(args) - 1; {
	case !ok:
		s.out.fail(fmt.Errorf("unknown command '%.64q'", args[0]))
	case n < c.min || n > c.max:
		s.out.fail(fmt.Errorf("wrong number of arguments for '%s' command", strings.ToLower(name)))
	default:
		c.do(s, args[1:])
	}
	return true
}

func (s *session) ping(args [][]byte) {
	if len(args) == 1 {
		s.out.bulk(string(args[0]))
		return
	}
	s.out.status("PONG")
}

// set is SET key value [NX|XX] [EX seconds|PX milliseconds].
func (s *session) set(args [][]byte) {
	v := &value{str: string(args[1])}
	var onlyNew, onlyOld bool
	for opts := args[2:]; len(opts) > 0; opts = opts[1:] {
		switch opt := strings.ToUpper(string(opts[0])); {
		case opt == "NX":
			onlyNew = true
		case opt == "XX":
			onlyOld = true
		case (opt == "EX" || opt == "PX") && len(opts) > 1 && v.ends.IsZero():
			unit := time.Second
			if opt == "PX" {
				unit = time.Millisecond
			}
			d, err := duration(opts[1], unit)
			if err != nil || d <= 0 {
				s.out.fail(errors.New("invalid expire time in 'set' command"))
				return
			}
			v.ends = time.Now().Add(d)
			opts = opts[1:]
		default:
			s.out.fail(errSyntax)
			return
		}
	}
	if onlyNew && onlyOld {
		s.out.fail(errSyntax)
		return
	}
	done := false
	s.store.locked(args[0], func(sh *shard) {
		exists := sh.get(args[0]) != nil
		if done = !(onlyNew && exists || onlyOld && !exists); done {
			sh.values[string(args[0])] = v
		}
	})
	if done {
		s.out.status("OK")
	} else {
		s.out.null()
	}
}

func (s *session) setIfNew(args [][]byte) {
	n := int64(0)
	s.store.locked(args[0], func(sh *shard) {
		if sh.get(args[0]) == nil {
			sh.values[string(args[0])] = &value{str: string(args[1])}
			n = 1
		}
	})
	s.out.integer(n)
}

func (s *session) get(args [][]byte) {
	var (
		str string
		ok  bool
		err error
	)
	s.store.locked(args[0], func(sh *shard) { str, ok, err = sh.str(args[0]) })
	s.maybe(str, ok, err)
}

// maybe answers with the error, with str, or with null if ok is false.
func (s *session) maybe(str string, ok bool, err error) {
	switch {
	case err != nil:
		s.out.fail(err)
	case !ok:
		s.out.null()
	default:
		s.out.bulk(str)
	}
}

func (s *session) getAll(keys [][]byte) {
	s.out.array(len(keys))
	for _, key := range keys {
		s.store.locked(key, func(sh *shard) {
			str, ok, err := sh.str(key)
			// As in Redis, a value that is not a string counts as missing.
			s.maybe(str, ok && err == nil, nil)
		})
	}
}

func (s *session) setAll(args [][]byte) {
	if len(args)%2 != 0 {
		s.out.fail(errors.New("wrong number of arguments for 'mset' command"))
		return
	}
	for i := 0; i < len(args); i += 2 {
		s.store.locked(args[i], func(sh *shard) { sh.values[string(args[i])] = &value{str: string(args[i+1])} })
	}
	s.out.status("OK")
}

func (s *session) append(args [][]byte) {
	s.integer(args[0], func(sh *shard) (int64, error) {
		str, _, err := sh.str(args[0])
		if err == nil && len(str)+len(args[1]) > maxBulk {
			err = errTooLong
		}
		if err != nil {
			return 0, err
		}
		sh.change(args[0], str+string(args[1]))
		return int64(len(str) + len(args[1])), nil
	})
}

func (s *session) length(args [][]byte) {
	s.integer(args[0], func(sh *shard) (int64, error) {
		str, _, err := sh.str(args[0])
		return int64(len(str)), err
	})
}

func (s *session) add(key, by []byte, sign int64) {
	n, err := strconv.ParseInt(string(by), 10, 64)
	if err != nil || n == math.MinInt64 {
		s.out.fail(errNotInteger)
		return
	}
	s.integer(key, func(sh *shard) (int64, error) { return sh.add(key, sign*n) })
}

func (s *session) push(args [][]byte, front bool) {
	s.integer(args[0], func(sh *shard) (int64, error) {
		n, err := sh.push(args[0], args[1:], front)
		return int64(n), err
	})
}

func (s *session) pop(key []byte, front bool) {
	var (
		item string
		ok   bool
		err  error
	)
	s.store.locked(key, func(sh *shard) { item, ok, err = sh.pop(key, front) })
	s.maybe(item, ok, err)
}

func (s *session) listLength(args [][]byte) {
	s.integer(args[0], func(sh *shard) (int64, error) {
		l, err := sh.list(args[0])
		if l == nil {
			return 0, err
		}
		return int64(l.len()), nil
	})
}

func (s *session) listRange(args [][]byte) {
	first, err1 := strconv.ParseInt(string(args[1]), 10, 64)
	last, err2 := strconv.ParseInt(string(args[2]), 10, 64)
	if err1 != nil || err2 != nil {
		s.out.fail(errNotInteger)
		return
	}
	var items []string
	var err error
	s.store.locked(args[0], func(sh *shard) {
		var l *list
		if l, err = sh.list(args[0]); l != nil {
			items = l.between(first, last)
		}
	})
	if err != nil {
		s.out.fail(err)
		return
	}
	s.out.array(len(items))
	for _, item := range items {
		s.out.bulk(item)
	}
}

// count answers how many of the keys exist, and deletes them if remove is set.
func (s *session) count(keys [][]byte, remove bool) {
	n := int64(0)
	for _, key := range keys {
		s.store.locked(key, func(sh *shard) {
			if sh.get(key) == nil {
				return
			}
			n++
			if remove {
				delete(sh.values, string(key))
			}
		})
	}
	s.out.integer(n)
}

func (s *session) expire(args [][]byte, unit time.Duration) {
	d, err := duration(args[1], unit)
	if err != nil {
		s.out.fail(err)
		return
	}
	s.integer(args[0], func(sh *shard) (int64, error) {
		v := sh.get(args[0])
		if v == nil {
			return 0, nil
		}
		v.ends = time.Now().Add(d)
		return 1, nil
	})
}

// left answers TTL and PTTL: -1 for a key that does not expire, and -2 for a key that does not
// exist.
func (s *session) left(key []byte, unit time.Duration) {
	s.integer(key, func(sh *shard) (int64, error) {
		switch v := sh.get(key); {
		case v == nil:
			return -2, nil
		case v.ends.IsZero():
			return -1, nil
		default:
			return int64((time.Until(v.ends) + unit/2) / unit), nil
		}
	})
}

// integer calls f with the locked shard of key, and answers with the result of f.
func (s *session) integer(key []byte, f func(sh *shard) (int64, error)) {
	var n int64
	var err error
	s.store.locked(key, func(sh *shard) { n, err = f(sh) })
	if err != nil {
		s.out.fail(err)
		return
	}
	s.out.integer(n)
}

// duration parses a number of units. It refuses more than a century, so that no time overflows.
func duration(digits []byte, unit time.Duration) (time.Duration, error) {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(digits)), 10, 64)
	if limit := int64(100 * 365 * 24 * time.Hour / unit); err != nil || n > limit || n < -limit {
		return 0, errNotInteger
	}
	return time.Duration(n) * unit, nil
}
