// Package testenv stands in for the standard library's, which only that may import.
package testenv

import (
	"context"
	"os/exec"
	"testing"
)

// Builder returns the name of a builder of the Go project's: this is none.
func Builder() string { return "" }

// SkipFlaky skips a test that is known to fail now and then.
func SkipFlaky(t testing.TB, issue int) {
	t.Helper()
	t.Skipf("flaky: issue %d of the Go project", issue)
}

// MustHaveExec would skip the test if there were no processes.
func MustHaveExec(testing.TB) {}

// MustHaveSource would skip the test if there were no sources of the Go project.
func MustHaveSource(testing.TB) {}

// MustHaveGoRun would skip the test if there were no go command.
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

// Command returns the command.
func Command(t testing.TB, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(t.Context(), name, args...)
}

// CommandContext returns the command, which ends with ctx.
func CommandContext(_ testing.TB, ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, name, args...)
}
