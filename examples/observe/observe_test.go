package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/async"
)

// start runs the program on a free port until the test ends.
func start(t *testing.T) (url string) {
	ctx, stop := context.WithCancel(context.Background())
	addrs, over := make(chan net.Addr, 1), make(chan error, 1)
	go func() { over <- run(ctx, "127.0.0.1:0", func(a net.Addr) { addrs <- a }) }()
	t.Cleanup(func() {
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	select {
	case a := <-addrs:
		return "http://" + a.String()
	case err := <-over:
		over <- err
		t.Fatal("it has not begun")
		return ""
	}
}

func get(t *testing.T, url string) (body []byte, header http.Header) {
	t.Helper()
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err = io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, answer.Status, err)
	}
	return body, answer.Header
}

func getState(t *testing.T, url string) (s state) {
	t.Helper()
	body, header := get(t, url+"/state")
	if got := header.Get("Content-Type"); got != "application/json" {
		t.Errorf("/state is %s", got)
	}
	if err := json.Unmarshal(body, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPage(t *testing.T) {
	url := start(t)
	body, header := get(t, url+"/")
	if !strings.Contains(string(body), "<title>observe") || !strings.Contains(header.Get("Content-Type"), "text/html") {
		t.Errorf("that is not the page: %s, %.100s", header.Get("Content-Type"), body)
	}
	for _, from := range []string{"src=\"http", "href=\"http", "url(http", "@import"} {
		if strings.Contains(string(body), from) {
			t.Errorf("the page loads something from elsewhere: %s", from)
		}
	}
}

// The load has tasks of each kind, and data for each part of the page.
func TestState(t *testing.T) {
	url := start(t)
	var s state
	found := func() bool {
		s = getState(t, url)
		kinds, names := map[string]int{}, map[string]int{}
		for _, task := range s.Tasks {
			kinds[task.Kind]++
			names[task.Name]++
		}
		return kinds["straight"] > 2*clients && kinds["future"] >= sleepers && kinds["goroutine"] > 0 && kinds["blocking"] > 0 &&
			names["accept"] == 1 && names["echo"] == clients && names["client"] == clients && names["consumer"] == takers &&
			s.Metrics.Blocking > 0 && s.Metrics.PollTime.Count() > 0 && len(s.History) > 1
	}
	for begun := time.Now(); !found(); time.Sleep(50 * time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("not all is there: %d tasks, %+v", len(s.Tasks), s.Metrics)
		}
	}
	if len(s.Workers) != s.Metrics.Workers || len(s.Bounds) != len(s.Metrics.PollTime.Counts) || s.BeforeAt == 0 || s.Begun > s.Now {
		t.Errorf("this cannot be: %d workers, %d bounds, %+v", len(s.Workers), len(s.Bounds), s)
	}
}

func TestExpvar(t *testing.T) {
	url := start(t)
	var vars struct{ Async async.Metrics }
	body, _ := get(t, url+"/debug/vars")
	if err := json.Unmarshal(body, &vars); err != nil {
		t.Fatal(err)
	}
	if vars.Async.Workers != 2 || vars.Async.Spawned == 0 {
		t.Errorf("that is not the runtime: %+v", vars.Async)
	}
}

// The log keeps the latest stalls, the latest first, and at most stallsKept.
func TestStallLog(t *testing.T) {
	l := new(stallLog)
	if all := l.all(); all == nil || len(all) > 0 {
		t.Errorf("it begins with %v", all)
	}
	for i := range stallsKept + 3 {
		l.add(async.Stall{Worker: i, Stack: "here"})
	}
	all := l.all()
	if len(all) != stallsKept || all[0].Worker != stallsKept+2 || all[0].Stack != "here" {
		t.Errorf("%+v", all)
	}
}

// The number of samples is bounded.
func TestSamplesAreBounded(t *testing.T) {
	rt, err := async.New(async.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Shutdown(context.Background())
	w := newWatch(rt, new(stallLog))
	begun := time.Now().Add(-time.Hour)
	for i := range 3 * samplesKept {
		w.take(begun.Add(time.Duration(i) * sampleEvery))
	}
	s := w.state()
	if len(s.History) != samplesKept {
		t.Errorf("%d points", len(s.History))
	}
	if last := s.History[len(s.History)-1].At; s.BeforeAt != last {
		t.Errorf("Before is of %d, and the latest sample, which is old enough, of %d", s.BeforeAt, last)
	}
}
