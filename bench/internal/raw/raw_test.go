package raw

import (
	"path/filepath"
	"strings"
	"testing"
)

// If one file has two runs, the numbers of the rounds of the second run follow the numbers of the
// first. So samples are only paired with samples of the same run.
func TestRoundsAreNumberedThroughAllRuns(t *testing.T) {
	name := filepath.Join(t.TempDir(), "new", "raw.jsonl")
	for run := range 2 {
		w, err := Create(name, run > 0, Run{Command: "bench", Rounds: 3})
		if err != nil {
			t.Fatal(err)
		}
		for round := range 3 {
			if err := w.Add(Sample{Row: "row", Subject: "net", Round: round, Metrics: map[string]float64{"ns": 1}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Create(name, false, Run{}); err == nil {
		t.Error("rows that are there may be mixed with new ones by mistake")
	}
	rows, err := ReadFiles(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows.Runs) != 2 || len(rows.Samples) != 6 {
		t.Fatalf("%d runs, %d samples", len(rows.Runs), len(rows.Samples))
	}
	for i, s := range rows.Samples {
		if s.Round != i || s.Metrics["ns"] != 1 {
			t.Errorf("sample %d is %+v", i, s)
		}
	}
}

func TestRunsOfOtherSecondsOrWorkersAreNotMixed(t *testing.T) {
	name := filepath.Join(t.TempDir(), "raw.jsonl")
	first := Run{Seconds: 2, Workers: 2}
	w, err := Create(name, true, first)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, other := range []Run{{Seconds: 1, Workers: 2}, {Seconds: 2, Workers: 1}} {
		if _, err := Create(name, true, other); err == nil {
			t.Errorf("%+v may be appended to %+v", other, first)
		}
	}
	again, err := Create(name, true, first)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	var rows Rows
	if rows.read(strings.NewReader(`{"run":{"seconds":1}}`+"\n"+`{"run":{"seconds":2}}`)) == nil {
		t.Error("runs of other seconds are read together")
	}
}

func TestASampleNeedsARun(t *testing.T) {
	for _, text := range []string{`{"sample":{"row":"row"}}`, `{}`, `nonsense`} {
		var rows Rows
		if rows.read(strings.NewReader(text)) == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}
