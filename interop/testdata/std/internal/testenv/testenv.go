// Package testenv replaces internal/testenv, which only the standard library may import.
package testenv

import (
	"context"
	"os/exec"
	"testing"
)

// Builder returns "": the tests do not run on a builder of the Go project.
func Builder() string { return "" }

// SkipFlaky skips a test that is known to fail sometimes.
func SkipFlaky(t testing.TB, issue int) {
	t.Helper()
	t.Skipf("flaky: issue %d of the Go project", issue)
}

// MustHaveExec does nothing: the tests can start processes.
func MustHaveExec(testing.TB) {}

// MustHaveSource does nothing: the sources of the Go project are present.
func MustHaveSource(testing.TB) {}

// MustHaveGoRun does nothing: the go command is present.
func MustHaveGoRun(testing.TB) {}

// GoToolPath returns the path of the go command.
func GoToolPath(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// GoTool is GoToolPath.
func GoTool() (string, error) { return exec.LookPath("go") }

// Command returns a command that is killed when the test ends.
func Command(t testing.TB, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(t.Context(), name, args...)
}

// CommandContext returns a command that is killed when ctx ends.
func CommandContext(_ testing.TB, ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, name, args...)
}
