package main

import (
	"slices"
	"testing"

	"example.com/async/bench/internal/suite"
)

func TestTheSmallTableNeedsOnlyGo(t *testing.T) {
	o, err := parseOptions([]string{"-quick"})
	if err != nil {
		t.Fatal(err)
	}
	rows := o.plan()
	if len(rows) == 0 {
		t.Error("it has no rows")
	}
	for _, p := range programs(rows) {
		if !p.Required {
			t.Errorf("it needs the program %s", p.Name)
		}
	}
}

// If a program cannot be built, all of its subjects are left out, and the message names them.
func TestSubjectsOfAProgramAreNamed(t *testing.T) {
	rows := slices.DeleteFunc(slices.Clone(suite.Rows), func(r suite.Row) bool { return r.Name != "work/mpmc_4x1" })
	if got := formsOf(suite.SubjectNamed("tokio").Program, rows); !slices.Equal(got, []string{"tokio", "tokio-mpsc", "async-std", "smol"}) {
		t.Errorf("the Rust program leaves out %v", got)
	}
	if got := formsOf(suite.SubjectNamed("c").Program, rows); got != nil {
		t.Errorf("the C program, which has no part in the row, leaves out %v", got)
	}
}
