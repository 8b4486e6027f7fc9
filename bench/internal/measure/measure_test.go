package measure

import (
	"os"
	"runtime"
	"testing"

	"example.com/async/bench/internal/suite"
)

// TestMain changes to the directory of the module, because New builds the programs there.
func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// Each kind of row has all its metrics, for the library and its baselines. The programs of these
// subjects need only Go.
func TestTake(t *testing.T) {
	// The kernel kills a child when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b, err := New(t.Context(), 0.1, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	small := suite.Row{Name: "idle/300", Kind: suite.Idle, Conns: 300, Subjects: []string{"net", "serve"}, Metrics: []suite.Metric{{Key: "rss_bytes"}}}
	for _, r := range append(rowsNamed(t, "work/chained_spawn", "work/mutex_contention", "work/mpmc_4x4", "echo/closed/64", "echo/5000/8", "beside/1"), small) {
		if r.Busy > 0 {
			r.Rate = 5_000 // at the rate of the row its requests would take four seconds
		}
		for _, name := range r.Subjects {
			s := suite.SubjectNamed(name)
			if s.Group > suite.Baseline {
				continue
			}
			if err := b.Build(t.Context(), s.Program); err != nil {
				t.Fatal(err)
			}
			metrics, err := b.Take(t.Context(), r, s)
			if err != nil {
				t.Errorf("%s of %s: %v", r.Name, name, err)
				continue
			}
			for _, m := range r.Metrics {
				undetermined := m.Key == "p999_us" // so few requests do not determine this quantile
				if v, ok := metrics[m.Key]; (!ok || v <= 0) && !undetermined {
					t.Errorf("%s of %s: %s is %v", r.Name, name, m.Key, v)
				}
			}
		}
	}
}

func TestAnOpenLoopLastsUntilItHasItsRequests(t *testing.T) {
	b := &Bench{Seconds: 1}
	for _, test := range []struct {
		row  string
		want float64
	}{{"echo/500/64", 2}, {"echo/5000/64", 1}, {"echo/closed/64", 1}, {"beside/4", 2}, {"profile/500", 5}, {"work/ping_pong", 1}} {
		if got := b.seconds(rowsNamed(t, test.row)[0]); got != test.want {
			t.Errorf("%s lasts %v s, want %v", test.row, got, test.want)
		}
	}
}

func rowsNamed(t *testing.T, names ...string) []suite.Row {
	var rows []suite.Row
	for _, name := range names {
		r, ok := suite.RowNamed(name)
		if !ok {
			t.Fatalf("there is no row %q", name)
		}
		rows = append(rows, r)
	}
	return rows
}

func TestWrongEchoesFailTheMeasurement(t *testing.T) {
	if _, err := answered(map[string]float64{"requests": 10, "errors": 1}); err == nil {
		t.Error("a wrong echo is accepted")
	}
	if _, err := answered(map[string]float64{"requests": 0}); err == nil {
		t.Error("no answer is accepted")
	}
}
