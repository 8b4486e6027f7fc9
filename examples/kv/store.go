package main

import (
	"errors"
	"hash/maphash"
	"strconv"
	"sync"
	"time"

	"example.com/async"
)

// codedError is an error whose text begins with its code. Other errors get the code ERR.
type codedError string

func (e codedError) Error() string { return string(e) }

// Errors that commands answer.
const errWrongType = codedError("WRONGTYPE Operation against a key holding the wrong kind of value")

var (
	errNotInteger = errors.New("value is not an integer or out of range")
	errOverflow   = errors.New("increment or decrement would overflow")
	errSyntax     = errors.New("syntax error")
	errTooLong    = errors.New("string exceeds maximum allowed size")
)

// store is the data, divided into shards so that workers rarely lock the same mutex.
//
// The mutex of a shard is a sync.Mutex and not an async.Mutex: no code awaits while it holds the
// mutex, and a critical section is shorter than the time that it takes to suspend a task.
type store struct {
	seed   maphash.Seed
	shards [64]shard
}

type shard struct {
	mu     sync.Mutex
	values map[string]*value
	_      [40]byte // padding, so that shards do not share a cache line
}

// value is the value of a key: list, or str if list is nil.
type value struct {
	str  string
	list *list
	ends time.Time // the time of expiry; zero if the key does not expire
}

func newStore() *store {
	s := &store{seed: maphash.MakeSeed()}
	for i := range s.shards {
		s.shards[i].values = map[string]*value{}
	}
	return s
}

// locked calls f with the shard of key, whose mutex is held during the call. f must not await.
func (s *store) locked(key []byte, f func(sh *shard)) {
	sh := &s.shards[maphash.Bytes(s.seed, key)%uint64(len(s.shards))]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	f(sh)
}

// get returns the value of a key, or nil. It removes a value that has expired.
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

// list returns the list of a key, or nil if the key does not exist.
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

// add adds n to the number of a key. A key that does not exist counts as 0.
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

// change sets the string of a key and keeps the expiry of the key.
func (sh *shard) change(key []byte, s string) {
	if v := sh.values[string(key)]; v != nil {
		v.str = s
		return
	}
	sh.values[string(key)] = &value{str: s}
}

// push adds items at the front or the back of the list of a key, and returns the length of the
// list.
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

// pop removes the first or the last item of the list of a key, and returns the item.
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
		delete(sh.values, string(key)) // as in Redis, there are no empty lists
	}
	return item, true, nil
}

// sweepEvery is the time between two sweeps, which remove expired keys. A key that a client asks
// for after it has expired is removed by get.
const sweepEvery = time.Second

// expireForever removes expired keys periodically, until the runtime drains. It yields after each
// shard, so that it never keeps its worker for a whole sweep.
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
