package work

import (
	"testing"
	"time"
)

// Calls are measured for the duration, and at least 10 short or 3 long calls are measured.
func TestHowOftenACallIsMeasured(t *testing.T) {
	m := Meter{Duration: 300 * time.Millisecond}
	for _, test := range []struct {
		call time.Duration
		want int
	}{{time.Microsecond, 200_000}, {10 * time.Millisecond, 30}, {90 * time.Millisecond, 10}, {400 * time.Millisecond, 3}, {2 * time.Second, 3}} {
		calls := 0
		for m.more(calls, time.Duration(calls)*test.call) {
			calls++
		}
		if calls != test.want {
			t.Errorf("a call of %v is measured %d times, want %d", test.call, calls, test.want)
		}
	}
}

func TestTimeCallsOnceForEachReading(t *testing.T) {
	calls := 0
	m := Meter{Duration: time.Millisecond}
	err := Timed(1000, func(done func()) { calls++; done() })(&m)
	if err != nil || m.Metrics["calls"] < 10 || m.Metrics["calls"] >= float64(calls) || m.Metrics["ns"] <= 0 {
		t.Errorf("%d calls, %v, %v", calls, m.Metrics, err)
	}
}

func TestLostMessagesPanic(t *testing.T) {
	over := false
	received := CountReceived(2, func() { over = true })
	received(Messages - 1)
	received(1)
	if !over {
		t.Error("all was received, and it is not over")
	}
	defer func() {
		if recover() == nil {
			t.Error("a message was lost without a panic")
		}
	}()
	CountReceived(1, func() {})(Messages - 1)
}
