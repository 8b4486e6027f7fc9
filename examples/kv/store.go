package main

import (
	"errors"
	"hash/maphash"
	"strconv"
	"sync"
	"time"

	"example.com/async"
)

// codedError is an error whose text begins with a code of its own.
type codedError string

func (e codedError) Error() string { return string(e) }

// What a command may answer.
const errWrongType = codedError("WRONGTYPE Operation against a key holding the wrong kind of value")

var (
	errNotInteger = errors.New("value is not an integer or out of range")
	errOverflow   = errors.New("increment or decrement would overflow")
	errSyntax     = errors.New("syntax error")
	errTooLong    = errors.New("string exceeds maximum allowed size")
)

// store is the data, in shards, so that workers rarely meet.
//
// A shard has a sync.Mutex: nothing awaits while it holds one, and it is held
// for less time than it would take to suspend a task.
type store struct {
	seed   maphash.Seed
	shards [64]shard
}

type shard struct {
	mu     sync.Mutex
	values map[string]*value
	_      [40]byte // shards do not share a cache line
}

// value is what a key has: a list, or a string if that is nil.
type value struct {
	str  string
	list *list
	ends time.Time // zero: never
}

func newStore() *store {
	s := &store{seed: maphash.MakeSeed()}
	for i := range s.shards {
		s.shards[i].values = map[string]*value{}
	}
	return s
}

// locked calls f with the shard of key.
func (s *store) locked(key []byte, f func(sh *shard)) {
	sh := &s.shards[maphash.Bytes(s.seed, key)%uint64(len(s.shards))]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	f(sh)
}

// get returns the value of a key, or nil.
func (sh *shard) get(key []byte) *value {
	v := sh.values[string(key)]
	if v != nil && v.ended(time.Now()) {
		delete(sh.values, string(key))
		return nil
	}
	return v
}

func (v *value) ended(now time.Time) bool { return !v.ends.IsZero() && !now.Before(v.ends) }

// str returns the string of a key; ok is false if there is none.
func (sh *shard) str(key []byte) (s string, ok bool, err error) {
	switch v := sh.get(key); {
	case v == nil:
		return "", false, nil
	case v.list != nil:
		return "", false, errWrongType
	default:
		return v.str, true, nil
	}
}

// list returns the list of a key, nil if there is none.
func (sh *shard) list(key []byte) (*list, error) {
	switch v := sh.get(key); {
	case v == nil:
		return nil, nil
	case v.list == nil:
		return nil, errWrongType
	default:
		return v.list, nil
	}
}

// add adds n to the number that a key has.
func (sh *shard) add(key []byte, n int64) (int64, error) {
	s, ok, err := sh.str(key)
	if err != nil {
		return 0, err
	}
	old := int64(0)
	if ok {
		if old, err = strconv.ParseInt(s, 10, 64); err != nil {
			return 0, errNotInteger
		}
	}
	sum := old + n
	if (sum > old) != (n > 0) && n != 0 {
		return 0, errOverflow
	}
	sh.change(key, strconv.FormatInt(sum, 10))
	return sum, nil
}

// change sets the string of a key and leaves its expiry.
func (sh *shard) change(key []byte, s string) {
	if v := sh.values[string(key)]; v != nil {
		v.str = s
		return
	}
	sh.values[string(key)] = &value{str: s}
}

// push appends to the list of a key, or prepends, and returns its length.
func (sh *shard) push(key []byte, items [][]byte, front bool) (int, error) {
	l, err := sh.list(key)
	if err != nil {
		return 0, err
	}
	if l == nil {
		l = new(list)
		sh.values[string(key)] = &value{list: l}
	}
	for _, item := range items {
		if front {
			l.pushFront(string(item))
		} else {
			l.pushBack(string(item))
		}
	}
	return l.len(), nil
}

// pop takes the first or the last item off the list of a key.
func (sh *shard) pop(key []byte, front bool) (item string, ok bool, err error) {
	l, err := sh.list(key)
	if l == nil {
		return "", false, err
	}
	if front {
		item = l.popFront()
	} else {
		item = l.popBack()
	}
	if l.len() == 0 {
		delete(sh.values, string(key)) // an empty list is none
	}
	return item, true, nil
}

// sweepEvery is how often keys are removed that have expired and that nobody
// has asked for since.
const sweepEvery = time.Second

// expireForever is a task. It looks at one shard at a time, and ends when the
// runtime drains.
func (s *store) expireForever(cx *async.Context) error {
	for {
		_, err := async.Await(cx, async.TimeoutFuture(async.DrainingFuture(), sweepEvery))
		if err == nil || cx.Err() != nil {
			return nil
		}
		for i := range s.shards {
			s.shards[i].sweep(time.Now())
			if err := async.Yield(cx); err != nil {
				return nil
			}
		}
	}
}

func (sh *shard) sweep(now time.Time) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for key, v := range sh.values {
		if v.ended(now) {
			delete(sh.values, key)
		}
	}
}

func (s *store) size() (n int) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		n += len(sh.values)
		sh.mu.Unlock()
	}
	return n
}

func (s *store) clear() {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		clear(sh.values)
		sh.mu.Unlock()
	}
}
