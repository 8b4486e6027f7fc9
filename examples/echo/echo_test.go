package main

import (
	"os"
	"testing"
	"time"
)

// The comparison starts this program again, which in a test is the test.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-listen" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestEveryServerUnderLoad(t *testing.T) {
	l := load{conns: 8, size: 100, time: 200 * time.Millisecond}
	for _, s := range servers {
		f, err := measure(s.name, l)
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		if f.rate <= 0 || f.cpu <= 0 || f.p50 <= 0 || f.p50 > f.p99 || f.p99 > f.p999 || f.p999 > f.hi {
			t.Errorf("%s: these figures cannot be: %+v", s.name, f)
		}
	}
}

func TestCompareRefusesNonsense(t *testing.T) {
	good := load{conns: 1, size: 1, time: time.Second}
	for name, change := range map[string]func(*load){
		"no connections":       func(l *load) { l.conns = 0 },
		"too many connections": func(l *load) { l.conns = 1 << 20 },
		"no bytes":             func(l *load) { l.size = 0 },
		"too many bytes":       func(l *load) { l.size = bufferSize + 1 },
		"no time":              func(l *load) { l.time = 0 },
	} {
		l := good
		change(&l)
		if l.check(1) == nil {
			t.Error(name, "is accepted")
		}
	}
	if good.check(0) == nil {
		t.Error("no rounds are accepted")
	}
	if err := good.check(1); err != nil {
		t.Error(err)
	}
}
