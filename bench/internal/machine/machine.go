// Package machine describes the machine of a run.
package machine

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"example.com/async/bench/internal/proc"
	"example.com/async/bench/internal/suite"
)

// Describe returns the processors, the memory and the kernel of the machine. It does not name the
// machine, because raw rows are published.
func Describe() map[string]string {
	d := map[string]string{
		"processors":   fmt.Sprint(runtime.NumCPU()),
		"architecture": runtime.GOARCH,
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		d["processor"] = valueOf(string(info), "model name")
	}
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		d["memory"] = valueOf(string(info), "MemTotal")
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		version, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-")
		d["kernel"] = "Linux " + version
	}
	return d
}

// valueOf returns the value of the first line "key : value".
func valueOf(text, key string) string {
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// Versions returns the versions of the compilers and libraries with which the programs were built.
func Versions(ctx context.Context, programs []*suite.Program) map[string]string {
	v := map[string]string{"Go": strings.TrimPrefix(runtime.Version(), "go")}
	ask := func(name, program string, args ...string) {
		if out, _, err := proc.Run(ctx, program, args); err == nil && strings.TrimSpace(out) != "" {
			first, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
			v[name] = strings.TrimPrefix(first, program+" ")
		}
	}
	ask("async", "git", "describe", "--always", "--dirty")
	for _, p := range programs {
		switch p.Language {
		case suite.Go:
			if p.Module != "" {
				ask(p.Name, "go", "list", "-m", "-f", "{{.Version}}", p.Module)
			}
		case suite.C:
			ask("gcc", "gcc", "--version")
		case suite.Rust:
			ask("rustc", "rustc", "--version")
			lockedVersions(v)
		}
	}
	return v
}

// lockedVersions adds the versions of the crates of the Rust program to v.
func lockedVersions(v map[string]string) {
	lock, err := os.ReadFile("rust/Cargo.lock")
	if err != nil {
		return
	}
	name := ""
	for line := range strings.Lines(string(lock)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		value = strings.Trim(value, `"`)
		switch {
		case key == "name":
			name = value
		case key == "version" && (name == "tokio" || name == "async-std" || name == "smol" || name == "async-channel"):
			v[name] = value
		}
	}
}
